//! What must hold for lines that a server tolerates.

use bytes::BytesMut;
use posthaste_wire::{Command, Domain, Mail, Parameters, Rcpt, command::Tolerance};

use super::lines;

const HOST_NAME: &str = "mx.test";

/// The switch with that name.
///
/// # Panics
/// There is none.
pub fn switch<'t>(tolerance: &'t mut Tolerance, name: &str) -> &'t mut bool {
    tolerance.switch(name).unwrap_or_else(|| panic!("no such switch: {name}"))
}

/// The canonical form of a command line, as a server named `mx.test` takes it. `None`: it refuses
/// the line.
///
/// # Panics
/// The canonical form is no strict line.
pub fn taken(tolerance: &Tolerance, line: &[u8]) -> Option<String> {
    let mended = mend(tolerance, line);
    let line = mended.as_deref().map_or(line, str::as_bytes);
    let command = Command::parse(line).ok().filter(|command| tolerance.refuses(line, command).is_none())?;
    let mut out = BytesMut::new();
    // A line that is too long to be emitted has no canonical form.
    command.encode(&mut out).ok()?;
    let emitted = String::from_utf8(out.to_vec()).expect("UTF-8");
    Some(emitted.strip_suffix("\r\n").expect("a line").to_owned())
}

/// As a session does it: a line that parses is never mended.
fn mend(tolerance: &Tolerance, line: &[u8]) -> Option<String> {
    let host_name = Domain::parse(HOST_NAME).expect("a domain");
    if Command::parse(line).is_ok() { None } else { tolerance.mend(line, &host_name) }
}

/// Takes a command line with all switches, with each of them off, and as in each role. Whatever is
/// taken is a strict line without control characters. Its addresses and parameters are those that
/// the client wrote, and more tolerance gives no other meaning.
///
/// # Panics
/// When that does not hold.
pub fn tolerance(line: &[u8]) {
    let host_name = Domain::parse(HOST_NAME).expect("a domain");
    let all = &Tolerance::SUBMISSION;
    let text = String::from_utf8_lossy(line);
    if let Some(mended) = all.mend(line, &host_name) {
        assert!(mended.len() <= line.len() + HOST_NAME.len() + 3, "{mended:?}");
        assert!(!mended.contains(|character: char| character.is_control()), "{mended:?}");
        lines::command(mended.as_bytes());
        if let Ok(command) = Command::parse(mended.as_bytes()) {
            is_what_was_written(&command, &text);
            // A strict line means itself.
            if let Ok(strict) = Command::parse(line) {
                assert!(is_same(&strict, &command), "{text:?}: {strict:?} {command:?}");
            }
            let again = all.mend(mended.as_bytes(), &host_name).expect("what is meant means itself");
            assert!(
                Command::parse(again.as_bytes()).is_ok_and(|again| is_same(&again, &command)),
                "{mended:?} {again:?}"
            );
        }
    }
    let most = taken(all, line);
    let mut less = vec![Tolerance::STRICT, Tolerance::MX, Tolerance::LMTP];
    for name in Tolerance::SWITCHES {
        let mut others = all.clone();
        *switch(&mut others, name) = false;
        less.push(others);
    }
    for tolerance in less {
        let found = taken(&tolerance, line);
        assert!(found.is_none() || found == most, "{text:?}: {found:?} with {tolerance:?}, {most:?} with all");
    }
}

/// Each part of a command is in the line that the client wrote, or is the server's own name.
fn is_what_was_written(command: &Command<'_>, line: &str) {
    let (mailbox, parameters) = match command {
        Command::Mail(mail) => (mail.reverse_path.mailbox(), mail.parameters),
        Command::Rcpt(rcpt) => (rcpt.forward_path.mailbox(), rcpt.parameters),
        _ => return,
    };
    let Some((_, argument)) = line.split_once(':') else { panic!("{line:?} has no path") };
    let mut behind = argument;
    if let Some(mailbox) = mailbox {
        let whole = argument.split_once(mailbox.as_str());
        let (before, rest) = whole.or_else(|| argument.split_once(mailbox.local_part())).expect("it was written");
        assert!(whole.is_some() || mailbox.domain().as_str() == HOST_NAME, "{line:?}: {mailbox}");
        assert_eq!(before.trim_matches([' ', '\t', '<']), "", "{line:?}: {mailbox}");
        behind = rest;
    }
    // What stands after the path, word by word, is what closes it and the parameters.
    let written: Vec<_> = behind.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let read: Vec<_> = parameters.iter().map(|parameter| parameter.to_string()).collect();
    let (closing, words) = written.split_at_checked(written.len() - read.len()).expect("they were written");
    assert_eq!(words, read, "{line:?}");
    assert!(mailbox.is_none() || [".", ">", ".>", ""].contains(&&*closing.concat()), "{line:?}: {closing:?}");
}

/// Compares commands, whatever the blanks between their parameters.
fn is_same(one: &Command<'_>, two: &Command<'_>) -> bool {
    let words = |parameters: Parameters<&str>| parameters.iter().map(|it| it.to_string()).collect::<Vec<_>>();
    match (one, two) {
        (Command::Mail(one), Command::Mail(two)) => {
            words(one.parameters) == words(two.parameters) && Mail { parameters: one.parameters, ..*two } == *one
        }
        (Command::Rcpt(one), Command::Rcpt(two)) => {
            words(one.parameters) == words(two.parameters) && Rcpt { parameters: one.parameters, ..*two } == *one
        }
        (one, two) => one == two,
    }
}
