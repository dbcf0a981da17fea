//! Departures from the grammar that a server may tolerate, and the strict line that is meant.

use alloc::{borrow::Cow, format, string::String};

use super::Command;
use crate::{
    address::{Domain, EhloName, local_part},
    error::{SyntaxError, SyntaxErrorKind},
    grammar::trim_end,
};

/// The departures from the grammar of RFC 5321 that a server tolerates, each with a switch. All
/// else that is malformed is refused.
///
/// # What is tolerated
///
/// | switch | takes | who sends it | MX | submission | LMTP |
/// |---|---|---|---|---|---|
/// | [`dots`](Self::dots) | `<a..b@example.org>`, `<a.@example.org>` | mobile phones, management boards | on | on | on |
/// | [`underscores`](Self::underscores) | `<root@my_server.example.org>` | cron | on | on | on |
/// | [`blanks`](Self::blanks) | `MAIL FROM: <a@example.org>  SIZE=1` | booking systems, old libraries | on | on | on |
/// | [`hello`](Self::hello) | `EHLO my pc`, `EHLO` | old mail programs | off | on | off |
/// | [`bare_paths`](Self::bare_paths) | `MAIL FROM:a@example.org SIZE=1` | scanners, RAID controllers | off | on | off |
/// | [`bare_names`](Self::bare_names) | `RCPT TO:<root>` | cron, printers; servers by LMTP | off | on | on |
/// | [`final_dots`](Self::final_dots) | `<a@example.org.>` | programs that look names up | off | on | off |
///
/// Verbs and keywords come in any case (RFC 5321 section 2.4), and blanks may stand at the end of a
/// line (section 4.1.1). Neither has a switch.
///
/// # What is not
///
/// No switch changes where a line or the content ends. A line with CR, LF, NUL or another control
/// character is refused, tabs aside, and so is a MAIL or RCPT that is not UTF-8. A path ends where
/// a blank or `>` ends it, so no parameter is read out of a path, and no path out of a parameter.
///
/// There is one grammar: [`mend`](Self::mend) writes the strict line that is meant, and
/// [`Command::parse`] reads it. What an application gets, and what a relay sends, is as strict as
/// if the client had been. Only `dots` and `underscores` let addresses through that the grammar
/// does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tolerance {
    /// Takes local parts with dots at their ends or next to each other, outside quotes (RFC 5321
    /// section 4.1.2). They are passed on octet by octet.
    ///
    /// The risk: a next hop may refuse them. Off: 501.
    pub dots: bool,
    /// Takes domains with `_`, or with a hyphen at an end of a label. The DNS has such names (RFC
    /// 2181 section 11), RFC 5321 section 4.1.2 does not. Names in EHLO may have them in any case
    /// (section 4.1.4).
    ///
    /// The risk: a next hop may refuse them. Off: 501.
    pub underscores: bool,
    /// Takes blanks in MAIL and RCPT that RFC 5321 section 3.3 forbids. They may be several in
    /// place of one, tabs, on both sides of the colon, and on the inside of the angle brackets. A
    /// line that begins with one is refused.
    ///
    /// The risk: none is known. Off: 501, or 500 for a tab after the verb.
    pub blanks: bool,
    /// Takes any argument of EHLO, HELO and LHLO, or none: blanks, ISO 8859-1, more than 255
    /// octets (RFC 5321 section 4.1.1.1). The name becomes what [`EhloName::lossy`] makes of it.
    ///
    /// The risk: a policy can no longer turn such clients away, which often send spam.
    /// Off: 501, or 500 for what is not UTF-8.
    pub hello: bool,
    /// Takes a path without its angle brackets (RFC 5321 section 4.1.2), up to the first blank
    /// outside quotes. It must have a domain, unless it is `postmaster` in RCPT. Without an address
    /// no null path is read.
    ///
    /// The risk: a program that leaves out the brackets may have left out a check of its addresses.
    /// Off: 501.
    pub bare_paths: bool,
    /// Takes the name of a user without a domain, in angle brackets, and adds the server's own name
    /// (RFC 6409 section 4.2). The application gets the completed address. The name has letters and
    /// digits of ASCII, and `.`, `-`, `_` or `+`. `<postmaster>` in RCPT stays without a domain
    /// (RFC 5321 section 4.5.1).
    ///
    /// The risk: mail for a user goes to this host when another one was meant. Off: 501.
    pub bare_names: bool,
    /// Takes a domain with a dot at its end, and drops the dot: RFC 5321 section 2.3.5 has domains
    /// without it.
    ///
    /// The risk: none is known. Off: 501.
    pub final_dots: bool,
}

