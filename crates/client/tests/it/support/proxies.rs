//! Small proxies on loopback.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{Client, Dial, Race, Target, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::options;

/// A proxy that leads to one server, whatever it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct SmallProxy {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl SmallProxy {
    /// An HTTP proxy that answers a request with this, together with the first octets of the
    /// server at the port. Port 0: it answers, and closes when the client does.
    pub(crate) async fn http(answer: impl Into<Vec<u8>>, to: u16) -> Self {
        let answer = answer.into();
        Self::start(move |mut client, asked| {
            let answer = answer.clone();
            async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await.ok()?);
                }
                asked.lock().unwrap().push(request);
                lead(client, answer, to).await
            }
        })
        .await
    }

    /// A SOCKS5 proxy that takes this method, expects a login for method 2 and answers it with this
    /// octet, and then a request with this.
    #[cfg(feature = "socks5")]
    pub(crate) async fn socks5(method: u8, login: u8, answer: &'static [u8], to: u16) -> Self {
        Self::start(move |mut client, asked| async move {
            let mut said = vec![0; 2];
            client.read_exact(&mut said).await.ok()?;
            more(&mut client, &mut said, |said| usize::from(said[1])).await?;
            client.write_all(&[5, method]).await.ok()?;
            if method == 2 {
                more(&mut client, &mut said, |_| 2).await?;
                more(&mut client, &mut said, |said| usize::from(said[said.len() - 1]) + 1).await?;
                more(&mut client, &mut said, |said| usize::from(said[said.len() - 1])).await?;
                client.write_all(&[1, login]).await.ok()?;
            }
            let before = said.len();
            more(&mut client, &mut said, |_| 5).await.unwrap_or_default();
            if said.len() == before + 5 {
                let rest = |said: &Vec<u8>| match said[before + 3] {
                    1 => 5,
                    4 => 17,
                    _ => usize::from(said[before + 4]) + 2,
                };
                more(&mut client, &mut said, rest).await?;
            }
            asked.lock().unwrap().push(said);
            lead(client, answer.to_vec(), to).await
        })
        .await
    }

    async fn start<F>(serve: impl Fn(TcpStream, Arc<Mutex<Vec<Vec<u8>>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked = Arc::default();
        let proxy = Self { port: listener.local_addr().unwrap().port(), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, Arc::clone(&asked)));
            }
        });
        proxy
    }

    /// What each client has said to the proxy itself.
    pub(crate) fn asked(&self) -> Vec<Vec<u8>> {
        self.asked.lock().unwrap().clone()
    }

    /// The same as text.
    pub(crate) fn asked_text(&self) -> Vec<String> {
        self.asked().into_iter().map(|octets| String::from_utf8(octets).unwrap()).collect()
    }
}

/// Checks that a silent proxy is named and no server is blamed: by a connection, and by a race with
/// more servers than are tried at once.
pub(crate) async fn silent<D: Dial>(dial: &D, port: u16) {
    let mut options = options(Tls::Off);
    options.connect_timeout = Duration::from_secs(2);
    tokio::time::pause();
    let error = Client::connect_by(dial, "mx.test:25", &options).await.err().unwrap().to_string();
    let said =
        |seconds: u8| format!("the proxy 127.0.0.1:{port} gave no connection within {seconds} s; see that it runs");
    assert!(error.contains(&said(2)), "{error}");

    options.connect_timeout = Duration::from_secs(60);
    let servers = (1..=4).map(|last| SocketAddr::from(([192, 0, 2, last], 25)));
    let targets: Vec<_> = servers.map(|server| Target::new("mx.test", server, 1)).collect();
    let health = options.health.clone();
    let mut race = Race::new(&targets, dial.clone(), Arc::new(options));
    assert!(race.next().await.is_none());
    let failed: Vec<_> = race.failed().into_iter().map(|(_, error)| error.to_string()).collect();
    assert_eq!((failed.len(), failed[0].contains(&said(8))), (4, true), "{failed:?}");
    assert!(health.servers().is_empty(), "{:?}", health.servers());
    tokio::time::resume();
}

#[cfg(feature = "socks5")]
async fn more(client: &mut TcpStream, said: &mut Vec<u8>, count: impl FnOnce(&Vec<u8>) -> usize) -> Option<()> {
    let mut octets = vec![0; count(said)];
    client.read_exact(&mut octets).await.ok()?;
    said.extend(octets);
    Some(())
}

async fn lead(mut client: TcpStream, mut answer: Vec<u8>, to: u16) -> Option<()> {
    if to == 0 {
        client.write_all(&answer).await.ok()?;
        client.read_to_end(&mut Vec::new()).await.ok()?;
        return Some(());
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
    let mut greeting = [0; 512];
    let octets = server.read(&mut greeting).await.ok()?;
    answer.extend_from_slice(&greeting[..octets]);
    client.write_all(&answer).await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
