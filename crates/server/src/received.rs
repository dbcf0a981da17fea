//! The Received field that a server adds to a message.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    pin::Pin,
    task::{Context as Task, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use posthaste_tokio::{
    session::server::Protocol,
    wire::{Domain, ForwardPath, address::AddressLiteral},
};

use crate::{Body, BodyError, Context, Envelope, Peer};

/// The Received field of a message (RFC 5321 section 4.4), for handlers that write it themselves.
/// The layer [`Received`](crate::layers::Received) does it for the others.
///
/// [`before`](Self::before) puts it in front of the content, and [`Display`](fmt::Display) writes
/// it, folded and with its last CRLF:
///
/// ```
/// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, ReceivedField, Refusal, accepted};
/// # struct Inbox;
/// # impl Inbox { async fn store(&self, _: &str, _: &[u8]) -> std::io::Result<()> { Ok(()) } }
/// impl Handler for Inbox {
///     async fn message(&mut self, cx: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
///         let id = format!("{}-{:?}", cx.connection, std::time::UNIX_EPOCH.elapsed().unwrap_or_default());
///         let body = ReceivedField::of(cx, &envelope).with_id(&id).before(body);
///         self.store(&id, &body.collect(16 << 20).await?).await?;
///         Ok(accepted!("250 2.0.0 Stored as {}", id))
///     }
/// }
/// ```
///
/// ```text
/// Received: from client.example.org ([192.0.2.1])
///     by mx.example.net with ESMTPS id 17-1760000000.25s;
///     Thu, 9 Oct 2025 08:53:20 +0000
/// ```
///
/// - **from** is the name from EHLO, with the client's address as a comment. Another name than a
///   domain in ASCII or the literal of an IP address is left out, and the address is there twice. A
///   local client has the address `127.0.0.1`. A client that a trusted proxy has named has the
///   address that the proxy said.
/// - **by** is the [host name](posthaste_tokio::session::ServerSettings::host_name) of the
///   settings.
/// - **with** is the protocol of RFC 3848 or, with SMTPUTF8, of RFC 6531 section 4.3.
/// - **PRIORITY** is that of the envelope, if it has one (RFC 6710 section 7).
///
/// Lines have at most 78 octets, unless a name or an address is longer. The field has less than
/// 2 KiB, all of it ASCII if the host name is. What a client has said cannot end a line or a
/// comment.
#[derive(Debug, Clone)]
pub struct ReceivedField<'m> {
    cx: &'m Context,
    envelope: &'m Envelope,
    host_name: &'m Domain,
    id: String,
    recipient: bool,
    time: Timestamp,
}

impl<'m> ReceivedField<'m> {
    /// The field of a message that comes in now.
    pub fn of(cx: &'m Context, envelope: &'m Envelope) -> Self {
        let host_name = &cx.settings.host_name;
        Self { cx, envelope, host_name, id: String::new(), recipient: false, time: Timestamp::now() }
    }

    /// The same by a host of this name.
    #[must_use]
    pub const fn by(mut self, host_name: &'m Domain) -> Self {
        self.host_name = host_name;
        self
    }

    /// The same with the message's identifier, a dot-atom of RFC 5322 section 3.2.3. `?` takes the
    /// place of characters that it cannot have, and it is cut to 64 characters.
    #[must_use]
    pub fn with_id(mut self, id: impl fmt::Display) -> Self {
        self.id.clear();
        // Ends with an error where it is cut.
        let _ = write!(Atom(&mut self.id), "{id}");
        self
    }

    /// The same with the recipient, if there is exactly one: several would see each other (RFC 5321
    /// section 7.2). An address with more than 900 octets or with characters outside ASCII is left
    /// out.
    ///
    /// A message that is passed on tells its next readers which address it came to.
    #[must_use]
    pub const fn with_recipient(mut self) -> Self {
        self.recipient = true;
        self
    }

    /// The client as the field names it, `client.example.org ([192.0.2.1])`, also for
    /// Received-From-MTA (RFC 3464 section 2.2.4).
    pub fn client(&self) -> String {
        let (name, address) = client(&self.cx.peer);
        format!("{name} ({address})")
    }

