//! The domain of the author: that of the From field (RFC 5322 sections 3.4 and 4.4).
//!
//! Blanks, comments, quoted names, groups and obsolete routes are read as the grammar says. In one
//! thing this is wider: the name before an address in angle brackets may be an address of the same
//! domain, without quotes, as many programs write it.

use posthaste_wire::Domain;

use super::{SignError, header::Field};

/// The one domain that all mailboxes of the From field have, in lower case and A-labels.
///
/// # Errors
/// [`SignError::FromFields`], [`SignError::From`], [`SignError::Domains`].
pub(crate) fn domain(fields: &[Field<'_>]) -> Result<String, SignError> {
    let mut found = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"From"));
    let (Some(from), None) = (found.next(), found.next()) else {
        let count = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"From")).count();
        return Err(SignError::FromFields { count });
    };
    let mut domains = domains(from.value).ok_or(SignError::From)?.into_iter();
    let first = domains.next().ok_or(SignError::From)?;
    match domains.find(|other| *other != first) {
        Some(other) => Err(SignError::Domains { first, other }),
        None => Ok(first),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'v> {
    /// An atom, with its dots.
    Word(&'v [u8]),
    Quoted,
    /// With its square brackets.
    Literal(&'v [u8]),
    /// One of `< > @ , : ;`.
    Special(u8),
}

/// The domain of each mailbox. `None`: the value is no list of mailboxes.
fn domains(value: &[u8]) -> Option<Vec<String>> {
    let tokens = tokens(value)?;
    let mut rest = tokens.as_slice();
    let mut in_group = false;
    let mut domains = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|token| matches!(token, Token::Special(b',' | b':' | b';' | b'<')));
        let (head, tail) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
        match tail.first() {
            // The name of a group.
            Some(Token::Special(b':')) if !in_group && !head.is_empty() && is_phrase(head) => {
                in_group = true;
                rest = tail.get(1..)?;
                continue;
            }
            Some(Token::Special(b':')) => return None,
            Some(Token::Special(b'<')) => {
                let close = tail.iter().position(|token| *token == Token::Special(b'>'))?;
                let domain = address(without_route(tail.get(1..close)?)?)?;
                // Some programs take an address before the brackets for the author.
                if !is_phrase(head) && address(head).as_ref() != Some(&domain) {
                    return None;
                }
                domains.push(domain);
                rest = tail.get(close + 1..)?;
                match rest.first() {
                    None | Some(Token::Special(b',' | b';')) => {}
                    Some(_) => return None,
                }
            }
            _ => {
                // A list may have empty places (RFC 5322 section 4.4).
                if !head.is_empty() {
                    domains.push(address(head)?);
                }
                rest = tail;
            }
        }
        match rest.split_first() {
            None => break,
            Some((Token::Special(b';'), after)) if in_group => {
                in_group = false;
                rest = match after.split_first() {
                    None => break,
                    Some((Token::Special(b','), after)) => after,
                    Some(_) => return None,
                };
            }
            Some((Token::Special(b','), after)) => rest = after,
            Some(_) => return None,
        }
    }
    (!in_group).then_some(domains)
}

/// What may stand before an address in angle brackets, or be the name of a group.
fn is_phrase(tokens: &[Token<'_>]) -> bool {
    tokens.iter().all(|token| matches!(token, Token::Word(_) | Token::Quoted))
}

/// `[obs-route] addr-spec`: without the route.
fn without_route<'t, 'v>(tokens: &'t [Token<'v>]) -> Option<&'t [Token<'v>]> {
    match tokens.first() {
        Some(Token::Special(b'@' | b',')) => {
            let colon = tokens.iter().position(|token| *token == Token::Special(b':'))?;
            tokens.get(colon + 1..)
        }
        _ => Some(tokens),
    }
}

/// `addr-spec`: its domain, in lower case and A-labels.
fn address(tokens: &[Token<'_>]) -> Option<String> {
    let at = tokens.iter().position(|token| *token == Token::Special(b'@'))?;
    let (local_part, domain) = (tokens.get(..at)?, tokens.get(at + 1..)?);
    if local_part.is_empty() || !is_dotted(local_part) {
        return None;
    }
    let text = match domain {
        [Token::Literal(text)] => text.to_vec(),
        words if is_dotted(words) && words.iter().all(|token| matches!(token, Token::Word(_))) => {
            let words = words.iter().filter_map(|token| if let Token::Word(word) = token { Some(*word) } else { None });
            words.flatten().copied().collect()
        }
        _ => return None,
    };
    let domain = Domain::parse(std::str::from_utf8(&text).ok()?).ok()?;
    Some(domain.to_a_labels().ok()?.as_str().to_owned())
}

/// Words, each with a dot between it and the next.
fn is_dotted(tokens: &[Token<'_>]) -> bool {
    let ends = |token: &Token<'_>| matches!(token, Token::Word(word) if word.ends_with(b"."));
    let begins = |token: &Token<'_>| matches!(token, Token::Word(word) if word.starts_with(b"."));
    let is_word = |token: &Token<'_>| matches!(token, Token::Word(_) | Token::Quoted);
    let joined = tokens.windows(2).all(|two| matches!(two, [left, right] if ends(left) || begins(right)));
    joined && tokens.iter().all(is_word)
}

/// `None`: there is an octet that stands in no token, or a comment, a quoted string or a literal
/// does not end.
fn tokens(value: &[u8]) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => rest = after,
            b'(' => rest = after_comment(after)?,
            b'"' => {
                rest = after.get(delimited(after, b'"')? + 1..)?;
                tokens.push(Token::Quoted);
            }
            b'[' => {
                let end = delimited(after, b']')?;
                tokens.push(Token::Literal(rest.get(..end + 2)?));
                rest = after.get(end + 1..)?;
            }
            b'<' | b'>' | b'@' | b',' | b':' | b';' => {
                tokens.push(Token::Special(*first));
                rest = after;
            }
            _ => {
                let length = rest.iter().position(|octet| !is_atom(*octet)).unwrap_or(rest.len());
                let (word, after) = rest.split_at_checked(length).filter(|(word, _)| !word.is_empty())?;
                tokens.push(Token::Word(word));
                rest = after;
            }
        }
    }
    Some(tokens)
}

