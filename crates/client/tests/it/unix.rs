//! LMTP and SMTP over Unix sockets.

use std::{path::PathBuf, time::Duration};

use posthaste_client::{Client, Pool, PoolOptions, Protocol, Server, Tls, Unix};
use posthaste_testkit::script::{Heard, polite, serve};
use tokio::{io::copy_bidirectional, net::UnixListener};

use crate::support::{letters_of, options};

const TEXT: &str = "Subject: hello\r\n\r\nHello!\r\n";

/// A path of this test in the folder for temporary files.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("posthaste-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    /// A server that refuses one recipient after the content, by LMTP.
    fn listen(&self) -> Heard {
        let listener = UnixListener::bind(&self.0).unwrap();
        let script = |_, line: &str| match line {
            "<end>" => "250 one\r\n552 5.2.2 full\r\n".to_owned(),
            _ => polite(line, &["PIPELINING"]),
        };
        let (mut server, heard) = serve(script, None);
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            copy_bidirectional(&mut client, &mut server).await
        });
        heard
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_message_goes_by_lmtp_over_a_unix_socket() {
    let socket = Socket::new("lmtp");
    let mut options = options(Tls::Off);
    options.protocol = Protocol::Lmtp;
    for by_pool in [false, true] {
        let _ = std::fs::remove_file(&socket.0);
        let heard = socket.listen();
        let endpoint = format!("unix:{}", socket.0.display());
        let to = ["one@d.test", "two@d.test"];
        let recipients = if by_pool {
            let pool = Pool::with([endpoint], options.clone(), PoolOptions::default(), Unix).unwrap();
            pool.send("me@s.test", to, TEXT).await.unwrap().recipients
        } else {
            let mut client = Client::connect_by(&Unix, endpoint, &options).await.unwrap();
            assert_eq!(client.server().unwrap().server, Server::from(socket.0.as_path()));
            client.send("me@s.test", to, TEXT).await.unwrap().recipients
        };
        assert_eq!(letters_of(&recipients), "AC");
        assert_eq!(heard.lines(&["LHLO"]), ["LHLO client.test"]);
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_an_error_that_names_it() {
    let (socket, mut options) = (Socket::new("none"), options(Tls::Off));
    options.connect_timeout = Duration::from_secs(5);
    let error = Client::connect_by(&Unix, socket.0.clone(), &options).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("no connection to unix:{}: ", socket.0.display())), "{error}");
    assert_eq!(options.health.servers().len(), 1, "it counts as failed");
    let error = Client::connect_by(&Unix, "no-such-host.invalid:24", &options).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no connection to no-such-host.invalid:24: a Unix socket has a path"), "{text}");
    assert!(error.is_permanent() && options.health.servers().len() == 1, "{error:?}");
    let long = format!("unix:/{}", "x".repeat(200));
    let error = Client::connect_by(&Unix, long.as_str(), &options).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("no connection to {long}: ")), "{error}");
}
