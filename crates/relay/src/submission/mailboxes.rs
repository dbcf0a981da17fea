//! The mailboxes in a From or Sender field (RFC 5322 sections 3.4 and 4.4, RFC 6854).
//!
//! Blanks, comments, quoted names, groups and obsolete routes are read as the grammar says. What
//! can be read in two ways is not read at all. So a name before an address in angle brackets that
//! has `@` without quotes, which some programs take for the address, has to be the same address.

use posthaste_server::wire::Mailbox;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'v> {
    /// An atom, with its dots.
    Word(&'v str),
    /// A quoted string, with its quotes.
    Quoted(&'v str),
    /// With its square brackets.
    Literal(&'v str),
    /// One of `< > @ , : ;`.
    Special(u8),
}

/// The mailboxes of a value, in their order. `None`: it is no list of mailboxes.
pub(super) fn mailboxes(value: &[u8]) -> Option<Vec<Mailbox>> {
    let tokens = tokens(std::str::from_utf8(value).ok()?)?;
    let mut rest = tokens.as_slice();
    let mut in_group = false;
    let mut found = Vec::new();
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
                let mailbox = address(without_route(tail.get(1..close)?)?)?;
                if !is_phrase(head) && address(head)? != mailbox {
                    return None;
                }
                found.push(mailbox);
                rest = tail.get(close.saturating_add(1)..)?;
                if !matches!(rest.first(), None | Some(Token::Special(b',' | b';'))) {
                    return None;
                }
            }
            // A list may have empty places (RFC 5322 section 4.4).
            _ if head.is_empty() => rest = tail,
            _ => {
                found.push(address(head)?);
                rest = tail;
            }
        }
        rest = match rest.split_first() {
            None => break,
            Some((Token::Special(b';'), after)) if in_group => {
                in_group = false;
                match after.split_first() {
                    None => break,
                    Some((Token::Special(b','), after)) => after,
                    Some(_) => return None,
                }
            }
            Some((Token::Special(b','), after)) => after,
            Some(_) => return None,
        };
    }
    (!in_group).then_some(found)
}

/// What may stand before an address in angle brackets, or be the name of a group.
fn is_phrase(tokens: &[Token<'_>]) -> bool {
    tokens.iter().all(|token| matches!(token, Token::Word(_) | Token::Quoted(_)))
}

/// `[obs-route] addr-spec`: without the route.
fn without_route<'t, 'v>(tokens: &'t [Token<'v>]) -> Option<&'t [Token<'v>]> {
    match tokens.first() {
        Some(Token::Special(b'@' | b',')) => {
            let colon = tokens.iter().position(|token| *token == Token::Special(b':'))?;
            tokens.get(colon.saturating_add(1)..)
        }
        _ => Some(tokens),
    }
}

/// `addr-spec`, without the blanks and comments that may stand around its dots.
fn address(tokens: &[Token<'_>]) -> Option<Mailbox> {
    let joins = |two: &[Token<'_>]| match two {
        [Token::Word(left), Token::Word(right)] => left.ends_with('.') || right.starts_with('.'),
        [left, right] => matches!((left, right), (Token::Special(b'@'), _) | (_, Token::Special(b'@'))),
        _ => false,
    };
    if !tokens.windows(2).all(joins) {
        return None;
    }
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Word(part) | Token::Quoted(part) | Token::Literal(part) => text.push_str(part),
            Token::Special(octet) => text.push(char::from(*octet)),
        }
    }
    Mailbox::parse(&text).ok().map(Mailbox::into_owned)
}

