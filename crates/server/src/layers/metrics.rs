//! Counters of what a server decides.

use metrics::{counter, gauge, histogram};
use tokio::time::Instant;

use super::octets::Octets;
use crate::{Asked, Body, Context, Envelope, Layer, Login, Refusal, SaslError};

/// Counts the decisions of what it is put around, for the recorder of the [`metrics`] facade that
/// the program has installed. So add it last.
///
/// | name | kind | labels | counts |
/// |---|---|---|---|
/// | `posthaste_server_connections_total` | counter | | connections that came to this layer |
/// | `posthaste_server_connections` | gauge | | those that are open |
/// | `posthaste_server_decisions_total` | counter | `asked`, `decision` | decisions |
/// | `posthaste_server_logins_total` | counter | `mechanism` | attempts to log in |
/// | `posthaste_server_message_octets` | histogram | | octets of an accepted message |
/// | `posthaste_server_message_seconds` | histogram | | from the start of its content to the decision |
///
/// No layer sees a client that gets no seat, nor why a session ends. So a [`Server`](crate::Server)
/// counts those, with this layer or without it:
///
/// | name | kind | labels | counts |
/// |---|---|---|---|
/// | `posthaste_server_refused_total` | counter | `limit` | clients for which there is no room |
/// | `posthaste_server_sessions_total` | counter | `reason` | sessions that have ended |
///
/// `limit` is the field of [`ServerOptions`](crate::ServerOptions). `reason` is a value of
/// [`CloseReason`](crate::session::server::CloseReason), or `Lost`: the connection broke.
///
/// `asked` is `hello`, `mail`, `rcpt`, `data`, `message` or `other`. `decision` is `accepted`,
/// `deferred` (4yz) or `refused` (5yz). `mechanism` is `password`, `scram`, `token`, `external` or
/// `anonymous`. So no client adds a time series, and there are at most 60 of them.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The connection is in the gauge.
    is_open: bool,
    message: Option<(Octets, Instant)>,
}

/// A clone is another connection's, which is not open yet.
impl Clone for Metrics {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if self.is_open {
            gauge!("posthaste_server_connections").decrement(1);
        }
    }
}

impl Layer for Metrics {
    async fn connect(&mut self, _: &Context) -> Result<(), Refusal> {
        counter!("posthaste_server_connections_total").increment(1);
        gauge!("posthaste_server_connections").increment(1);
        self.is_open = true;
        Ok(())
    }

    async fn login(&mut self, _: &Context, login: Login<'_>) -> Result<(), SaslError> {
        let mechanism = match login {
            Login::Password(_) => "password",
            Login::Scram(_) => "scram",
            Login::Token(_) => "token",
            Login::External(_) => "external",
            Login::Anonymous(_) => "anonymous",
        };
        counter!("posthaste_server_logins_total", "mechanism" => mechanism).increment(1);
        Ok(())
    }

    async fn message<'b>(&mut self, _: &Context, _: &mut Envelope, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        let (octets, body) = Octets::of(body);
        self.message = Some((octets, Instant::now()));
        Ok(body)
    }

    fn decided(&mut self, _: &Context, asked: Asked, refusal: Option<&Refusal>) {
        let name = match asked {
            Asked::Hello => "hello",
            Asked::Mail => "mail",
            Asked::Rcpt => "rcpt",
            Asked::Data => "data",
            Asked::Message => "message",
            Asked::Other => "other",
        };
        let decision = match refusal {
            None => "accepted",
            Some(refusal) if refusal.is_permanent() => "refused",
            Some(_) => "deferred",
        };
        counter!("posthaste_server_decisions_total", "asked" => name, "decision" => decision).increment(1);
        // Under LMTP each recipient has a decision, and the first that accepts counts the message.
        if asked == Asked::Message
            && refusal.is_none()
            && let Some((octets, start)) = self.message.take()
        {
            histogram!("posthaste_server_message_octets").record(rounded(octets.get()));
            histogram!("posthaste_server_message_seconds").record(start.elapsed());
        }
    }
}

/// The number for a histogram, exact up to 4 GiB.
fn rounded(octets: u64) -> f64 {
    u32::try_from(octets).map_or(f64::MAX, f64::from)
}
