//! A line for each decision.

use tracing::{Level, debug, enabled, info};

use super::octets::Octets;
use crate::{
    Asked, Body, Context, Envelope, Layer, Refusal,
    session::server::OtherCommand,
    wire::{EhloName, Mail, Rcpt},
};

/// Writes a line to the log for each decision of what it is put around. So add it last.
///
/// A message that was accepted is a line at level info, with the number of its recipients and its
/// octets. The spans around it have the client's address and the sender. All else is at debug.
/// Logins are not decisions of layers and handlers alone; the identity is in the lines that follow.
///
/// Without this layer the server writes at info what layers and handlers refuse: EHLO, senders,
/// recipients and messages. Contents that the session refuses are among the messages. After ten
/// refusals of a connection these lines are at debug. Refused clients are always at debug, failed
/// logins always at info. What the session refuses of commands, because they are malformed, out of
/// order or not offered, is at debug. It counts for
/// [`errors`](crate::session::server::ServerLimits::errors), and beyond that `session ended` is at
/// info, with the last refusal.
///
/// ```
/// use posthaste_server::layers::Log;
/// # use posthaste_server::Service;
/// fn logged(service: impl Service) -> impl Service {
///     service.layer(Log::default())
/// }
/// ```
///
/// Each connection holds one text, of at most a command line.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// What is decided about: a name, an address or a verb.
    about: String,
    recipients: usize,
    octets: Octets,
}

impl Log {
    /// Most texts are for debug lines alone.
    fn is_about(&mut self, text: impl FnOnce() -> String) {
        if enabled!(Level::DEBUG) {
            self.about = text();
        }
    }
}

impl Layer for Log {
    async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
        debug!(tls = cx.peer.tls.is_some(), "client connected");
        Ok(())
    }

    async fn hello(&mut self, _: &Context, name: &EhloName) -> Result<(), Refusal> {
        self.is_about(|| name.to_string());
        Ok(())
    }

    async fn mail(&mut self, _: &Context, mail: &Mail) -> Result<(), Refusal> {
        self.is_about(|| mail.reverse_path.to_string());
        Ok(())
    }

    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        self.is_about(|| rcpt.forward_path.to_string());
        Ok(())
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        let sender = || cx.envelope.as_ref().map(|envelope| envelope.mail.reverse_path.to_string());
        self.is_about(|| sender().unwrap_or_default());
        Ok(())
    }

    async fn message<'b>(&mut self, _: &Context, envelope: &mut Envelope, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        self.recipients = envelope.recipients.len();
        let (octets, body) = Octets::of(body);
        self.octets = octets;
        Ok(body)
    }

    async fn other(&mut self, _: &Context, command: &OtherCommand) -> Result<(), Refusal> {
        self.is_about(|| format!("{command:?}"));
        Ok(())
    }

    fn decided(&mut self, cx: &Context, asked: Asked, refusal: Option<&Refusal>) {
        let identity = cx.peer.identity.as_deref().unwrap_or_default();
        let (about, octets, recipients) = (&*self.about, self.octets.get(), self.recipients);
        match (asked, refusal) {
            (Asked::Message, None) => info!(?identity, recipients, octets, "message accepted"),
            (Asked::Message, Some(reply)) => debug!(?identity, recipients, octets, %reply, "message refused"),
            (asked, None) => debug!(?identity, ?asked, about, "command accepted"),
            (asked, Some(reply)) => debug!(?identity, ?asked, about, %reply, "command refused"),
        }
    }
}
