//! DKIM signatures, as the options say.

use std::{fmt, num::NonZero, sync::Arc, thread::available_parallelism, time::SystemTime};

use bytes::Bytes;
use posthaste_auth::dkim::{self, Algorithm, SignError, Signer};
use posthaste_queue::MessageId;
use posthaste_server::{Refusal, refusal, wire::BodyType};
use thiserror::Error;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::warn;

use crate::{RelayOptions, record::MAX_FRONT};

/// The DKIM signatures of submitted mail: the keys, and who is signed for.
///
/// Signed are messages of clients that have logged in, messages of the application
/// ([`Relay::submit`](crate::Relay::submit)), and the relay's own reports. Each is signed with the
/// keys of the domain in its From field, and goes without a signature if the ring has none for it.
/// Messages of strangers are never signed, and neither are messages with BODY=BINARYMIME. To a
/// sender that may be forged, a report goes unsigned where it may not be larger.
///
/// A client that has logged in may use any From field. To keep a user from signing for the domain
/// of another, check that in a [layer](posthaste_server::Layer).
///
/// The header of a message is held in memory until its end, up to
/// [`max_header`](posthaste_auth::dkim::SignerOptions::max_header). RSA runs on threads that may
/// block, as many at once as there are processors. Beyond it messages wait for their signature.
///
/// ```
/// use posthaste_relay::{DkimOptions, RelayOptions};
/// use posthaste_relay::auth::dkim::{KeyRing, Signer, SignerOptions, SigningKey};
///
/// let mut keys = KeyRing::new();
/// keys.add(SigningKey::new("example.org", "2026a", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")?)?;
/// let mut options = RelayOptions::new("relay.example.org".parse()?);
/// options.dkim = Some(DkimOptions::new(Signer::new(keys, SignerOptions::default())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DkimOptions {
    /// The keys, and the form of signatures. The octets of all signatures of a message are 8 KiB at
    /// most. Beyond it the message counts as one that [cannot be signed](Unsignable).
    pub signer: Signer,
    /// The clients whose messages are signed. Default: those that have logged in.
    pub sign_for: SignFor,
    /// What becomes of a message that cannot be signed. Default: it is refused.
    pub unsignable: Unsignable,
}

/// The clients whose messages are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignFor {
    /// Those that have logged in.
    #[default]
    Submitted,
    /// All that the policy trusts. With [`PolicyTable`](crate::PolicyTable): clients that have
    /// logged in, and clients in the networks that may relay.
    Trusted,
}

/// What becomes of a message that cannot be signed, since its readers could understand it in
/// different ways. It has two From fields, for example, or a line in the header that is no field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsignable {
    /// It is refused with 554 5.6.0, and
    /// [`SubmitError::Signature`](crate::SubmitError::Signature).
    #[default]
    Refuse,
    /// It goes without a signature, and the log says so.
    Send,
}

/// Why a message has no signature.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signer made none.
    #[error("the message cannot be signed: {0}")]
    Signer(#[from] SignError),
    /// The signatures are larger than the relay keeps.
    #[error(
        "the message cannot be signed: its signatures have {octets} octets, and the relay keeps {limit}; send fewer fields"
    )]
    TooLong {
        /// The octets that they have.
        octets: usize,
        /// The octets that they may have.
        limit: usize,
    },
    /// The signer panicked, or the runtime shuts down.
    #[error("the message was not signed: its signer was interrupted; try again")]
    Interrupted,
}

impl DkimOptions {
    /// Signs with these keys what clients that have logged in send.
    pub fn new(signer: Signer) -> Self {
        Self { signer, sign_for: SignFor::default(), unsignable: Unsignable::default() }
    }
}

/// The signer of a relay.
pub(crate) struct Signatures {
    /// Threads that work with RSA at once.
    threads: Arc<Semaphore>,
}

/// A message that is signed as it passes, or is not.
pub(crate) struct Signing(Option<Active>);

struct Active {
    signing: dkim::Signing,
    unsignable: Unsignable,
    threads: Arc<Semaphore>,
}

impl Default for Signatures {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self { threads: Arc::new(Semaphore::new(processors)) }
    }
}

impl Signatures {
    /// Begins the message of a client.
    pub(crate) fn of_client(
        &self,
        options: &RelayOptions,
        logged_in: bool,
        trusted: bool,
        body: Option<BodyType>,
    ) -> Signing {
        let is_signed = |options: &DkimOptions| match options.sign_for {
            SignFor::Submitted => logged_in,
            SignFor::Trusted => trusted,
        };
        self.begin(options, body, is_signed)
    }

    /// Begins a message of the application.
    pub(crate) fn of_application(&self, options: &RelayOptions, body: Option<BodyType>) -> Signing {
        self.begin(options, body, |_| true)
    }

    fn begin(
        &self,
        options: &RelayOptions,
        body: Option<BodyType>,
        is_signed: impl Fn(&DkimOptions) -> bool,
    ) -> Signing {
        // A host without BINARYMIME would have to encode it again.
        let options = options.dkim.as_ref().filter(|_| body != Some(BodyType::BinaryMime));
        Signing(options.filter(|options| is_signed(options)).map(|options| Active {
            signing: options.signer.begin(),
            unsignable: options.unsignable,
            threads: Arc::clone(&self.threads),
        }))
    }

    /// The signatures of a report by this host about a message. Empty: there are none.
    pub(crate) async fn of_report(&self, options: &RelayOptions, report: &Bytes, about: MessageId) -> Bytes {
        let Some(dkim) = &options.dkim else { return Bytes::new() };
        if dkim.signer.keys().find(&options.host_name, SystemTime::now()).is_empty() {
            return Bytes::new();
        }
        let (signer, report) = (dkim.signer.clone(), report.clone());
        // A report may have some MiB.
        let signed = blocking(&self.threads, move || signer.sign(&report, SystemTime::now())).await;
        signed.unwrap_or_else(|error| {
            warn!(message = %about, %error, "report not signed");
            Bytes::new()
        })
    }
}