    /// The content with the field in front of it. It counts in the limits of what reads the body,
    /// such as [`Body::collect`], and not in the session's limit for a message.
    ///
    /// Content that begins with a space or a tab would go on in the field. It has no header, so an
    /// empty line ends the field's.
    #[must_use]
    pub fn before<'b>(&self, body: Body<'b>) -> Body<'b> {
        before(self.to_string(), body)
    }

    fn protocol(&self) -> &'static str {
        let Peer { extended, tls, identity, .. } = &self.cx.peer;
        let utf8 = self.envelope.mail.smtputf8;
        let (tls, login) = (tls.is_some(), identity.is_some());
        match (self.cx.settings.protocol, extended, utf8, tls, login) {
            (Protocol::Smtp, false, ..) => "SMTP",
            (Protocol::Smtp, true, false, false, false) => "ESMTP",
            (Protocol::Smtp, true, false, false, true) => "ESMTPA",
            (Protocol::Smtp, true, false, true, false) => "ESMTPS",
            (Protocol::Smtp, true, false, true, true) => "ESMTPSA",
            (Protocol::Smtp, true, true, false, false) => "UTF8SMTP",
            (Protocol::Smtp, true, true, false, true) => "UTF8SMTPA",
            (Protocol::Smtp, true, true, true, false) => "UTF8SMTPS",
            (Protocol::Smtp, true, true, true, true) => "UTF8SMTPSA",
            (Protocol::Lmtp, _, false, false, false) => "LMTP",
            (Protocol::Lmtp, _, false, false, true) => "LMTPA",
            (Protocol::Lmtp, _, false, true, false) => "LMTPS",
            (Protocol::Lmtp, _, false, true, true) => "LMTPSA",
            (Protocol::Lmtp, _, true, false, false) => "UTF8LMTP",
            (Protocol::Lmtp, _, true, false, true) => "UTF8LMTPA",
            (Protocol::Lmtp, _, true, true, false) => "UTF8LMTPS",
            (Protocol::Lmtp, _, true, true, true) => "UTF8LMTPSA",
        }
    }
}

impl fmt::Display for ReceivedField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut field = Folded::begin(f, "Received: from")?;
        let (name, address) = client(&self.cx.peer);
        field.word(&name)?;
        field.word(&format!("({address})"))?;
        field.line(&format!("by {}", self.host_name))?;
        field.word(&format!("with {}", self.protocol()))?;
        if !self.id.is_empty() {
            field.word(&format!("id {}", self.id))?;
        }
        if let ([only], true) = (&self.envelope.recipients[..], self.recipient)
            && let ForwardPath::Mailbox(mailbox) = &only.forward_path
            && mailbox.is_ascii()
            && mailbox.as_str().len() <= MAX_ADDRESS
        {
            field.line(&format!("for <{mailbox}>"))?;
        }
        if let Some(priority) = self.envelope.mail.mt_priority {
            field.line(&format!("PRIORITY {priority}"))?;
        }
        field.end(&date(self.time))
    }
}

/// Content with a field in front of it: see [`ReceivedField::before`].
pub(crate) fn before(field: String, body: Body<'_>) -> Body<'_> {
    body.with_pieces(|body| Preceded { body, field: Some(field.into()), held: None })
}

/// The most octets of a recipient, so that its line stays within 998 (RFC 5322 section 2.1.1).
const MAX_ADDRESS: usize = 900;

/// The most octets of an identifier.
const MAX_ID: usize = 64;

/// The client's name and its address literal.
fn client(peer: &Peer) -> (String, String) {
    let address = match peer.address.ip_or_loopback().to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    // The grammar of a domain leaves no octet that could end a line or a comment, but that of a
    // literal with a tag does.
    let is_safe = |domain: &Domain<&str>| {
        domain.as_str().is_ascii() && !matches!(domain.address_literal(), Some(AddressLiteral::General { .. }))
    };
    let hello = peer.hello.as_ref().and_then(|name| name.domain()).filter(is_safe);
    let name = hello.map_or_else(|| address.clone(), |domain| domain.as_str().to_owned());
    (name, address)
}

/// A time, as RFC 5322 section 3.3 writes it.
fn date(time: Timestamp) -> String {
    // It fails only for years below 0 and above 9999, which no clock shows.
    rfc2822::to_string(&time.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

/// Writes characters of an atom, and an error where [`MAX_ID`] cuts them.
struct Atom<'a>(&'a mut String);

impl fmt::Write for Atom<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= MAX_ID {
                return Err(fmt::Error);
            }
            let is_atext = character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(character);
            self.0.push(if is_atext { character } else { '?' });
        }
        Ok(())
    }
}

