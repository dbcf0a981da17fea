//! SASL exchanges (RFC 4422, RFC 4954) as values without I/O, clock or random numbers, in both roles.
//!
//! A [`ServerMechanism`] and a [`ClientMechanism`] each take what the other side said, in base64 as it came, and say what
//! comes next. Whether credentials are right is the application's to say: a server is asked, and answers
//! [`ServerMechanism::decide`] or [`ServerMechanism::found`].
//!
//! | mechanism | RFC | server asks for | the server learns | client's [`Strength`] |
//! |---|---|---|---|---|
//! | PLAIN, LOGIN | 4616, a draft | a check of the password | the password | [`Secret`](Strength::Secret) |
//! | XOAUTH2, OAUTHBEARER | Google's, 7628 | a check of the token | the token | [`Secret`](Strength::Secret) |
//! | CRAM-MD5, client only | 2195 | | a keyed hash | [`Hashed`](Strength::Hashed) |
//! | SCRAM-SHA-256 | 5802 7677 | a stored key | a proof | [`Mutual`](Strength::Mutual) |
//! | SCRAM-SHA-256-PLUS | the same, 9266 5929 | a stored key | a proof for this TLS connection | [`Bound`](Strength::Bound) |
//! | EXTERNAL | 4422 appendix A | what a certificate may do | nothing secret | |
//! | ANONYMOUS | 4505 | whether anybody may | nothing secret | |
//!
//! CRAM-MD5 has no server's side: it would need passwords that are stored in clear.
//!
//! A server, step by step; a client is shown at [`ClientMechanism`]:
//!
//! ```
//! use posthaste_session::sasl::{Nonce, SaslError, ServerContext, ServerMechanism, ServerStep, UnknownUsers};
//! use posthaste_wire::{Mechanism, Secret};
//!
//! // The nonce is fresh random octets for each exchange, the other secret stays the same for years.
//! let unknown = UnknownUsers::new(Secret::new([7; 32]), 4_096);
//! let context = ServerContext::new(Nonce::from_random([1; 18]), unknown);
//!
//! // `AUTH plain AHRpbQB0YW5zdGFhZnRhbnN0YWFm` came.
//! let mut exchange = ServerMechanism::new(Mechanism::Plain, context)?;
//! let mut step = exchange.start(Some("AHRpbQB0YW5zdGFhZnRhbnN0YWFm"));
//! let who = loop {
//!     step = match step? {
//!         // 334, the challenge in base64, and then what the client answers.
//!         ServerStep::Challenge(_challenge) => exchange.respond(b"the next line"),
//!         ServerStep::Password(who) if *who.password.expose() == "tanstaaftanstaaf" => {
//!             exchange.decide(Ok(who.authentication_identity))
//!         }
//!         ServerStep::ScramKey(_user) => exchange.found(Ok(None)),
//!         ServerStep::Done(who) => break who, // 235
//!         // Whatever this application does not know, and a wrong password.
//!         _ => exchange.decide(Err(SaslError::Credentials)),
//!     };
//! };
//! assert_eq!(who, "tim");
//! # Ok::<(), SaslError>(()) // An error has the reply: `error.refusal()`.
//! ```

mod base64;
mod channel_binding;
mod client;
mod context;
mod cram_md5;
mod credentials;
mod error;
mod gs2;
mod identity;
mod oauth;
mod password;
mod prepare;
mod scram;
mod server;

pub use channel_binding::{ChannelBinding, ChannelBindingKind, TLS_EXPORTER_LABEL};
pub use client::{ClientMechanism, ClientStep};
pub use context::{ChooseError, ClientContext, Protection, Strength};
pub use credentials::{BearerToken, ClientCredentials, Credentials, External, ScramUser};
pub use error::{SaslError, ServerFault};
pub use prepare::{PrepareError, prepare};
pub use scram::{KeyError, MAX_ITERATIONS, MIN_ITERATIONS, Nonce, NonceError, SALT_LENGTH, ScramKey, UnknownUsers};
pub use server::{ServerContext, ServerMechanism, ServerStep};
