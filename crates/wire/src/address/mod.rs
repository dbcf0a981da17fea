//! Addresses of the envelope (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! Every type here holds text that was validated once and cannot hold anything else: no CR, LF or NUL, no unbalanced
//! bracket or quote. `S` is where the text lives: `Mailbox<&str>` borrows it, `Mailbox` (a `String`) owns it. Quoting
//! is kept as it came, so what was parsed is emitted as the same octets.
//!
//! What exists is taken, also where the grammar is narrower: a local part of any length within the line (RFC 5321 section
//! 4.5.3.1 asks for no limit where that is possible) and with dots anywhere, and names that are no host names.

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

/// The most octets of a domain (RFC 5321 section 4.5.3.1.2): no name in the DNS has more.
pub const MAX_DOMAIN: usize = 255;
/// The most octets of a label of a domain name in ASCII (RFC 1035 section 2.3.4). One that is not may have more, as its
/// A-label has fewer.
pub const MAX_LABEL: usize = 63;
