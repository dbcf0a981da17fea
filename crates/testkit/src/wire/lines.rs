//! Command lines, addresses and built commands, parsed and emitted.

use bytes::BytesMut;
use posthaste_wire::{
    Command, Domain, EhloName, ForwardPath, Mail, Mailbox, OriginalRecipient, Parameters, Rcpt, ReversePath, Utf8Xtext,
    Xtext,
    command::{Attributes, MAX_AUTH_LINE, MAX_COMMAND_LINE},
    parameter::{DateTime, DeliverBy, Parameter, Priority, Solicitation},
};

use super::values::{Source, with_command};

/// Parses a command line. A parsed command is emitted as one line, which parses to the same command
/// and is emitted as the same line.
///
/// # Panics
/// When that does not hold.
pub fn command(line: &[u8]) {
    let command = match Command::parse(line) {
        Ok(command) => command,
        Err(error) => {
            assert!(error.offset <= line.len(), "{error}");
            assert!(!error.cut_off || error.offset == line.trim_ascii_end().len(), "{error}");
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
    assert!(emitted.len() <= line.len(), "the canonical form is no longer");
    comes_back(&command, emitted);
}

/// Builds a command from octets. It is emitted as one line, which parses to the same command and is
/// emitted as the same line.
///
/// # Panics
/// When that does not hold.
pub fn round_trip(octets: &[u8]) {
    with_command(&mut Source::new(octets), |command| {
        let mut out = BytesMut::new();
        command.encode(&mut out).expect("a line within its limit");
        comes_back(command, out.strip_suffix(b"\r\n").expect("CRLF at the end"));
    });
}

/// Parses the emitted line of a command, and compares.
fn comes_back(command: &Command<'_>, emitted: &[u8]) {
    assert!(!emitted.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
    let again = Command::parse(emitted).unwrap_or_else(|error| panic!("{error}: {}", emitted.escape_ascii()));
    let mut second = BytesMut::new();
    again.encode(&mut second).expect("what was emitted is emitted again");
    assert_eq!(second.strip_suffix(b"\r\n"), Some(emitted));
    match (command, &again) {
        (Command::Mail(one), Command::Mail(two)) => {
            assert!(same_parameters(one.unknown(), two.unknown()), "{one} {two}");
            // The text of the parameters is as it came in one command, and canonical in the other.
            assert_eq!(Mail { parameters: one.parameters, ..*two }, *one);
            assert_eq!(one.into_owned().borrowed(), *one);
            assert_eq!(one.to_string().parse::<Mail>().as_ref().map(Mail::borrowed), Ok(*two));
        }
        (Command::Rcpt(one), Command::Rcpt(two)) => {
            assert!(same_parameters(one.unknown(), two.unknown()), "{one} {two}");
            assert_eq!(Rcpt { parameters: one.parameters, ..*two }, *one);
            assert_eq!(one.into_owned().borrowed(), *one);
            assert_eq!(one.to_string().parse::<Rcpt>().as_ref().map(Rcpt::borrowed), Ok(*two));
        }
        (Command::Auth(one), Command::Auth(two)) => {
            assert!(one.mechanism.eq_ignore_ascii_case(two.mechanism));
            assert_eq!(one.initial_response, two.initial_response);
        }
        (one, two) => assert_eq!(one, two),
    }
}

fn same_parameters<'a>(one: impl Iterator<Item = Parameter<'a>>, two: impl Iterator<Item = Parameter<'a>>) -> bool {
    let key = |parameter: Parameter<'a>| (parameter.keyword, parameter.value);
    one.map(key).eq(two.map(key))
}

/// Takes text as a path, a mailbox, a domain, a name, xtext and the values of parameters. Accepted
/// text has no line break, and is emitted as it came.
///
/// # Panics
/// When that does not hold.
pub fn address(octets: &[u8]) {
    if let Ok(encoded) = Xtext::encode(octets) {
        let text = Xtext::parse(encoded.as_str()).expect("what was encoded parses");
        assert_eq!(&*text.decode(), octets);
    }
    if let Ok(name) = EhloName::lossy(octets) {
        assert_eq!(EhloName::parse(name.as_str()), Ok(name.borrowed()), "it is as any other name");
        let is_name = str::from_utf8(octets).is_ok_and(|text| EhloName::parse(text).is_ok());
        assert!(!is_name || name.as_str().as_bytes() == octets);
    }
    let Ok(text) = str::from_utf8(octets) else { return };
    let safe = |emitted: &str| assert!(!emitted.contains(['\r', '\n', '\0']), "{emitted:?}");
    let as_it_came = |emitted: &dyn ToString| {
        safe(text);
        assert_eq!(emitted.to_string(), text);
    };
    if let Ok(mailbox) = Mailbox::parse(text) {
        as_it_came(&mailbox);
        assert_eq!(format!("{}@{}", mailbox.local_part(), mailbox.domain()), text);
        assert!(mailbox.domain().as_str().len() <= 255);
        let strict = Mailbox::parse_strict(text);
        assert_eq!(strict == Ok(mailbox), mailbox.is_dotted_well());
        let dots = format!(".{}.", mailbox.local_part());
        assert_eq!(mailbox.is_dotted_well(), dots.contains('"') || !dots.contains(".."), "{text:?}");
        assert_eq!(mailbox.into_owned().borrowed(), mailbox);
        safe(&mailbox.unquoted_local_part());
        let bracketed = format!("<{text}>");
        let (path, rest) = ForwardPath::parse_prefix(&bracketed).expect("a mailbox in brackets is a path");
        assert_eq!((path.mailbox(), rest), (Some(&mailbox), ""));
        let original = OriginalRecipient::new(mailbox).expect("a mailbox can be encoded");
        assert_eq!(original.address(), text);
        assert!(original.is_ascii());
    }
    if let Ok(domain) = Domain::parse(text) {
        as_it_came(&domain);
        // A bracket closes a literal, whatever the text in it.
        assert_eq!(domain.address_literal().is_some(), text.starts_with('['));
        assert!(text.starts_with('[') || !text.contains(['@', '<', '>', '"', ' ']));
        assert!(!text.contains([' ', '\\']) && text.matches(['[', ']']).count() <= 2);
    }
    if let Ok(name) = EhloName::parse(text) {
        as_it_came(&name);
        assert!(!text.contains(' '));
        assert_eq!(name.domain(), Domain::parse(text).ok());
    }
    if let Ok((path, rest)) = ReversePath::parse_prefix(text) {
        safe(&path.to_string());
        assert!(text.ends_with(rest));
        assert_eq!(ReversePath::parse_prefix(&path.to_string()), Ok((path, "")));
    }
    if let Ok((path, rest)) = ForwardPath::parse_prefix(text) {
        safe(&path.to_string());
        assert!(text.ends_with(rest));
        assert_eq!(ForwardPath::parse_prefix(&path.to_string()), Ok((path, "")));
    }
    if let Ok(encoded) = Xtext::parse(text) {
        as_it_came(&encoded);
        let decoded = encoded.decode();
        assert_eq!(Xtext::encode(&decoded).expect("what was decoded can be encoded").decode(), decoded);
    }
    if let Ok(encoded) = Utf8Xtext::parse(text) {
        as_it_came(&encoded);
        let decoded = encoded.decode();
        let ascii = Utf8Xtext::encode(&decoded).expect("what was decoded can be encoded");
        assert!(ascii.as_str().is_ascii());
        assert_eq!(ascii.decode(), decoded);
    }
    if let Ok(original) = OriginalRecipient::parse(text) {
        as_it_came(&original);
        assert!(!original.address().contains(|character: char| character.is_control()));
        assert_eq!(format!("{};{}", original.address_type(), original.encoded_address()), text);
    }
    if let Ok(time) = DateTime::parse(text) {
        as_it_came(&time);
    }
    if let Ok(solicitation) = Solicitation::parse(text) {
        as_it_came(&solicitation);
        assert_eq!(solicitation.keywords().collect::<Vec<_>>().join(","), text);
    }
    if let Ok(attributes) = Attributes::parse(text) {
        as_it_came(&attributes.as_str());
        assert_eq!(attributes.iter().count(), text.split(' ').count());
    }
    if let Ok(priority) = text.parse::<Priority>() {
        as_it_came(&priority);
    }
    if let Ok(by) = text.parse::<DeliverBy>() {
        safe(text);
        assert_eq!(by.to_string().parse(), Ok(by));
    }
    if let Ok(parameters) = Parameters::parse(text) {
        safe(text);
        let canonical: String = parameters.iter().map(|parameter| format!(" {parameter}")).collect();
        let again = Parameters::parse(&canonical).expect("what was parsed parses");
        assert!(same_parameters(parameters.iter(), again.iter()));
    }
}
