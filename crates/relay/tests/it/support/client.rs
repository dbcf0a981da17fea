//! A client of a relay, on a socket.

use std::time::Duration;

use posthaste_client::SystemResolver;
use posthaste_queue::{Body as _, Queue as _, memory::MemoryQueue};
use posthaste_relay::{Relay, RelayOptions, future_release};
use posthaste_server::{
    Listener,
    session::ServerSettings,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::talk::Talk;
use tokio::net::TcpStream;

use super::{Log, relay};

/// A client of a relay that offers all its extensions.
pub(crate) struct Client {
    talk: Talk<TcpStream>,
    pub(crate) relay: Relay<MemoryQueue, SystemResolver>,
    pub(crate) log: Log,
    serving: tokio::task::JoinHandle<()>,
}

impl Client {
    pub(crate) async fn of(options: RelayOptions) -> Self {
        let (relay, log) = relay(options);
        Self::with(relay, log).await
    }

    pub(crate) async fn with(relay: Relay<MemoryQueue, SystemResolver>, log: Log) -> Self {
        let settings = relay.settings();
        Self::by(relay, log, settings).await
    }

    /// A client that may log in without TLS.
    pub(crate) async fn in_clear(relay: Relay<MemoryQueue, SystemResolver>, log: Log) -> Self {
        let mut settings = relay.settings();
        settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
        settings.offers.auth_in_clear = true;
        Self::by(relay, log, settings).await
    }

    async fn by(relay: Relay<MemoryQueue, SystemResolver>, log: Log, mut settings: ServerSettings) -> Self {
        settings.offers.future_release = Some(future_release(Duration::from_secs(1_000)));
        let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
        let address = listener.local_address().unwrap();
        let serving = tokio::spawn(relay.server().listen(listener).serve());
        let mut talk = Talk::connect(address).await;
        talk.stream.set_nodelay(true).unwrap();
        talk.reply().await;
        Self { talk, relay, log, serving }
    }

    /// Sends each text after the reply to the text before, and returns the last reply.
    pub(crate) async fn talk(&mut self, texts: &[&str]) -> String {
        let mut said = String::new();
        for text in texts {
            self.talk.send(text).await;
            said = self.talk.reply().await;
            assert_ne!(said, "<eof>", "closed after {text:?}");
        }
        said
    }

    /// Sends octets that get no reply.
    pub(crate) async fn send_octets(&mut self, octets: &[u8]) {
        self.talk.send(octets).await;
    }

    /// Sends a chunk of content, and returns the reply.
    pub(crate) async fn chunk(&mut self, octets: &[u8], last: bool) -> String {
        let command = format!("BDAT {}{}\r\n", octets.len(), if last { " LAST" } else { "" });
        self.send_octets(&[command.as_bytes(), octets].concat()).await;
        self.talk.reply().await
    }

    /// Sends a message with these parameters of MAIL. Returns the last reply, and the message's
    /// record as lines.
    pub(crate) async fn send(&mut self, mail: &str) -> (String, String) {
        let mail = format!("MAIL FROM:{mail}\r\n");
        let lines = [&*mail, "RCPT TO:<a@relay.test>\r\n", "DATA\r\n", "Subject: x\r\n\r\nbody\r\n.\r\n"];
        let said = self.talk(&lines).await;
        let all = self.relay.queue().list(None, 100).await.unwrap();
        let envelope = all.last().map(|message| String::from_utf8_lossy(&message.envelope).into_owned());
        (said, envelope.unwrap_or_default())
    }

    /// Claims a message from the queue: its record and its content.
    pub(crate) async fn take(&self) -> (String, String) {
        let claimed = self.relay.queue().claim_any(1, Duration::from_secs(60)).await.unwrap().pop().unwrap();
        let mut body = self.relay.queue().body(claimed.lease.message()).await.unwrap();
        let mut content = Vec::new();
        while let Some(piece) = body.chunk().await.unwrap() {
            content.extend_from_slice(&piece);
        }
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (text(&claimed.envelope), text(&content))
    }

    /// The priority of the newest message, and the time until it is due.
    pub(crate) async fn newest(&self) -> (i8, Duration) {
        let all = self.relay.queue().list(None, 100).await.unwrap();
        all.last().map(|message| (message.priority.0, message.deliveries[0].due_in)).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
