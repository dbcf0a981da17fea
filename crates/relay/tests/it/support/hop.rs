//! A next hop that speaks SMTP correctly, and refuses what a test says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, ServerOptions, Service, Tls, accepted,
    session::{ServerSettings, server::Offers},
    wire::{Rcpt, ReversePath},
};

#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) envelope: Envelope,
    pub(crate) octets: usize,
    /// The first 64 KiB.
    pub(crate) start: Vec<u8>,
}

impl Taken {
    /// The parameters of MAIL after the path.
    pub(crate) fn mail_parameters(&self) -> String {
        let line = self.envelope.mail.to_string();
        line.split_once("> ").map(|(_, parameters)| parameters.to_owned()).unwrap_or_default()
    }

    /// The text of each RCPT after the colon.
    pub(crate) fn rcpts(&self) -> Vec<String> {
        self.envelope.recipients.iter().map(Rcpt::to_string).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.start).into_owned()
    }
}

type RcptRule = Box<dyn Fn(&str) -> Result<(), Refusal> + Send + Sync>;
type MessageRule = Box<dyn Fn(&Taken) -> Result<Accepted, Refusal> + Send + Sync>;

pub(crate) struct Behavior {
    pub(crate) rcpt: RcptRule,
    pub(crate) message: MessageRule,
    /// How long it waits before its reply to each message.
    pub(crate) think: Duration,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            rcpt: Box::new(|_| Ok(())),
            message: Box::new(|_| Ok(accepted!("250 2.0.0 Taken"))),
            think: Duration::ZERO,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Hop {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    behavior: Behavior,
    taken: Mutex<Vec<Taken>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
}

/// Changes some offers.
pub(crate) fn offering(mut offers: Offers, change: impl FnOnce(&mut Offers)) -> Offers {
    change(&mut offers);
    offers
}

impl Hop {
    pub(crate) async fn start(behavior: Behavior) -> Self {
        Self::on(0, behavior).await
    }

    pub(crate) async fn on(port: u16, behavior: Behavior) -> Self {
        Self::with(port, offering(Offers::default(), |offers| offers.dsn = true), Tls::Off, behavior).await
    }

    /// Starts a hop that takes all mail and has these offers.
    pub(crate) async fn offering(offers: Offers) -> Self {
        Self::with(0, offers, Tls::Off, Behavior::default()).await
    }

    pub(crate) async fn with(port: u16, offers: Offers, tls: Tls, behavior: Behavior) -> Self {
        let mut settings = ServerSettings::new("hop.test".parse().expect("a domain"));
        settings.limits.message_size = 1 << 30;
        settings.offers = offers;
        let listener = Listener::bind(("127.0.0.1", port), settings).await.unwrap().with_tls(tls);
        let port = listener.local_address().unwrap().port();
        let state = Arc::new(State {
            behavior,
            taken: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let mut options = ServerOptions::default();
        options.connections = 5_000;
        let server = Server::new(HopService(Arc::clone(&state))).with_options(options).listen(listener);
        tokio::spawn(server.serve());
        Self { port, state }
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.state.taken.lock().unwrap().clone()
    }

    /// The messages that it has taken, without reports.
    pub(crate) fn mail(&self) -> Vec<Taken> {
        let is_mail = |taken: &Taken| taken.envelope.mail.reverse_path != ReversePath::Null;
        self.taken().into_iter().filter(is_mail).collect()
    }

    /// The reports that it has taken.
    pub(crate) fn reports(&self) -> Vec<Taken> {
        let is_report = |taken: &Taken| taken.envelope.mail.reverse_path == ReversePath::Null;
        self.taken().into_iter().filter(is_report).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.taken.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// The connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(SeqCst)
    }

    /// The most connections that were open at once.
    pub(crate) fn most(&self) -> usize {
        self.state.most.load(SeqCst)
    }
}

struct HopService(Arc<State>);

struct HopHandler(Arc<State>);

impl Drop for HopHandler {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

impl Service for HopService {
    type Handler = HopHandler;

    async fn connect(&self, _: &Context) -> Result<HopHandler, Refusal> {
        self.0.connections.fetch_add(1, SeqCst);
        let open = self.0.open.fetch_add(1, SeqCst) + 1;
        self.0.most.fetch_max(open, SeqCst);
        Ok(HopHandler(Arc::clone(&self.0)))
    }
}

impl Handler for HopHandler {
    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        (self.0.behavior.rcpt)(&rcpt.forward_path.to_string())
    }

    async fn message(&mut self, _: &Context, envelope: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        let mut taken = Taken { envelope, octets: 0, start: Vec::new() };
        while let Some(piece) = body.next().await? {
            taken.octets += piece.len();
            let room = (64 * 1_024_usize).saturating_sub(taken.start.len());
            taken.start.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        tokio::time::sleep(self.0.behavior.think).await;
        let decision = (self.0.behavior.message)(&taken);
        if decision.is_ok() {
            self.0.taken.lock().unwrap().push(taken);
        }
        decision
    }
}