/// `atext`, a dot, or an octet of UTF-8 (RFC 6532).
fn is_atom(octet: u8) -> bool {
    octet > b' ' && octet != 0x7f && !b"()<>[]:;@\\,\"".contains(&octet)
}

/// The offset of the octet that ends a quoted string or a literal. A backslash quotes the next one.
fn delimited(text: &[u8], end: u8) -> Option<usize> {
    let mut is_quoted = false;
    text.iter().position(|octet| {
        let found = *octet == end && !is_quoted;
        is_quoted = *octet == b'\\' && !is_quoted;
        found
    })
}

/// What stands after a comment whose parenthesis was read. Comments nest.
fn after_comment(text: &[u8]) -> Option<&[u8]> {
    let mut depth = 1_usize;
    let mut is_quoted = false;
    let end = text.iter().position(|octet| {
        match octet {
            b'(' if !is_quoted => depth = depth.saturating_add(1),
            b')' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        is_quoted = *octet == b'\\' && !is_quoted;
        depth == 0
    })?;
    text.get(end + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::header::fields;

    #[test]
    fn the_domain_is_found_in_every_form_of_from() {
        for (from, expected) in [
            ("me@example.org", "example.org"),
            ("<me@Example.ORG>", "example.org"),
            ("Me <me@example.org>", "example.org"),
            ("\"Me, (not) <you@example.net>\" <me@example.org>", "example.org"),
            ("you@example.org <me@example.org>", "example.org"),
            ("(you@example.net) me@example.org (a (nested) \\) one)", "example.org"),
            ("me (a) @ (b) example (c) . (d) org", "example.org"),
            ("\"you@example.net\"@example.org", "example.org"),
            ("a.\"b c\".d@example.org", "example.org"),
            ("<@example.net,@example.com:me@example.org>", "example.org"),
            ("=?utf-8?q?J=C3=BCrgen?= <me@example.org>", "example.org"),
            ("J\u{fc}rgen B. <me@b\u{fc}cher.example>", "xn--bcher-kva.example"),
            ("me@example.org, \"You\" <you@EXAMPLE.org>,, ", "example.org"),
            ("Us: me@example.org, you@example.org;", "example.org"),
            ("me@[192.0.2.1]", "[192.0.2.1]"),
            ("\r\n\tMe\r\n\t<me@example.org>", "example.org"),
            ("\"quoted \\\" <a@b>\" <me@example.org>", "example.org"),
        ] {
            let header = format!("Subject: x\r\nFrom: {from}\r\n\r\n");
            let found = domain(&fields(header.as_bytes()).unwrap());
            assert_eq!(found.as_deref(), Ok(expected), "{from}");
        }
    }

    #[test]
    fn a_from_field_that_can_be_read_in_two_ways_has_no_domain() {
        for from in [
            "",
            "me",
            "@example.org",
            "me@",
            "<>",
            "a:;",
            "me@example.org you",
            "me@a@example.org",
            "<me@example.org> <you@example.net>",
            "you@example.net <me@example.org>",
            "You you@example.net <me@example.org>",
            "@ <me@example.org>",
            "you@example.net: me@example.org;",
            "<me@example.org",
            "me@example.org>",
            "<me@example.org> you@example.net",
            "a b@example.org",
            "me@example org",
            "(me@example.org",
            "\"me@example.org",
            "me@[192.0.2.1",
            "A: me@example.org",
            "A: B: me@example.org;",
            "me@example.org;",
            "A: me@example.org; you@example.org",
            "\\me@example.org",
            "me@exam\u{1}ple.org",
            "<me@example.org>>",
            "<<me@example.org>>",
            "A: <me@example.org>: x;",
        ] {
            let header = format!("From: {from}\r\n\r\n");
            assert_eq!(domain(&fields(header.as_bytes()).unwrap()), Err(SignError::From), "{from}");
        }
        let latin = b"From: <me@b\xfccher.example>\r\n";
        assert_eq!(domain(&fields(latin).unwrap()), Err(SignError::From));
    }

    #[test]
    fn a_message_has_one_from_field_and_one_domain() {
        let of = |header: &str| domain(&fields(header.as_bytes()).unwrap());
        assert_eq!(of("Subject: x\r\n"), Err(SignError::FromFields { count: 0 }));
        assert_eq!(of("From: a@b\r\nFROM: a@b\r\n"), Err(SignError::FromFields { count: 2 }));
        let domains = SignError::Domains { first: "a.test".into(), other: "b.test".into() };
        assert_eq!(of("From: a@a.test, c@A.test, b@b.test\r\n"), Err(domains));
    }
}
