//! A client's options, its messages, and what came of them.

#[cfg(feature = "dane")]
pub(crate) mod certificates;
pub(crate) mod proxies;
#[cfg(all(feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
pub(crate) mod signed;

use std::sync::Arc;

use bytes::Bytes;
use posthaste_client::{
    Client, ClientOptions, Identity, Recipient, RecipientOutcome, RefusedAt, Sent, Tls,
    rustls::ClientConfig,
    tls::any_certificate,
    wire::{Mail, Rcpt},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

/// How much TLS, without the configuration that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Off,
    Opportunistic,
    /// By STARTTLS, from a server whose identity counts for nothing.
    Required,
    /// By STARTTLS, from a server whose identity counts.
    Verified,
    /// The same from the first octet.
    Implicit,
}

impl Policy {
    pub(crate) fn tls(self, config: Arc<ClientConfig>) -> Tls {
        match self {
            Self::Off => Tls::Off,
            Self::Opportunistic => Tls::Opportunistic(config),
            Self::Required => Tls::Required(Identity::Unverified(config)),
            Self::Verified => Tls::Required(Identity::Verified(config)),
            Self::Implicit => Tls::Implicit(Identity::Verified(config)),
        }
    }
}

pub(crate) fn options(tls: Tls) -> ClientOptions {
    let mut options = ClientOptions::new("client.test".parse().unwrap());
    options.tls = tls;
    options
}

pub(crate) async fn connected(stream: DuplexStream) -> Client<DuplexStream> {
    Client::start(stream, "mx.test", &options(Tls::Off)).await.unwrap()
}

/// `A`ccepted, refused at `M`ail, `R`cpt, `D`ata, `B`dat or `C`ontent, for lack of `T`LS, `L`ost,
/// or `-` for unreachable.
pub(crate) fn letters<S: AsRef<str>>(sent: &Sent<S>) -> String {
    letters_of(&sent.recipients)
}

pub(crate) fn letters_of<S: AsRef<str>>(recipients: &[Recipient<S>]) -> String {
    let letter = |outcome: &RecipientOutcome| match outcome {
        RecipientOutcome::Accepted(_) => 'A',
        RecipientOutcome::Refused(_, RefusedAt::Mail) => 'M',
        RecipientOutcome::Refused(_, RefusedAt::Rcpt | RefusedAt::LaterRcpt) => 'R',
        RecipientOutcome::Refused(_, RefusedAt::Data) => 'D',
        RecipientOutcome::Refused(_, RefusedAt::Bdat) => 'B',
        RecipientOutcome::Refused(_, RefusedAt::Content) => 'C',
        RecipientOutcome::Refused(_, RefusedAt::InClear) => 'T',
        RecipientOutcome::Undeliverable(_) => 'U',
        RecipientOutcome::Unsendable(_) => 'X',
        RecipientOutcome::Postponed => 'P',
        RecipientOutcome::Lost => 'L',
        RecipientOutcome::Unreachable(_) => '-',
    };
    recipients.iter().map(|recipient| letter(&recipient.outcome)).collect()
}

/// Sends from `me@s.test` to this number of recipients: `u0@d.test`, `u1@d.test` and so on.
pub(crate) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    count: usize,
    content: Bytes,
) -> Sent {
    let recipients: Vec<_> = (0..count).map(|number| format!("<u{number}@d.test>")).collect();
    let recipients: Vec<_> = recipients.iter().map(|rcpt| Rcpt::parse(rcpt).unwrap()).collect();
    client.transact(Mail::parse("<me@s.test>").unwrap(), &recipients, content).await.into_owned()
}

/// A client that takes any certificate.
pub(crate) fn trusting() -> Arc<ClientConfig> {
    any_certificate().unwrap()
}
