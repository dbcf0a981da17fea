//! Texts that would be lines of their own: whatever a text of the caller holds, no peer hears a
//! line that the client did not mean. What cannot be sent is an error that names the field, in one
//! line.

mod logins;
mod messages;
mod ways;

/// What is put into a text. Each begins another line or command, or looks so to some peer.
const HOSTILE: &[&str] = &[
    "\r\nNOOP smuggled\r\n",
    "\nNOOP smuggled\n",
    "\rNOOP smuggled\r",
    "\r\n.\r\nNOOP smuggled\r\n",
    "\0NOOP smuggled",
    "\u{1}auth=smuggled",
    "\u{b}NOOP smuggled",
    "\u{c}NOOP smuggled",
    "\u{1b}]0;smuggled\u{7}",
    "\u{7f}smuggled",
    // C1: a line end, and the start of a terminal's commands.
    "\u{85}NOOP smuggled",
    "\u{9b}2Jsmuggled",
    "\u{2028}NOOP smuggled",
    "\u{2029}NOOP smuggled",
    " smuggled",
    "\tsmuggled",
    "smuggled ",
    "> smuggled",
    "<smuggled",
    ">smuggled<",
    "> SIZE=smuggled",
    "\"smuggled",
    "\\\r\nNOOP smuggled",
    "\u{feff}smuggled",
    "\u{202e}smuggled",
    "\u{fffd}smuggled",
];

/// The text with each of them in its place `{}`.
fn texts(template: &str) -> impl Iterator<Item = String> {
    HOSTILE.iter().map(move |hostile| template.replacen("{}", hostile, 1))
}

/// An error is one line, harmless on a terminal, and says what is wrong.
fn check_error(error: &str, words: &str, context: &str) {
    assert!(!error.contains(char::is_control), "{context}: the error has control characters: {error:?}");
    assert!(!error.contains(['\u{2028}', '\u{2029}', '\u{202e}']), "{context}: the error has line ends: {error:?}");
    assert!(error.contains(words), "{context}: {words:?} is not in {error:?}");
}

/// A line as a peer heard it, without its end: it has no other control character.
fn check_line(line: &str, context: &str) {
    assert!(!line.contains(|c: char| c.is_ascii_control()), "{context}: heard {line:?}");
    assert!(!line.starts_with("NOOP") && !line.starts_with("smuggled"), "{context}: heard {line:?}");
}
