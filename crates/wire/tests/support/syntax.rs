//! Commands, replies and addresses.

use bytes::BytesMut;
use posthaste_wire::{
    Capabilities, Capability, Command, Domain, EhloName, ForwardPath, Mailbox, ReplyRef, ReversePath, Xtext,
    command::{MAX_AUTH_LINE, MAX_COMMAND_LINE},
    reply::{ReplyFramer, ReplyLimits},
};

use super::choices::Chunking;

/// One command line: what was parsed is emitted as one line, which parses to the same and is emitted as the same.
///
/// # Panics
/// When it is not.
pub fn command(line: &[u8]) {
    let command = match Command::parse(line) {
        Ok(command) => command,
        Err(error) => {
            assert!(error.offset <= line.len() + 1, "{error}");
            assert!(error.reply().code().get() >= 500);
            return;
        }
    };
    // A log line must not show a secret.
    if let Command::Auth(auth) = &command
        && let Some(response) = auth.initial_response
        && response.expose().len() > 20
    {
        assert!(!format!("{command:?}").contains(response.expose()));
    }
    let mut out = BytesMut::new();
    match command.encode(&mut out) {
        Ok(()) => {}
        Err(error) => {
            let limit = if matches!(command, Command::Auth(_)) { MAX_AUTH_LINE } else { MAX_COMMAND_LINE };
            assert!(line.len() + 2 > limit, "{error}: {line:?}");
            assert!(out.is_empty(), "a refused line leaves nothing behind");
            return;
        }
    }
    let emitted = out.strip_suffix(b"\r\n").expect("CRLF at the end");
    assert!(!emitted.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
    assert!(emitted.len() <= line.len(), "the canonical form is no longer");
    let again = Command::parse(emitted).expect("what was emitted parses");
    let mut second = BytesMut::new();
    again.encode(&mut second).expect("and is emitted again");
    assert_eq!(second, out);
    match (command, again) {
        (Command::Mail(one), Command::Mail(two)) => {
            assert_eq!(one.reverse_path, two.reverse_path);
            assert_eq!((one.size, one.body, one.smtputf8, one.ret), (two.size, two.body, two.smtputf8, two.ret));
            assert_eq!((one.envid, one.auth), (two.envid, two.auth));
            assert_eq!(one.into_owned().to_string(), one.to_string());
        }
        (Command::Rcpt(one), Command::Rcpt(two)) => {
            assert_eq!((one.forward_path, one.notify, one.orcpt), (two.forward_path, two.notify, two.orcpt));
            assert_eq!(one.into_owned().to_string(), one.to_string());
        }
        (Command::Auth(one), Command::Auth(two)) => {
            assert!(one.mechanism.eq_ignore_ascii_case(two.mechanism));
            assert_eq!(one.initial_response, two.initial_response);
        }
        (one, two) => assert_eq!(one, two),
    }
}

/// A stream of replies: every chunking gives the same, and a reply is emitted as it came.
///
/// # Panics
/// When it is not.
pub fn reply(stream: &[u8]) {
    let read = |mut chunking: Chunking| {
        let mut framer = ReplyFramer::new(ReplyLimits::default());
        let (mut start, mut end, mut replies) = (0, 0, Vec::new());
        loop {
            match framer.next(&stream[start..end]) {
                Ok(Some(reply)) => {
                    start += reply.as_bytes().len();
                    replies.push(reply.into_owned());
                }
                Ok(None) if end == stream.len() => return (replies, false),
                Ok(None) => end += chunking.next(end, stream.len() - end),
                Err(_) => return (replies, true),
            }
        }
    };
    let (replies, failed) = read(Chunking::Whole);
    for chunking in chunkings(stream.len()) {
        assert_eq!(read(chunking.clone()), (replies.clone(), failed), "{chunking:?}");
    }
    for reply in &replies {
        let reply = reply.as_ref();
        assert_eq!(ReplyRef::parse(reply.as_bytes()).as_ref(), Ok(&reply));
        assert_eq!(reply.into_owned().as_ref(), reply);
        assert!(!reply.to_string().contains(char::is_control), "logs stay on one line");
        assert!(reply.enhanced().is_none_or(|code| code.class() == reply.code().get() / 100));
        capabilities(&reply);
    }
}

/// The capabilities of a reply: all lines up to the bound are kept, and what is emitted parses to the same.
fn capabilities(reply: &ReplyRef<'_>) {
    let borrowed = Capabilities::from_reply(reply);
    assert!(borrowed.lines().eq(reply.lines().skip(1).take(Capabilities::MAX)));
    let owned = borrowed.into_owned();
    assert_eq!(owned.borrowed(), borrowed);
    for capability in owned.iter() {
        assert!(capability.keyword().is_none_or(|keyword| owned.offers(keyword)));
        let emitted = capability.to_string();
        assert!(!emitted.contains(char::is_control));
        let again = Capability::parse(emitted.as_bytes()).expect("what was emitted parses");
        assert_eq!((again, again.to_string()), (capability, emitted.clone()));
    }
}

/// A path, a mailbox, a domain, a name and xtext: what is taken has no line break in it and is emitted as it came.
///
/// # Panics
/// When it is not.
pub fn address(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let safe = |emitted: &str| assert!(!emitted.contains(['\r', '\n', '\0']), "{emitted:?}");
    if let Ok(mailbox) = Mailbox::parse(text) {
        safe(text);
        assert_eq!(mailbox.to_string(), text);
        assert_eq!(format!("{}@{}", mailbox.local_part(), mailbox.domain()), text);
        assert!(mailbox.local_part().len() <= 64 && mailbox.domain().as_str().len() <= 255);
        assert!(!mailbox.domain().as_str().contains(['@', '<', '>', '"', ' ']));
        assert_eq!(mailbox.into_owned().borrowed(), mailbox);
        safe(&mailbox.unquoted_local_part());
        let bracketed = format!("<{text}>");
        if bracketed.len() <= 256 {
            let (path, rest) = ForwardPath::parse_prefix(&bracketed).expect("a mailbox in brackets is a path");
            assert_eq!((path.mailbox(), rest), (Some(&mailbox), ""));
        }
    }
    if let Ok(domain) = Domain::parse(text) {
        safe(text);
        assert_eq!(domain.to_string(), text);
        let _ = domain.address_literal();
    }
    if let Ok(name) = EhloName::parse(text) {
        safe(text);
        assert!(!text.contains(' '));
        assert_eq!(name.domain().map(|domain| domain.to_string()), Domain::parse(text).ok().map(|d| d.to_string()));
    }
    if let Ok((path, rest)) = ReversePath::parse_prefix(text) {
        safe(&path.to_string());
        assert!(text.ends_with(rest));
        let emitted = path.to_string();
        assert_eq!(ReversePath::parse_prefix(&emitted), Ok((path, "")));
    }
    if let Ok((path, rest)) = ForwardPath::parse_prefix(text) {
        safe(&path.to_string());
        assert!(text.ends_with(rest));
        let emitted = path.to_string();
        assert_eq!(ForwardPath::parse_prefix(&emitted), Ok((path, "")));
    }
    if let Ok(encoded) = Xtext::parse(text) {
        safe(text);
        let decoded = encoded.decode();
        let again = Xtext::encode(&decoded).expect("what was decoded can be encoded");
        assert_eq!(again.decode(), decoded);
    }
    if let Ok(encoded) = Xtext::encode(octets) {
        let text = Xtext::parse(encoded.as_str()).expect("what was encoded parses");
        assert_eq!(&*text.decode(), octets);
    }
}

/// Every chunking of a short stream; of a long one the whole, the single octets and some cuts.
fn chunkings(octets: usize) -> impl Iterator<Item = Chunking> {
    let every = octets / 64 + 1;
    Chunking::all(octets).enumerate().filter(move |(index, _)| *index < 2 || index % every == 0).map(|(_, c)| c)
}