impl Tolerance {
    /// Tolerates nothing.
    pub const STRICT: Self = Self {
        dots: false,
        underscores: false,
        blanks: false,
        hello: false,
        bare_paths: false,
        bare_names: false,
        final_dots: false,
    };

    /// For a server that takes mail from other servers: the default.
    pub const MX: Self = Self { dots: true, underscores: true, blanks: true, ..Self::STRICT };

    /// For submission, where scanners, printers and old libraries come: everything.
    pub const SUBMISSION: Self = Self { hello: true, bare_paths: true, bare_names: true, final_dots: true, ..Self::MX };

    /// For LMTP, where recipients may be users of this host.
    pub const LMTP: Self = Self { bare_names: true, ..Self::MX };

    /// The names of the switches, in the order of the table.
    pub const SWITCHES: [&str; 7] =
        ["dots", "underscores", "blanks", "hello", "bare_paths", "bare_names", "final_dots"];

    /// The switch with that name, for a configuration that names them. `None`: there is none.
    pub fn switch(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "dots" => &mut self.dots,
            "underscores" => &mut self.underscores,
            "blanks" => &mut self.blanks,
            "hello" => &mut self.hello,
            "bare_paths" => &mut self.bare_paths,
            "bare_names" => &mut self.bare_names,
            "final_dots" => &mut self.final_dots,
            _ => return None,
        })
    }

    /// Writes the strict line that is meant by one that [`Command::parse`] refuses. The line has no
    /// CRLF. `host_name` completes the names of users.
    ///
    /// `None`: it is none that is tolerated. `Some`: one for `Command::parse`, which may refuse its
    /// parameters. It is longer by the host's name and three octets at most.
    ///
    /// ```
    /// use posthaste_wire::{Domain, command::Tolerance};
    /// let host_name = Domain::parse("mx.example.org")?;
    /// let mended = |line: &str| Tolerance::SUBMISSION.mend(line.as_bytes(), &host_name);
    /// assert_eq!(mended("mail from: a@b. SIZE=1").as_deref(), Some("MAIL FROM:<a@b> SIZE=1"));
    /// assert_eq!(mended("RCPT TO:<root>").as_deref(), Some("RCPT TO:<root@mx.example.org>"));
    /// assert_eq!(mended("EHLO my pc").as_deref(), Some("EHLO my?pc"));
    /// assert_eq!(mended("MAIL FROM:<a@b>SIZE=1"), None);
    /// # Ok::<(), posthaste_wire::SyntaxError>(())
    /// ```
    pub fn mend<S: AsRef<str>>(&self, line: &[u8], host_name: &Domain<S>) -> Option<String> {
        let (verb, rest) = line.split_at_checked(4)?;
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        if is(b"MAIL") {
            self.path("MAIL FROM", rest, host_name.as_str())
        } else if is(b"RCPT") {
            self.path("RCPT TO", rest, host_name.as_str())
        } else {
            let verb = ["EHLO", "HELO", "LHLO"].into_iter().find(|name| is(name.as_bytes()))?;
            self.name(verb, rest)
        }
    }

    /// Says what is wrong with a command that [`Command::parse`] takes and this does not: its dots,
    /// underscores or blanks. `line` is its line, without the CRLF. `None`: it is taken. The offset
    /// in the error is 0.
    #[inline]
    pub fn refuses(&self, line: &[u8], command: &Command<'_>) -> Option<SyntaxError> {
        let takes_all = self.dots & self.underscores & self.blanks;
        if takes_all {
            return None;
        }
        let kind = self.fault(line, command)?;
        let error = SyntaxError::new(kind, 0);
        let of_sender = matches!(command, Command::Mail(_)) && kind != SyntaxErrorKind::Parameter;
        Some(if of_sender { error.of_sender() } else { error })
    }

    #[inline(never)]
    fn fault(&self, line: &[u8], command: &Command<'_>) -> Option<SyntaxErrorKind> {
        let (mailbox, parameters) = match command {
            Command::Mail(mail) => (mail.reverse_path.mailbox(), mail.parameters),
            Command::Rcpt(rcpt) => (rcpt.forward_path.mailbox(), rcpt.parameters),
            _ => return None,
        };
        let refuses = |takes: bool, has: bool| !takes && has;
        // The first colon is that of `FROM:` or `TO:`.
        let behind_colon = line.iter().skip_while(|octet| **octet != b':').nth(1);
        if refuses(self.blanks, behind_colon == Some(&b' ')) {
            Some(SyntaxErrorKind::Path)
        } else if refuses(self.blanks, parameters.as_str().contains("  ")) {
            Some(SyntaxErrorKind::Parameter)
        } else if refuses(self.dots, mailbox.is_some_and(|mailbox| !mailbox.is_dotted_well())) {
            Some(SyntaxErrorKind::Mailbox)
        } else if refuses(self.underscores, mailbox.is_some_and(|mailbox| !mailbox.domain().is_host_name())) {
            Some(SyntaxErrorKind::Domain)
        } else {
            None
        }
    }

    /// EHLO, HELO or LHLO with a name made of its argument.
    fn name(&self, verb: &str, argument: &[u8]) -> Option<String> {
        let is_apart = argument.first().is_none_or(|octet| matches!(octet, b' ' | b'\t'));
        let name = EhloName::lossy(argument).ok().filter(|_| self.hello && is_apart)?;
        Some(format!("{verb} {name}"))
    }

    /// MAIL or RCPT with its path in angle brackets. `start`: the strict line up to the colon.
    fn path(&self, start: &str, rest: &[u8], host_name: &str) -> Option<String> {
        let rest = core::str::from_utf8(trim_end(rest)).ok()?;
        if rest.chars().any(|character| character.is_control() && character != '\t') {
            return None;
        }
        let (verb, keyword) = start.split_once(' ')?;
        let rest = self.trim(rest.strip_prefix(if self.blanks { &[' ', '\t'][..] } else { &[' '] })?);
        let (found, rest) = rest.split_at_checked(keyword.len())?;
        let rest = self.trim(self.trim(rest).strip_prefix(':').filter(|_| found.eq_ignore_ascii_case(keyword))?);
        let (path, rest) = match rest.strip_prefix('<') {
            Some(inner) => {
                let address = Address::parse(self.trim(inner))?;
                let rest = self.trim(address.rest).strip_prefix('>')?;
                (self.meant(&address, verb, Some(host_name))?, rest)
            }
            None if self.bare_paths => {
                let address = Address::parse(rest)?;
                (self.meant(&address, verb, None)?, address.rest)
            }
            None => return None,
        };
        // A blank separates the path from the parameters, whose grammar the parser knows.
        if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
            return None;
        }
        let parameters = if self.blanks { Cow::Owned(rest.replace('\t', " ")) } else { Cow::Borrowed(rest) };
        Some(format!("{start}:<{path}>{parameters}"))
    }

    /// The mailbox that is meant. `host_name`: what completes the name of a user.
    fn meant(&self, address: &Address<'_>, verb: &str, host_name: Option<&str>) -> Option<String> {
        let local = address.local;
        match (address.domain, host_name) {
            (Some(domain), _) => {
                let name = domain.strip_suffix('.').filter(|_| self.final_dots && !domain.starts_with('['));
                Some(format!("{local}@{}", name.unwrap_or(domain)))
            }
            (None, _) if verb == "RCPT" && local.eq_ignore_ascii_case("postmaster") => Some(local.into()),
            // No quotes, and no `%` or `!`: a next hop must not find a route in the name.
            (None, Some(host_name)) if self.bare_names && local.bytes().all(is_of_user_name) => {
                Some(format!("{local}@{host_name}"))
            }
            (None, _) => None,
        }
    }

    fn trim<'t>(&self, text: &'t str) -> &'t str {
        if self.blanks { text.trim_start_matches([' ', '\t']) } else { text }
    }
}

/// As for a server that takes mail from other servers: [`MX`](Self::MX).
impl Default for Tolerance {
    fn default() -> Self {
        Self::MX
    }
}

/// A mailbox as it stands in a line, not yet checked, and the text after it.
struct Address<'t> {
    local: &'t str,
    /// Without the `@`. `None`: there is no `@`.
    domain: Option<&'t str>,
    rest: &'t str,
}

impl<'t> Address<'t> {
    /// Finds the end of the local part by the grammar. A blank or `>` ends the domain.
    fn parse(text: &'t str) -> Option<Self> {
        let (behind, ()) = local_part(text.as_bytes()).ok()?;
        let (local, rest) = text.split_at_checked(text.len() - behind.len())?;
        let Some(rest) = rest.strip_prefix('@') else { return Some(Self { local, domain: None, rest }) };
        let end = rest.find([' ', '\t', '>']).unwrap_or(rest.len());
        let (domain, rest) = rest.split_at_checked(end)?;
        Some(Self { local, domain: Some(domain), rest })
    }
}

const fn is_of_user_name(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b'+')
}
