//! What becomes of a message's parameters when the next hop does not offer their extension.
//!
//! | parameter | extension | without it |
//! |---|---|---|
//! | `SIZE` | SIZE (RFC 1870) | left out; beyond the offered limit: undeliverable, 5.3.4 |
//! | `BODY=8BITMIME` | 8BITMIME (RFC 6152) | undeliverable, 5.6.3: the content cannot be converted |
//! | `BODY=7BIT` | 8BITMIME | left out |
//! | `BODY=BINARYMIME` | CHUNKING and BINARYMIME (RFC 3030) | undeliverable, 5.6.3 |
//! | `SMTPUTF8` | SMTPUTF8 (RFC 6531) | undeliverable, 5.6.7 |
//! | `RET`, `ENVID`, `NOTIFY`, `ORCPT` | DSN (RFC 3461) | left out; the caller reports "relayed" where it was asked to |
//! | `AUTH` | AUTH (RFC 4954) | left out |
//! | `REQUIRETLS` | REQUIRETLS (RFC 8689) | undeliverable, 5.7.30 |
//! | `BY`, `HOLDFOR`, `HOLDUNTIL`, `MT-PRIORITY`, `SOLICIT`, `RRVS`, unknown | | left out |

use posthaste_wire::{BodyType, Capabilities, EnhancedCode, Mail, Rcpt, capability::Keyword, parameter::Parameters};
use thiserror::Error;

/// A message that must not go to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Undeliverable {
    /// The server takes no message of this size.
    #[error("the server does not take a message of this size")]
    TooLarge,
    /// The content has octets that the server cannot take.
    #[error("the server does not take 8-bit content")]
    EightBit,
    /// An address or header is not ASCII and the server cannot take it.
    #[error("the server does not take internationalised mail")]
    Utf8,
    /// The message must not go where its way is not guarded by TLS.
    #[error("the server does not promise TLS on the way of a message")]
    RequireTls,
}

impl Undeliverable {
    /// The enhanced status code for a report (RFC 3463, RFC 6531).
    pub const fn enhanced(self) -> Option<EnhancedCode> {
        match self {
            Self::TooLarge => EnhancedCode::new(5, 3, 4),
            Self::EightBit => EnhancedCode::new(5, 6, 3),
            Self::Utf8 => EnhancedCode::new(5, 6, 7),
            Self::RequireTls => EnhancedCode::new(5, 7, 30),
        }
    }
}

/// MAIL as this server can take it.
///
/// # Errors
/// [`Undeliverable`] when leaving a parameter out would change what the message means.
pub fn mail<'a>(mail: Mail<&'a str>, server: &Capabilities) -> Result<Mail<&'a str>, Undeliverable> {
    if let (Some(size), Some(limit)) = (mail.size, server.size())
        && size > limit
    {
        return Err(Undeliverable::TooLarge);
    }
    let body = match mail.body {
        body if server.offers(Keyword::EightBitMime) && body != Some(BodyType::BinaryMime) => body,
        None | Some(BodyType::SevenBit) => None,
        Some(_) => return Err(Undeliverable::EightBit),
    };
    if mail.smtputf8 && !server.offers(Keyword::SmtpUtf8) {
        return Err(Undeliverable::Utf8);
    }
    if mail.require_tls && !server.offers(Keyword::RequireTls) {
        return Err(Undeliverable::RequireTls);
    }
    Ok(Mail {
        reverse_path: mail.reverse_path,
        size: mail.size.filter(|_| server.offers(Keyword::Size)),
        body,
        smtputf8: mail.smtputf8,
        require_tls: mail.require_tls,
        ret: mail.ret.filter(|_| server.offers(Keyword::Dsn)),
        envid: mail.envid.filter(|_| server.offers(Keyword::Dsn)),
        auth: mail.auth.filter(|_| !server.auth().is_empty()),
        by: None,
        hold: None,
        mt_priority: None,
        solicit: None,
        parameters: Parameters::NONE,
    })
}

/// RCPT as this server can take it.
pub fn rcpt<'a>(rcpt: Rcpt<&'a str>, server: &Capabilities) -> Rcpt<&'a str> {
    Rcpt {
        forward_path: rcpt.forward_path,
        notify: rcpt.notify.filter(|_| server.offers(Keyword::Dsn)),
        orcpt: rcpt.orcpt.filter(|_| server.offers(Keyword::Dsn)),
        rrvs: None,
        parameters: Parameters::NONE,
    }
}
