//! SASL exchanges (RFC 4422, RFC 4954) in both roles, without I/O, clock or random numbers.
//!
//! A [`ServerMechanism`] and a [`ClientMechanism`] each take the other side's message, in base64 as
//! it came, and return the next step. The application decides if credentials are right: a server
//! asks it, and takes the answer with [`ServerMechanism::decide`] or [`ServerMechanism::found`].
//!
//! | mechanism | RFC | server asks for | the server learns | client's [`Strength`] |
//! |---|---|---|---|---|
//! | PLAIN, LOGIN | 4616, a draft | a check of the password | the password | [`Secret`](Strength::Secret) |
//! | XOAUTH2, OAUTHBEARER | Google's, 7628 | a check of the token | the token | [`Secret`](Strength::Secret) |
//! | CRAM-MD5, client only | 2195 | | a keyed hash | [`Hashed`](Strength::Hashed) |
//! | SCRAM-SHA-256 | 5802 7677 | a stored key | a proof | [`Mutual`](Strength::Mutual) |
//! | SCRAM-SHA-256-PLUS | the same, 9266 5929 | a stored key | a proof for this TLS connection | [`Bound`](Strength::Bound) |
//! | EXTERNAL | 4422 appendix A | what a certificate may do | no secret | |
//! | ANONYMOUS | 4505 | if anonymous clients may log in | no secret | |
//!
//! CRAM-MD5 has no server's side, because it would need passwords that are stored in clear.
//!
//! A server, step by step. [`ClientMechanism`] shows a client:
//!
//! ```
//! use posthaste_session::sasl::{Nonce, SaslError, ServerContext, ServerMechanism, ServerStep, UnknownUsers};
//! use posthaste_wire::{Mechanism, Secret};
//!
//! // The nonce is 18 fresh random octets for each exchange. The secret stays the same for years.
//! let unknown = UnknownUsers::new(Secret::new([7; 32]), 4_096);
//! let context = ServerContext::new(Nonce::from_random([1; 18]), unknown);
//!
//! // `AUTH plain AHRpbQB0YW5zdGFhZnRhbnN0YWFm` came.
//! let mut exchange = ServerMechanism::new(Mechanism::Plain, context)?;
//! let mut step = exchange.start(Some("AHRpbQB0YW5zdGFhZnRhbnN0YWFm"));
//! let who = loop {
//!     step = match step? {
//!         // Say 334 with the challenge in base64, and read the client's answer.
//!         ServerStep::Challenge(_challenge) => exchange.respond(b"the next line"),
//!         ServerStep::Password(who) if *who.password.expose() == "tanstaaftanstaaf" => {
//!             exchange.decide(Ok(who.authentication_identity))
//!         }
//!         ServerStep::ScramKey(_user) => exchange.found(Ok(None)),
//!         ServerStep::Done(who) => break who, // 235
//!         // A wrong password, or a mechanism that is not offered.
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
