//! A layer on trial.

use std::sync::Arc;

use tracing::{debug, info};

use crate::{
    Asked, Context, Layer, Login, Refusal, SaslError,
    session::server::OtherCommand,
    wire::{EhloName, Mail, Rcpt},
};

/// Asks a layer, tells the log what it would have refused, and lets it pass: to try a layer on real
/// mail before it refuses any.
///
/// ```
/// use posthaste_server::layers::{Greylist, Observed};
/// let layer = Observed::new("greylist", Greylist::default());
/// ```
///
/// The layer decides as it would otherwise, except that it has no part in
/// [`settings`](Layer::settings) and [`message`](Layer::message): a layer may keep the content that
/// it refuses. A delay of the layer is a delay here too.
///
/// The first 10 lines of a connection are at level info, the others at debug: a stranger must not
/// fill the log.
#[derive(Debug, Clone)]
pub struct Observed<L> {
    name: Arc<str>,
    layer: L,
    told: u8,
}

const TOLD: u8 = 10;

impl<L: Layer> Observed<L> {
    /// A layer on trial, with a name for the log.
    pub fn new(name: impl Into<Arc<str>>, layer: L) -> Self {
        Self { name: name.into(), layer, told: 0 }
    }

    fn tell(&mut self, cx: &Context, decision: Result<(), impl std::fmt::Display>) {
        let Err(refusal) = decision else { return };
        let (connection, address, layer) = (cx.connection, cx.peer.address, &*self.name);
        if self.told < TOLD {
            self.told += 1;
            info!(connection, %address, layer, %refusal, "refusal observed, client passed");
        } else {
            debug!(connection, %address, layer, %refusal, "refusal observed, client passed");
        }
    }
}

impl<L: Layer> Layer for Observed<L> {
    async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
        let decision = self.layer.connect(cx).await;
        self.tell(cx, decision);
        Ok(())
    }

    async fn hello(&mut self, cx: &Context, name: &EhloName) -> Result<(), Refusal> {
        let decision = self.layer.hello(cx, name).await;
        self.tell(cx, decision);
        Ok(())
    }

    async fn login(&mut self, cx: &Context, login: Login<'_>) -> Result<(), SaslError> {
        let decision = self.layer.login(cx, login).await;
        self.tell(cx, decision);
        Ok(())
    }

    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        let decision = self.layer.mail(cx, mail).await;
        self.tell(cx, decision);
        Ok(())
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let decision = self.layer.rcpt(cx, rcpt).await;
        self.tell(cx, decision);
        Ok(())
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        let decision = self.layer.data(cx).await;
        self.tell(cx, decision);
        Ok(())
    }

    async fn other(&mut self, cx: &Context, command: &OtherCommand) -> Result<(), Refusal> {
        let decision = self.layer.other(cx, command).await;
        self.tell(cx, decision);
        Ok(())
    }

    fn decided(&mut self, cx: &Context, asked: Asked, refusal: Option<&Refusal>) {
        self.layer.decided(cx, asked, refusal);
    }
}
