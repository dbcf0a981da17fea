//! A next hop that replies as a closure says, correctly or not.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

/// Returns the reply to a line. `close` closes the connection, an empty text makes no reply, and
/// `after 10 text` replies with the text 10 milliseconds later. A BDAT line comes after its chunk.
pub(crate) type Script = Box<dyn FnMut(usize, &str) -> String + Send>;

pub(crate) struct RawHop {
    pub(crate) port: u16,
    lines: Arc<Mutex<Vec<(usize, String)>>>,
}

impl RawHop {
    /// Starts a hop. The script gets the number of the connection and a line: `<connect>`, a
    /// command, or `<end>` for the end of the content.
    pub(crate) async fn start(script: impl FnMut(usize, &str) -> String + Send + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), script).await
    }

    /// Starts a hop at this address.
    pub(crate) async fn at(address: SocketAddr, script: impl FnMut(usize, &str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&lines), Arc::new(Mutex::new(Box::new(script) as Script)));
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let (mut line, mut content) = ("<connect>".to_owned(), false);
                    loop {
                        seen.lock().unwrap().push((number, line.clone()));
                        let mut said = script.lock().unwrap()(number, &line);
                        if let Some((wait, text)) = said.strip_prefix("after ").and_then(|said| said.split_once(' ')) {
                            tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
                            said = text.to_owned();
                        }
                        if said == "close" || stream.write_all(said.as_bytes()).await.is_err() {
                            return;
                        }
                        content |= said.starts_with("354");
                        loop {
                            line.clear();
                            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                                seen.lock().unwrap().push((number, "<eof>".to_owned()));
                                return;
                            }
                            if !content {
                                line.truncate(line.trim_end().len());
                                if let Some(chunk) = line.strip_prefix("BDAT ") {
                                    let octets = chunk.split(' ').next().unwrap().parse().unwrap();
                                    stream.read_exact(&mut vec![0; octets]).await.unwrap_or_default();
                                }
                                break;
                            }
                            if line == ".\r\n" {
                                (line, content) = ("<end>".to_owned(), false);
                                break;
                            }
                        }
                    }
                });
            }
        });
        Self { port, lines }
    }

    pub(crate) fn lines(&self) -> Vec<(usize, String)> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|(_, seen)| seen.starts_with(line)).count()
    }
}

/// The replies of a next hop that takes all mail and offers no extension.
pub(crate) fn polite(line: &str) -> String {
    match line.split(' ').next().unwrap_or_default() {
        "<connect>" => "220 hop.test\r\n",
        "DATA" => "354 go on\r\n",
        "QUIT" => "221 bye\r\n",
        _ => "250 ok\r\n",
    }
    .to_owned()
}
