//! XOAUTH2 and OAUTHBEARER (RFC 7628).

use alloc::{format, string::String, vec::Vec};

use posthaste_wire::Secret;

use super::{
    BearerToken, ChooseError, SaslError,
    gs2::{self, Flag, Gs2Header},
};

/// The two forms of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    XOauth2,
    OauthBearer,
}

impl Form {
    /// The server's reasons, said before it refuses a token.
    pub(super) const fn refusal(self) -> &'static str {
        match self {
            Self::XOauth2 => r#"{"status":"401","schemes":"bearer"}"#,
            // RFC 7628 section 3.2.2.
            Self::OauthBearer => r#"{"status":"invalid_token"}"#,
        }
    }

    /// The client's answer to them, after which the refusal comes (RFC 7628 section 3.2.3).
    pub(super) const fn acknowledgement(self) -> &'static str {
        match self {
            Self::XOauth2 => "",
            Self::OauthBearer => "\x01",
        }
    }

    /// Reads a client's message. `None`: an empty one, with which the client asks what the server
    /// wants (RFC 7628 section 4.3).
    pub(super) fn read(self, message: Vec<u8>) -> Result<Option<BearerToken>, SaslError> {
        let text = String::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let token = match self {
            Self::XOauth2 => read_xoauth2(&text),
            Self::OauthBearer => read_bearer(&text),
        };
        token.ok_or(SaslError::Malformed).map(|token| Some(token).filter(|token| !token.token.expose().is_empty()))
    }

    /// Writes a client's message.
    pub(super) fn write(self, token: &BearerToken) -> Result<Secret<String>, ChooseError> {
        let user = token.authorization_identity.as_deref();
        let is_fit = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        if !is_token(token.token.expose()) || ![user, token.host.as_deref()].into_iter().flatten().all(is_fit) {
            return Err(ChooseError::Credentials);
        }
        let secret = token.token.expose();
        Ok(Secret::new(match self {
            Self::XOauth2 => {
                let user = user.ok_or(ChooseError::Credentials)?;
                format!("user={user}\x01auth=Bearer {secret}\x01\x01")
            }
            Self::OauthBearer => {
                let mut text = gs2::header(Flag::Unsupported, user);
                text.push('\x01');
                if let Some(host) = &token.host {
                    text.extend(["host=", host, "\x01"]);
                }
                if let Some(port) = token.port {
                    text.push_str(&format!("port={port}\x01"));
                }
                text.extend(["auth=Bearer ", secret, "\x01\x01"]);
                text
            }
        }))
    }
}

/// `user=` name `^A` `auth=Bearer ` token `^A^A`
fn read_xoauth2(text: &str) -> Option<BearerToken> {
    let (user, rest) = text.strip_prefix("user=")?.split_once('\x01')?;
    let token = bearer(rest.strip_prefix("auth=")?.strip_suffix("\x01\x01")?)?;
    if user.is_empty() || user.contains(char::is_control) {
        return None;
    }
    Some(BearerToken { authorization_identity: Some(user.into()), token, host: None, port: None })
}

/// `gs2-header kvsep *(key "=" value kvsep) kvsep` (RFC 7628 section 3.1)
fn read_bearer(text: &str) -> Option<BearerToken> {
    let (header, rest) = Gs2Header::parse(text)?;
    // There is no OAUTHBEARER-PLUS.
    if matches!(header.flag, Flag::Used(_)) {
        return None;
    }
    let (mut auth, mut host, mut port) = (None, None, None);
    let mut rest = rest.strip_prefix('\x01')?;
    while rest != "\x01" {
        let (pair, behind) = rest.split_once('\x01')?;
        rest = behind;
        let (key, value) = pair.split_once('=')?;
        if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_alphabetic()) || !is_value(value) {
            return None;
        }
        let before = match key {
            "auth" => auth.replace(bearer(value)?).is_some(),
            "host" => host.replace(value.into()).is_some(),
            "port" => port.replace(read_port(value)?).is_some(),
            // RFC 7628 section 3.1: unknown pairs MUST be ignored.
            _ => false,
        };
        if before {
            return None;
        }
    }
    Some(BearerToken { authorization_identity: header.authorization_identity, token: auth?, host, port })
}

/// `Bearer` and a token, in any case (RFC 7628 section 4).
fn bearer(value: &str) -> Option<Secret<String>> {
    let token = match value.split_once(' ') {
        None if value.is_empty() => value,
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") && is_token(token) => token,
        _ => return None,
    };
    Some(Secret::new(token.into()))
}

/// RFC 7628 section 3.1: a positive number without leading zeros.
fn read_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.starts_with(|first: char| matches!(first, '1'..='9')))
}

/// RFC 7628 section 3.1: `*(VCHAR / SP / HTAB / CR / LF)`.
fn is_value(text: &str) -> bool {
    text.bytes().all(|octet| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
}

/// RFC 6750 section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet);
    !body.is_empty() && body.bytes().all(fits)
}