/// A field that is folded before the words that its lines have no room for.
struct Folded<'f, 'a> {
    to: &'f mut fmt::Formatter<'a>,
    /// Octets of the line so far.
    octets: usize,
}

impl<'f, 'a> Folded<'f, 'a> {
    /// Octets of a line: 78 (RFC 5322 section 2.1.1) with a semicolon.
    const MAX_LINE: usize = 77;

    fn begin(to: &'f mut fmt::Formatter<'a>, start: &str) -> Result<Self, fmt::Error> {
        to.write_str(start)?;
        Ok(Self { to, octets: start.len() })
    }

    /// Writes a word on this line, or on the next if it does not fit.
    fn word(&mut self, word: &str) -> fmt::Result {
        let octets = self.octets.saturating_add(1).saturating_add(word.len());
        if octets > Self::MAX_LINE {
            return self.line(word);
        }
        self.octets = octets;
        write!(self.to, " {word}")
    }

    /// Writes a word on the next line.
    fn line(&mut self, word: &str) -> fmt::Result {
        self.octets = word.len().saturating_add(1);
        write!(self.to, "\r\n\t{word}")
    }

    fn end(self, date: &str) -> fmt::Result {
        write!(self.to, ";\r\n\t{date}\r\n")
    }
}

/// A body with a field in front of it.
struct Preceded<'b> {
    body: Body<'b>,
    /// `None`: it was given out.
    field: Option<Bytes>,
    /// The first piece, which the field has shown to be there.
    held: Option<Bytes>,
}