/// `None`: there is a character that stands in no token, or a comment, a quoted string or a literal
/// does not end.
fn tokens(value: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = value;
    while let Some(first) = rest.bytes().next() {
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => rest = rest.get(1..)?,
            b'(' => rest = after_comment(rest)?,
            b'"' | b'[' => {
                let (end, token): (_, fn(_) -> _) = match first {
                    b'"' => (b'"', Token::Quoted),
                    _ => (b']', Token::Literal),
                };
                let (part, after) = rest.split_at_checked(delimited(rest, end)?)?;
                tokens.push(token(part));
                rest = after;
            }
            b'<' | b'>' | b'@' | b',' | b':' | b';' => {
                tokens.push(Token::Special(first));
                rest = rest.get(1..)?;
            }
            _ => {
                let length = rest.bytes().position(|octet| !is_atom(octet)).unwrap_or(rest.len());
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

/// The octets of a quoted string or a literal, with both its ends. A backslash quotes the next one.
fn delimited(text: &str, end: u8) -> Option<usize> {
    let mut is_quoted = false;
    let found = text.bytes().enumerate().skip(1).find(|(_, octet)| {
        let found = *octet == end && !is_quoted;
        is_quoted = *octet == b'\\' && !is_quoted;
        found
    });
    found.map(|(at, _)| at.saturating_add(1))
}

/// What stands after the comment at the start. Comments nest.
fn after_comment(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    let mut is_quoted = false;
    let end = text.bytes().position(|octet| {
        match octet {
            b'(' if !is_quoted => depth = depth.saturating_add(1),
            b')' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        is_quoted = octet == b'\\' && !is_quoted;
        depth == 0
    })?;
    text.get(end.saturating_add(1)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<Vec<String>> {
        mailboxes(value.as_bytes()).map(|found| found.iter().map(Mailbox::to_string).collect())
    }

    #[test]
    fn mailboxes_are_found_in_every_form_of_a_list() {
        for (value, expected) in [
            ("me@example.org", &["me@example.org"][..]),
            ("<me@Example.ORG>", &["me@Example.ORG"]),
            ("Me <me@example.org>", &["me@example.org"]),
            ("\"Me, (not) <you@example.net>\" <me@example.org>", &["me@example.org"]),
            ("\"you@example.net\" <me@example.org>", &["me@example.org"]),
            ("me@example.org <me@example.org>", &["me@example.org"]),
            ("(you@example.net) me@example.org (a (nested) \\) one)", &["me@example.org"]),
            ("me (a) @ (b) example (c) . (d) org", &["me@example.org"]),
            ("\"you@example.net\"@example.org", &["\"you@example.net\"@example.org"]),
            ("<@example.net,@example.com:me@example.org>", &["me@example.org"]),
            ("=?utf-8?q?you=40example.net?= <me@example.org>", &["me@example.org"]),
            ("J\u{fc}rgen B. <me@b\u{fc}cher.example>", &["me@b\u{fc}cher.example"]),
            ("me@example.org, \"You\" <you@EXAMPLE.org>,, ", &["me@example.org", "you@EXAMPLE.org"]),
            ("Us: me@example.org, you@example.org;", &["me@example.org", "you@example.org"]),
            ("Us: me@example.org;, <you@example.org>", &["me@example.org", "you@example.org"]),
            ("me@[192.0.2.1]", &["me@[192.0.2.1]"]),
            ("\r\n\tMe\r\n\t<me@example.org>\r\n", &["me@example.org"]),
            ("\"quoted \\\" <a@b>\" <me@example.org>", &["me@example.org"]),
            ("Undisclosed:;", &[]),
            ("", &[]),
            (" , ", &[]),
        ] {
            let found = read(value).unwrap();
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn a_value_that_can_be_read_in_two_ways_is_not_read() {
        for value in [
            "me",
            "@example.org",
            "me@",
            "<>",
            "me@example.org you",
            "me@a@example.org",
            "<me@example.org> <you@example.net>",
            "you@example.net <me@example.org>",
            "Me @work <me@example.org>",
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
            // The grammar of SMTP has no such local part, so no table can have it.
            "a.\"b c\".d@example.org",
            "\"a\"\"b\"@example.org",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(mailboxes(b"me@b\xfccher.example"), None);
    }
}
