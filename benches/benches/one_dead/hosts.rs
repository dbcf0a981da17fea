//! The hosts: one that is well, and one that is dead in some way.

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Tls, accepted, session::ServerSettings,
};
use posthaste_testkit::{
    pki::tls,
    script::{Scripted, polite},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How a host is dead.
pub(crate) struct Death {
    pub(crate) name: &'static str,
    how: How,
    /// Mail goes by STARTTLS.
    pub(crate) by_tls: bool,
    /// It hangs in a transaction, which has a timer.
    pub(crate) in_transaction: bool,
}

enum How {
    Refuses,
    /// Does not answer SYN: the backlog of its listener is full.
    Full,
    /// Says this at a line, and what is right at the others.
    Says(&'static str, &'static str),
}

const fn says(name: &'static str, line: &'static str, text: &'static str) -> Death {
    Death { name, how: How::Says(line, text), by_tls: false, in_transaction: false }
}

const fn in_tls(death: Death) -> Death {
    Death { by_tls: true, ..death }
}

const fn in_transaction(death: Death) -> Death {
    Death { in_transaction: true, ..death }
}

pub(crate) const DEATHS: &[Death] = &[
    Death { name: "refuses connections", how: How::Refuses, by_tls: false, in_transaction: false },
    Death { name: "does not answer SYN", how: How::Full, by_tls: false, in_transaction: false },
    says("accepts and is silent", "<connect>", ""),
    says("greets after 60 s", "<connect>", "after 60000 220 mx.test\r\n"),
    says("closes at once", "<connect>", "close"),
    says("closes after the greeting", "EHLO", "close"),
    says("421 at once", "<connect>", "421 4.3.2 later\r\n"),
    says("hangs after EHLO", "EHLO", ""),
    in_tls(says("hangs in the TLS handshake", "STARTTLS", "220 go\r\n<hang>")),
    in_transaction(says("hangs after MAIL (timer 2 s)", "MAIL", "")),
    in_transaction(says("hangs after the final dot (timer 2 s)", "<end>", "")),
];

/// A host that is dead.
pub(crate) struct Dead {
    port: u16,
    scripted: Option<Scripted>,
    /// Held as long as the host is needed.
    _held: (Option<TcpSocket>, Option<TcpListener>, Vec<TcpStream>),
}

impl Dead {
    pub(crate) async fn start(death: &'static Death) -> Self {
        let socket = || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
            socket
        };
        match death.how {
            How::Refuses => {
                let socket = socket();
                let port = socket.local_addr().expect("an address").port();
                Self { port, scripted: None, _held: (Some(socket), None, Vec::new()) }
            }
            How::Full => {
                let listener = socket().listen(1).expect("a listener");
                let port = listener.local_addr().expect("an address").port();
                let mut fill = Vec::new();
                for _ in 0..4 {
                    let connect = TcpStream::connect(("127.0.0.1", port));
                    let wait = std::time::Duration::from_millis(100);
                    if let Ok(Ok(stream)) = tokio::time::timeout(wait, connect).await {
                        fill.push(stream);
                    }
                }
                Self { port, scripted: None, _held: (None, Some(listener), fill) }
            }
            How::Says(at, text) => {
                let offers: &[&str] = if death.by_tls { &["PIPELINING", "STARTTLS"] } else { &["PIPELINING"] };
                let script = move |_, line: &str| match line.starts_with(at) {
                    true => text.to_owned(),
                    false => polite(line, offers),
                };
                let scripted = match death.by_tls {
                    true => Scripted::with_tls(tls("mx.test").0, script).await,
                    false => Scripted::start(script).await,
                };
                Self { port: scripted.port, scripted: Some(scripted), _held: (None, None, Vec::new()) }
            }
        }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn connections(&self) -> usize {
        self.scripted.as_ref().map_or(0, |scripted| scripted.count("<connect>"))
    }
}

/// A host that takes every message.
pub(crate) struct Well {
    pub(crate) port: u16,
    task: tokio::task::JoinHandle<()>,
}

struct Sink;

impl Handler for Sink {
    async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        Ok(accepted!("250 2.0.0 Thrown away"))
    }
}

impl Well {
    pub(crate) async fn start(by_tls: bool) -> Self {
        let settings = ServerSettings::new("mx.test".parse().expect("a name"));
        let mut listener = Listener::bind("127.0.0.1:0", settings).await.expect("a port");
        if by_tls {
            listener = listener.with_tls(Tls::StartTls(tls("mx.test").0));
        }
        let port = listener.local_address().expect("an address").port();
        let server = Server::new(|_| async { Ok(Sink) }).listen(listener);
        Self { port, task: tokio::spawn(server.serve()) }
    }
}

impl Drop for Well {
    fn drop(&mut self) {
        self.task.abort();
    }
}