impl Stream for Preceded<'_> {
    type Item = Result<Bytes, BodyError>;

    /// The field comes when the content does, so that it does not count as content before.
    fn poll_next(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        if let Some(held) = self.held.take() {
            return Poll::Ready(Some(Ok(held)));
        }
        let polled = ready!(Pin::new(&mut self.body).poll_next(task));
        if matches!(polled, Some(Err(_))) {
            return Poll::Ready(polled);
        }
        let Some(mut field) = self.field.take() else { return Poll::Ready(polled) };
        self.held = polled.transpose().ok().flatten();
        if matches!(self.held.as_deref(), Some([b' ' | b'\t', ..])) {
            field = [&field[..], b"\r\n"].concat().into();
        }
        Poll::Ready(Some(Ok(field)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use posthaste_tokio::{
        rustls::ProtocolVersion,
        session::ServerSettings,
        wire::{EhloName, Mail, Rcpt},
    };

    use super::*;
    use crate::{PeerAddress, PeerTls};

    const DATE: &str = ";\r\n\tThu, 9 Oct 2025 08:53:20 +0000\r\n";

    /// A client at an address, after the greeting in `hello`; `local` for one on a local socket.
    fn cx(address: &str, hello: &str) -> Context {
        let address = match address {
            "local" => PeerAddress::Local,
            address => PeerAddress::Ip(format!("{address}:4000").parse().unwrap()),
        };
        let mut settings = ServerSettings::new("mx.test".parse().unwrap());
        let mut peer = Peer::new(address, PeerAddress::Local);
        if let Some((verb, name)) = hello.split_once(' ') {
            peer.hello = Some(EhloName::lossy(name.as_bytes()).unwrap());
            peer.extended = verb != "HELO";
            if verb == "LHLO" {
                settings.protocol = Protocol::Lmtp;
            }
        }
        Context::new(peer, settings.into())
    }

    fn envelope(mail: &str, recipients: &[&str]) -> Envelope {
        let recipients: Vec<Rcpt> = recipients.iter().map(|rcpt| rcpt.parse().unwrap()).collect();
        Envelope::from_commands(mail.parse::<Mail>().unwrap(), recipients)
    }

    /// The field at a fixed time, with a check that it is one field.
    fn written(mut field: ReceivedField<'_>) -> String {
        field.time = Timestamp::from_second(1_760_000_000).unwrap();
        let text = field.to_string();
        let lines: Vec<_> = text.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        assert!(!lines.concat().contains(['\r', '\n']), "{text}");
        assert!(lines.iter().skip(1).all(|line| line.starts_with('\t') && line.len() > 1), "{text}");
        assert!(lines.iter().all(|line| line.len() <= 998) && text.len() < 2_048, "{text}");
        text
    }

    #[test]
    fn a_client_and_its_greeting_are_told_as_they_are_unless_they_could_break_the_field() {
        let long = format!("{0}.{0}.{0}.test", "a".repeat(62));
        for (address, hello, from) in [
            ("192.0.2.1", "EHLO client.test", "client.test ([192.0.2.1])"),
            ("[2001:db8::1]", "EHLO client.test", "client.test ([IPv6:2001:db8::1])"),
            ("[::ffff:192.0.2.1]", "EHLO client.test", "client.test ([192.0.2.1])"),
            ("192.0.2.1", "EHLO [198.51.100.7]", "[198.51.100.7] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO [IPv6:2001:db8::7]", "[IPv6:2001:db8::7] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO my_pc", "my_pc ([192.0.2.1])"),
            ("local", "EHLO client.test", "client.test ([127.0.0.1])"),
            // No name, and names that are none.
            ("local", "", "[127.0.0.1] ([127.0.0.1])"),
            ("192.0.2.1", "EHLO x)(evil;", "[192.0.2.1] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO [x:)(evil;]", "[192.0.2.1] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO a\\", "[192.0.2.1] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO a by mx.test", "[192.0.2.1] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO \"a", "[192.0.2.1] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO b\u{fc}cher.test", "[192.0.2.1] ([192.0.2.1])"),
            ("192.0.2.1", "EHLO a\u{85}b\u{2028}", "[192.0.2.1] ([192.0.2.1])"),
            // Names that fit, that take a line of their own, and that are too long for any.
            ("192.0.2.1", &format!("EHLO {}", &long[..48]), &format!("{} ([192.0.2.1])", &long[..48])),
            ("192.0.2.1", &format!("EHLO {}", &long[..49]), &format!("{}\r\n\t([192.0.2.1])", &long[..49])),
            ("192.0.2.1", &format!("EHLO {}", &long[..62]), &format!("{}\r\n\t([192.0.2.1])", &long[..62])),
            ("192.0.2.1", &format!("EHLO a.{}", &long[..61]), &format!("\r\n\ta.{}\r\n\t([192.0.2.1])", &long[..61])),
            ("192.0.2.1", &format!("EHLO {long}"), &format!("\r\n\t{long}\r\n\t([192.0.2.1])")),
        ] {
            let (cx, envelope) = (cx(address, hello), envelope("<me@a.test>", &[]));
            let with = if cx.peer.extended { "ESMTP" } else { "SMTP" };
            let space = if from.starts_with('\r') { "" } else { " " };
            let expected = format!("Received: from{space}{from}\r\n\tby mx.test with {with}{DATE}");
            assert_eq!(written(ReceivedField::of(&cx, &envelope)), expected, "{hello}");
            let unfolded = expected.replace("\r\n\t", " ");
            let client = ReceivedField::of(&cx, &envelope).client();
            assert!(unfolded.starts_with(&format!("Received: from {client} by mx.test ")), "{client}");
        }
    }

    /// RFC 3848, RFC 6531 section 4.3.
    #[test]
    fn the_protocol_tells_the_greeting_tls_the_login_and_smtputf8() {
        let tls = Arc::new(PeerTls::new(ProtocolVersion::TLSv1_3));
        let login = Some("jo".to_owned());
        for (hello, mail, [clear, in_clear_by_login, in_tls, in_tls_by_login]) in [
            ("HELO a", "<>", ["SMTP"; 4]),
            ("EHLO a", "<>", ["ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"]),
            ("EHLO a", "<> SMTPUTF8", ["UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"]),
            ("LHLO a", "<>", ["LMTP", "LMTPA", "LMTPS", "LMTPSA"]),
            ("LHLO a", "<> SMTPUTF8", ["UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"]),
        ] {
            for (tls, identity, with) in [
                (None, None, clear),
                (None, login.clone(), in_clear_by_login),
                (Some(Arc::clone(&tls)), None, in_tls),
                (Some(Arc::clone(&tls)), login.clone(), in_tls_by_login),
            ] {
                let (mut cx, envelope) = (cx("192.0.2.1", hello), envelope(mail, &["<you@b.test>"]));
                (cx.peer.tls, cx.peer.identity) = (tls, identity);
                let expected = format!("Received: from a ([192.0.2.1])\r\n\tby mx.test with {with}{DATE}");
                assert_eq!(written(ReceivedField::of(&cx, &envelope)), expected);
            }
        }
    }

    #[test]
    fn a_recipient_is_named_if_it_is_the_only_one_and_fits() {
        let (fits, long) = (format!("<{}@b.test>", "u".repeat(893)), format!("<{}@b.test>", "u".repeat(894)));
        for (mail, recipients, rest) in [
            ("<>", &["<you@b.test>"][..], "\r\n\tfor <you@b.test>"),
            ("<>", &["<\"a b; by mx.test\"@b.test>"], "\r\n\tfor <\"a b; by mx.test\"@b.test>"),
            ("<>", &[&fits], &format!("\r\n\tfor {fits}")),
            ("<>", &[&long], ""),
            ("<>", &["<you@b.test>", "<me@b.test>"], ""),
            ("<>", &["<Postmaster>"], ""),
            ("<> SMTPUTF8", &["<\u{fc}@b.test>"], ""),
            ("<>", &[], ""),
            ("<> MT-PRIORITY=-3", &["<you@b.test>"], "\r\n\tfor <you@b.test>\r\n\tPRIORITY -3"),
        ] {
            let (cx, envelope) = (cx("192.0.2.1", "EHLO a"), envelope(mail, recipients));
            let with = if envelope.mail.smtputf8 { "UTF8SMTP" } else { "ESMTP" };
            let expected = format!("Received: from a ([192.0.2.1])\r\n\tby mx.test with {with} id 7{rest}{DATE}");
            let field = ReceivedField::of(&cx, &envelope).with_id(7);
            assert_eq!(written(field.clone().with_recipient()), expected);
            assert!(!written(field).contains("for"));
        }
    }

    #[test]
    fn an_identifier_is_an_atom_whatever_it_is_made_of() {
        let (cx, envelope) = (cx("192.0.2.1", "EHLO a"), envelope("<>", &[]));
        for (id, word) in [
            ("", ""),
            ("4Z-1.x", " id 4Z-1.x"),
            ("a b;\r\n\t(c)\"<>@\\\0", " id a?b?????c???????"),
            ("\u{fc}\u{85}", " id ??"),
            (&"\u{fc}a".repeat(40), &format!("\r\n\tid {}", "?a".repeat(32))),
        ] {
            let expected = format!("Received: from a ([192.0.2.1])\r\n\tby mx.test with ESMTP{word}{DATE}");
            assert_eq!(written(ReceivedField::of(&cx, &envelope).with_id("x").with_id(id)), expected, "{id:?}");
        }
    }

    #[test]
    fn the_longest_field_stays_within_its_limits() {
        let name = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
        let mut cx = cx("[2001:db8:1111:1111:1111:1111:1111:1111]", &format!("LHLO {name}"));
        (cx.peer.tls, cx.peer.identity) = (Some(PeerTls::new(ProtocolVersion::TLSv1_3).into()), Some("jo".to_owned()));
        let recipient = format!("<{}@b.test>", "u".repeat(893));
        let envelope = envelope("<> SMTPUTF8 MT-PRIORITY=-9", &[&recipient]);
        let host = name.parse().unwrap();
        let field = ReceivedField::of(&cx, &envelope).by(&host).with_id("x".repeat(64)).with_recipient();
        let expected = format!(
            "Received: from\r\n\t{name}\r\n\t([IPv6:2001:db8:1111:1111:1111:1111:1111:1111])\r\n\tby {name}\r\n\t\
             with UTF8LMTPSA\r\n\tid {}\r\n\tfor {recipient}\r\n\tPRIORITY -9{DATE}",
            "x".repeat(64)
        );
        assert_eq!(written(field), expected);
    }
}
