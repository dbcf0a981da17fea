#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod address;
pub mod capability;
#[cfg(feature = "tokio-util")]
pub mod codec;
pub mod command;
mod conversion;
mod encode;
mod error;
pub mod frame;
mod grammar;
pub mod parameter;
pub mod reply;
mod secret;
mod text;
mod utf8_xtext;
mod xtext;

pub use address::{AddressError, Domain, EhloName, ForwardPath, Mailbox, ReversePath};
pub use capability::{Capabilities, Capability, Mechanism, MechanismSet};
pub use command::{Auth, Command, Mail, Rcpt};
pub use encode::EncodeError;
pub use error::{SyntaxError, SyntaxErrorKind};
pub use parameter::{BodyType, Notify, OriginalRecipient, Parameters, Ret};
pub use reply::{Accepted, EnhancedCode, Refusal, Reply, ReplyCode, ReplyRef, Severity};
pub use secret::Secret;
pub use utf8_xtext::Utf8Xtext;
pub use xtext::Xtext;
