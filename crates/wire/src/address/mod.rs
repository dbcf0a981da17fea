//! Addresses of the envelope (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! Every type here holds text that was validated once and cannot hold anything else: no CR, LF or NUL, no unbalanced
//! bracket or quote. `S` is where the text lives: `Mailbox<&str>` borrows it, `Mailbox` (a `String`) owns it. Quoting
//! is kept as it came, so what was parsed is emitted as the same octets.

mod domain;
mod hello;
#[cfg(feature = "idna")]
mod idna;
mod mailbox;
mod path;

pub use domain::{AddressLiteral, Domain};
pub use hello::EhloName;
pub use mailbox::Mailbox;
pub use path::{ForwardPath, ReversePath};

/// The most octets of a local part (RFC 5321 section 4.5.3.1.1).
pub const MAX_LOCAL_PART: usize = 64;
/// The most octets of a domain (RFC 5321 section 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// The most octets of a label of a domain name (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;
/// The most octets of a path with its angle brackets (RFC 5321 section 4.5.3.1.3).
pub const MAX_PATH: usize = 256;