impl Signing {
    /// Takes the next piece of the message.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        if let Some(active) = &mut self.0 {
            active.signing.update(piece);
        }
    }

    /// The signatures of the message, each a whole field. Empty: it goes without any. If this is
    /// dropped, RSA that has begun goes on to its end.
    pub(crate) async fn finish(self, id: MessageId) -> Result<Bytes, SignatureError> {
        let Some(Active { signing, unsignable, threads }) = self.0 else { return Ok(Bytes::new()) };
        let now = SystemTime::now();
        let signed = if signing.will_use(Algorithm::RsaSha256, now) {
            blocking(&threads, move || signing.finish(now)).await
        } else {
            front(signing.finish(now))
        };
        match (signed, unsignable) {
            (Err(error), Unsignable::Send) if !error.is_temporary() => {
                warn!(message = %id, %error, "message sent without a signature");
                Ok(Bytes::new())
            }
            (signed, _) => signed,
        }
    }
}

type Signed = Result<Vec<dkim::Signature>, SignError>;

/// Signs on a thread that may block.
async fn blocking(
    threads: &Arc<Semaphore>,
    sign: impl FnOnce() -> Signed + Send + 'static,
) -> Result<Bytes, SignatureError> {
    // It is never closed. The thread has the permit, since it goes on if this is dropped.
    let permit = Arc::clone(threads).acquire_owned().await;
    let signed = spawn_blocking(move || {
        let signed = sign();
        drop(permit);
        signed
    });
    front(signed.await.map_err(|_| SignatureError::Interrupted)?)
}

fn front(signed: Signed) -> Result<Bytes, SignatureError> {
    let front: String = signed?.iter().map(dkim::Signature::as_str).collect();
    match front.len() {
        octets if octets > MAX_FRONT => Err(SignatureError::TooLong { octets, limit: MAX_FRONT }),
        _ => Ok(front.into()),
    }
}

impl SignatureError {
    /// Returns `true` if it is no fault of the message.
    const fn is_temporary(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Signer(SignError::Provider { .. }))
    }

    /// The reply to the client. What is wrong stands before the semicolon, and after it the remedy
    /// of the operator.
    pub(crate) fn into_refusal(self) -> Refusal {
        if self.is_temporary() {
            return refusal!("451 4.3.0 Local error, try again later").with_cause(self);
        }
        let text = self.to_string();
        let what = text.split(';').next().unwrap_or_default();
        refusal!("554 5.6.0 Not taken, {}", what).with_cause(self)
    }
}

/// Without the keys.
impl fmt::Debug for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signatures").finish_non_exhaustive()
    }
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("signs", &self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use posthaste_auth::dkim::{KeyRing, SignerOptions, SigningKey};

    use super::*;

    const RSA: &[u8] = include_bytes!("../../../auth/tests/keys/rsa-2048.pem");
    const ED25519: &[u8] = include_bytes!("../../../auth/tests/keys/ed25519.pem");

    fn options() -> RelayOptions {
        let mut ring = KeyRing::new();
        for (domain, text) in [("rsa.test", RSA), ("ed.test", ED25519)] {
            ring.add(SigningKey::new(domain, "s", text).unwrap()).unwrap();
        }
        let mut options = RelayOptions::new("relay.test".parse().unwrap());
        options.dkim = Some(DkimOptions::new(Signer::new(ring, SignerOptions::default())));
        options
    }

    #[tokio::test]
    async fn rsa_waits_for_its_thread_and_ed25519_needs_none() {
        let (signatures, options) = (Signatures::default(), options());
        let begin = |from: &str| {
            let mut signing = signatures.of_application(&options, None);
            signing.update(format!("From: a@{from}\r\n\r\nx\r\n").as_bytes());
            signing
        };
        let all = u32::try_from(signatures.threads.available_permits()).unwrap();
        let taken = signatures.threads.acquire_many(all).await.unwrap();
        let front = begin("ed.test").finish(MessageId::from_u64(7)).await.unwrap();
        assert!(front.starts_with(b"DKIM-Signature: "));
        let mut rsa = std::pin::pin!(begin("rsa.test").finish(MessageId::from_u64(7)));
        tokio::select! {
            biased;
            signed = &mut rsa => panic!("all threads were taken: {signed:?}"),
            () = std::future::ready(()) => {}
        }
        drop(taken);
        assert!(rsa.await.unwrap().starts_with(b"DKIM-Signature: "));
        assert_eq!(signatures.threads.available_permits(), usize::try_from(all).unwrap());
    }

    #[test]
    fn a_fault_of_the_signer_is_temporary_and_one_of_the_message_is_not() {
        let provider = SignError::Provider { domain: "a.test".into(), selector: "s".into() };
        for (error, reply) in [
            (SignatureError::Interrupted, "451 4.3.0 Local error, try again later"),
            (provider.into(), "451 4.3.0 Local error, try again later"),
            (
                SignError::BareLineEnd { line: None }.into(),
                "554 5.6.0 Not taken, the message cannot be signed: there is a CR or an LF that is no line end, in the body",
            ),
            (
                SignatureError::TooLong { octets: 9_000, limit: 8_192 },
                "554 5.6.0 Not taken, the message cannot be signed: its signatures have 9000 octets, and the relay keeps 8192",
            ),
        ] {
            assert_eq!(error.into_refusal().to_string(), reply);
        }
    }
}
