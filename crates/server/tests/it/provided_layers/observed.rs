use posthaste_server::{
    Asked, Body, Context, Envelope, Layer, Login, Refusal, SaslError, Service as _,
    layers::{Access, Observed},
    refusal,
    session::server::OtherCommand,
    wire::{EhloName, Mail, Mechanism, MechanismSet, Rcpt},
};
use tracing::Level;

use super::talk_with;
use crate::support::{self, Names, log::Log};

/// Refuses all.
#[derive(Clone)]
struct Refuses;

const NO: Refusal = refusal!("554 5.7.0 Not past the layer");

impl Layer for Refuses {
    async fn connect(&mut self, _: &Context) -> Result<(), Refusal> {
        Err(NO)
    }

    async fn hello(&mut self, _: &Context, _: &EhloName) -> Result<(), Refusal> {
        Err(NO)
    }

    async fn login(&mut self, _: &Context, _: Login<'_>) -> Result<(), SaslError> {
        Err(SaslError::Credentials)
    }

    async fn mail(&mut self, _: &Context, _: &Mail) -> Result<(), Refusal> {
        Err(NO)
    }

    async fn rcpt(&mut self, _: &Context, _: &Rcpt) -> Result<(), Refusal> {
        Err(NO)
    }

    async fn data(&mut self, _: &Context) -> Result<(), Refusal> {
        Err(NO)
    }

    async fn message<'b>(&mut self, _: &Context, _: &mut Envelope, _: Body<'b>) -> Result<Body<'b>, Refusal> {
        Err(NO)
    }

    async fn other(&mut self, _: &Context, _: &OtherCommand) -> Result<(), Refusal> {
        Err(NO)
    }

    fn decided(&mut self, _: &Context, _: Asked, refusal: Option<&Refusal>) {
        assert!(refusal.is_none(), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_layer_on_trial_refuses_nothing_and_the_log_tells_what_it_would() {
    let log = Log::default();
    let listening = log.listen(Level::INFO);
    let mut settings = support::settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    let service = Names::default().layer(Observed::new("trial", Refuses));
    let mut talk = talk_with(service, "192.0.2.1", settings).greeted().await;
    talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
    assert!(talk.message("a@b.test", "x").await.starts_with("250"));
    let lines = log.lines("refusal observed, client passed");
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for line in &lines[..2] {
        assert!(line.contains("layer=\"trial\"") && line.contains("refusal=554 5.7.0 Not past the layer"), "{line}");
        assert!(line.contains("address=192.0.2.1:4000"), "{line}");
    }
    // A client cannot fill the log.
    for _ in 0..20 {
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        talk.expect("RSET", "250").await;
    }
    assert_eq!(log.lines("refusal observed, client passed").len(), 10);
    drop(listening);
}

#[tokio::test]
async fn a_denied_client_passes_an_access_list_on_trial() {
    let layer = Observed::new("access", Access::deny("192.0.2.0/24".parse().unwrap()));
    talk_with(Names::default().layer(layer), "192.0.2.1", support::settings()).greeted().await;
}
