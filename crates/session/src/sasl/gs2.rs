//! The header of GS2 (RFC 5801 section 4), which begins messages of SCRAM and OAUTHBEARER.

use alloc::string::String;

/// `gs2-cbind-flag "," [ "a=" saslname ] ","`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gs2Header<'m> {
    pub(super) flag: Flag<'m>,
    pub(super) authorization_identity: Option<String>,
    /// The header as it came, with its last comma.
    pub(super) text: &'m str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag<'m> {
    /// `n`: the client has no channel binding.
    Unsupported,
    /// `y`: the client has one, and believes that the server has none.
    NotOffered,
    /// `p=`: the kind in use.
    Used(&'m str),
}

impl<'m> Gs2Header<'m> {
    /// Reads the header, and returns it with the rest of the message.
    pub(super) fn parse(message: &'m str) -> Option<(Self, &'m str)> {
        let (flag, rest) = message.split_once(',')?;
        let flag = match flag {
            "n" => Flag::Unsupported,
            "y" => Flag::NotOffered,
            flag => Flag::Used(flag.strip_prefix("p=").filter(|name| is_binding_name(name))?),
        };
        let (identity, rest) = rest.split_once(',')?;
        let authorization_identity = match identity {
            "" => None,
            identity => Some(decode_name(identity.strip_prefix("a=")?)?),
        };
        let text = message.strip_suffix(rest)?;
        Some((Self { flag, authorization_identity, text }, rest))
    }
}

/// Writes a header.
pub(super) fn header(flag: Flag<'_>, authorization_identity: Option<&str>) -> String {
    let mut text = String::new();
    match flag {
        Flag::Unsupported => text.push('n'),
        Flag::NotOffered => text.push('y'),
        Flag::Used(kind) => text.extend(["p=", kind]),
    }
    text.push(',');
    if let Some(identity) = authorization_identity {
        text.extend(["a=", &encode_name(identity)]);
    }
    text.push(',');
    text
}

/// Writes a name with `=` as `=3D` and `,` as `=2C`.
pub(super) fn encode_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// Reads such a name. `None`: it is empty, or has another escape or a NUL.
pub(super) fn decode_name(text: &str) -> Option<String> {
    if text.is_empty() || text.contains(['\0', ',']) {
        return None;
    }
    let mut pieces = text.split('=');
    let mut name = String::from(pieces.next()?);
    for piece in pieces {
        let (character, rest) = match piece.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => ('=', piece.strip_prefix("3D")?),
        };
        name.push(character);
        name.push_str(rest);
    }
    Some(name)
}

fn is_binding_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        for (flag, identity, text) in [
            (Flag::Unsupported, None, "n,,"),
            (Flag::NotOffered, Some("a,b=c"), "y,a=a=2Cb=3Dc,"),
            (Flag::Used("tls-exporter"), Some("x"), "p=tls-exporter,a=x,"),
        ] {
            assert_eq!(header(flag, identity), text);
            let (header, rest) = Gs2Header::parse(text).unwrap();
            assert_eq!((header.flag, header.authorization_identity.as_deref(), header.text), (flag, identity, text));
            assert_eq!(rest, "");
        }
        for text in
            ["", "n", "n,", "n,x", "n,b=x,", "n,a=,", "n,a=x", "n,a==2c,", "n,a==,", "N,,", "p=,,", "p=a_b,,", "x,,"]
        {
            assert_eq!(Gs2Header::parse(text), None, "{text}");
        }
    }
}
