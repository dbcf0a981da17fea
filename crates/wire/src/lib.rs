#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;

pub mod address;
pub mod capability;
pub mod command;
mod encode;
mod error;
pub mod frame;
pub mod parameter;
pub mod reply;
mod secret;
mod xtext;

pub use address::{Domain, EhloName, ForwardPath, Mailbox, ReversePath};
pub use capability::{Capabilities, Capability, Mechanism, MechanismSet};
pub use command::{Auth, BodyType, Command, Mail, Notify, OriginalRecipient, Rcpt, Ret};
pub use encode::EncodeError;
pub use error::{SyntaxError, SyntaxErrorKind};
pub use reply::{EnhancedCode, Reply, ReplyCode, ReplyRef, Severity};
pub use secret::Secret;
pub use xtext::Xtext;
