//! Addresses of the envelope (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! A type here holds validated text only: no CR, LF or NUL, no unbalanced bracket or quote. `S`
//! holds the text: `Mailbox<&str>` borrows it, `Mailbox` (a `String`) owns it. Quoting is kept as
//! it came, so a parsed address is emitted as the same octets.
//!
//! From text: a type's `parse` reads the text of a line, borrows from it and fails with a
//! [`SyntaxError`](crate::SyntaxError). [`FromStr`](core::str::FromStr) and [`TryFrom`] read an
//! address as a program writes it, own it and fail with an [`AddressError`]:
//!
//! | text | [`Mailbox`] | [`ReversePath`], [`Mail`](crate::Mail) | [`ForwardPath`], [`Rcpt`](crate::Rcpt) |
//! |---|---|---|---|
//! | `user@example.org`, `<user@example.org>` | yes | yes | yes |
//! | `""`, `<>` | no | the null path | no |
//! | `postmaster`, `<postmaster>` | no | no | the server's own postmaster |
//! | `<user@example.org> KEYWORD=value` | no | `Mail` | `Rcpt` |
//!
//! ```
//! use posthaste_wire::{AddressError, Mail, Rcpt};
//!
//! /// Takes text, and values borrowed and owned.
//! fn envelope(
//!     mail: impl TryInto<Mail, Error: Into<AddressError>>,
//!     to: impl IntoIterator<Item: TryInto<Rcpt, Error: Into<AddressError>>>,
//! ) -> Result<(Mail, Vec<Rcpt>), AddressError> {
//!     let to = to.into_iter().map(|rcpt| rcpt.try_into().map_err(Into::into));
//!     Ok((mail.try_into().map_err(Into::into)?, to.collect::<Result<_, _>>()?))
//! }
//!
//! let (mail, to) = envelope("me@example.org", ["you@example.net", "postmaster"])?;
//! let (again, _) = envelope(&mail, &to)?;
//! assert_eq!(again, mail);
//! # Ok::<(), AddressError>(())
//! ```
//!
//! Some addresses that exist are outside the grammar of RFC 5321, and are taken. Local parts may
//! have any length, since section 4.5.3.1 asks for no limit where possible, and dots anywhere.
//! Domains may be names that are not host names.

mod domain;
mod error;
mod hello;
#[cfg(feature = "idna")]
mod idna;
mod mailbox;
mod path;

pub use domain::{AddressLiteral, Domain};
pub use error::AddressError;
pub(crate) use error::Wanted;
pub use hello::EhloName;
pub use mailbox::Mailbox;
pub(crate) use mailbox::local_part;
pub use path::{ForwardPath, ReversePath};

/// The most octets of a domain (RFC 5321 section 4.5.3.1.2), and of any name in the DNS.
pub const MAX_DOMAIN: usize = 255;
/// The most octets of a label in ASCII (RFC 1035 section 2.3.4). A U-label may have more octets
/// than its A-label, so this does not limit it.
pub const MAX_LABEL: usize = 63;
