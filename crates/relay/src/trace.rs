//! The inspection of a message's header as it passes.

use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use posthaste_server::wire::Domain;

/// The most octets of an address in a header that we write, so that its lines stay within 998
/// octets (RFC 5322 section 2.1.1).
pub(crate) const MAX_ADDRESS: usize = 900;

/// A time, as RFC 5322 section 3.3 writes it.
pub(crate) fn date(time: Timestamp) -> String {
    // It fails only for years below 0 and above 9999, which no clock shows.
    rfc2822::to_string(&time.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

/// The number of our own Received fields at which a message counts as a loop: 554 5.4.6. It is high
/// enough for a filter that hands mail back, and for a mailing list with members here. It is low
/// enough to end a loop soon.
pub(crate) const MAX_OWN_HOPS: usize = 4;

/// The number of Delivered-To fields with one address at which a message counts as a loop: 554
/// 5.4.6. Hosts add such a field when they hand a message to a mailbox or a forwarding address. So
/// each turn of a loop adds the same one, even where a host takes Received fields away. One or two
/// are no loop: a user may send a delivered message again, to the same mailbox. Mailing lists name
/// the list, each its own.
pub(crate) const MAX_SAME_DELIVERIES: u8 = 4;

/// The most addresses in Delivered-To fields that are remembered. Others count for nothing.
const MAX_DELIVERED: usize = 64;

/// Inspects a message as it passes: how often it was relayed, by any relay and by this one; which
/// fields it has; and whether it is all ASCII.
///
/// A blank before a field's colon does not hide the field (RFC 5322 section 4.5).
#[derive(Debug)]
pub(crate) struct Inspector<'n> {
    own_name: &'n [u8],
    /// The name of the field on this line, or its first octets.
    name: [u8; NAME],
    at: At,
    line: Line,
    /// `false`: an empty line, or a first line that is no field, has ended the header.
    in_header: bool,
    /// The position in a field whose value counts. `None`: this is another field, or its value says
    /// nothing more.
    reading: Option<Reading>,
    /// The octets of the header, with the empty line after it.
    header_len: usize,
    /// The addresses in Delivered-To fields, by hash, and how often each was there.
    delivered: Vec<(u64, u8)>,
    /// A field `TLS-Required: No` (RFC 8689 section 5).
    pub(crate) tls_not_required: bool,
    /// The content begins with a line that is no field, so that it has no header.
    pub(crate) headless: bool,
    pub(crate) hops: usize,
    pub(crate) own_hops: usize,
    pub(crate) has_date: bool,
    pub(crate) has_message_id: bool,
    pub(crate) eight_bit: bool,
}

/// The position in a line of a header.
#[derive(Debug, Clone, Copy)]
enum At {
    /// Within a name, after this number of its octets.
    Name(usize),
    /// After a name of this number of octets and a blank.
    Blank(usize),
    /// After the point where the name could end.
    Rest,
}

/// The position of a line in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    First,
    Later,
}

/// The field whose value is read.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Received(By),
    TlsRequired(No),
    /// With the hash of the value so far, without blanks and in lower case. `None`: it is empty.
    DeliveredTo(Option<u64>),
}

/// How much of `by`, and of our name after it, was read in a Received field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// In a word that does not match.
    Not,
    /// After a blank.
    Blank,
    /// `b`.
    B,
    /// `by`.
    Whole,
    /// After a blank, and this number of octets of our name.
    Name(usize),
}

/// How much of `No` was read in a TLS-Required field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum No {
    /// Blanks.
    Blank,
    /// `N`.
    N,
    /// `No`, and blanks.
    Whole,
}

/// The length of the longest name that is looked for.
const NAME: usize = b"tls-required".len();

impl<'n> Inspector<'n> {
    pub(crate) fn new(own_name: &'n Domain) -> Self {
        Self {
            own_name: own_name.as_str().as_bytes(),
            name: [0; NAME],
            at: At::Name(0),
            line: Line::First,
            in_header: true,
            reading: None,
            header_len: 0,
            delivered: Vec::new(),
            tls_not_required: false,
            headless: false,
            hops: 0,
            own_hops: 0,
            has_date: false,
            has_message_id: false,
            eight_bit: false,
        }
    }

    /// Returns `true` if the header has ended.
    pub(crate) const fn has_header(&self) -> bool {
        !self.in_header
    }

    /// The octets of the header so far, with the empty line that ends it. 0: the content has no
    /// header.
    pub(crate) const fn header_len(&self) -> usize {
        if self.headless { 0 } else { self.header_len }
    }

    /// Returns `true` if the message has been relayed, or delivered, so often that it is in a loop.
    pub(crate) fn is_loop(&self, max_hops: usize) -> bool {
        self.hops >= max_hops
            || self.own_hops >= MAX_OWN_HOPS
            || self.delivered.iter().any(|(_, times)| *times >= MAX_SAME_DELIVERIES)
    }

    pub(crate) fn inspect(&mut self, content: &[u8]) {
        self.eight_bit |= !content.is_ascii();
        if !self.in_header {
            return;
        }
        let mut octets = content.iter();
        while self.in_header {
            let Some(octet) = octets.next() else { break };
            match (self.at, octet) {
                // The next line of the same field begins with a blank.
                (At::Name(0), octet) if !matches!(octet, b' ' | b'\t' | b'\r') => self.end_field(),
                (_, b'\r' | b'\n') => {}
                _ => {
                    if let Some(reading) = self.reading {
                        self.read(reading, *octet);
                    }
                }
            }
            self.at = match (self.at, octet) {
                (_, b'\r') => self.at,
                (At::Name(0), b'\n') => {
                    self.in_header = false;
                    At::Rest
                }
                (at, b'\n') => {
                    if let At::Name(length) | At::Blank(length) = at {
                        self.no_field(length);
                    }
                    self.line = Line::Later;
                    At::Name(0)
                }
                (At::Name(length @ 1..) | At::Blank(length), b':') => {
                    self.field(length);
                    At::Rest
                }
                (At::Name(length @ 1..) | At::Blank(length), b' ' | b'\t') => At::Blank(length),
                (At::Name(length), b'!'..=b'9' | b';'..=b'~') => {
                    if let Some(place) = self.name.get_mut(length) {
                        *place = *octet;
                    }
                    At::Name(length + 1)
                }
                (At::Name(length) | At::Blank(length), _) => {
                    self.no_field(length);
                    At::Rest
                }
                (At::Rest, _) => At::Rest,
            };
        }
        let read = content.len().saturating_sub(octets.as_slice().len());
        self.header_len = self.header_len.saturating_add(read);
    }

    /// Ends the content.
    pub(crate) fn end(&mut self) {
        if let (true, At::Name(length @ 1..) | At::Blank(length)) = (self.in_header, self.at) {
            self.no_field(length);
        }
        self.end_field();
    }

    fn field(&mut self, length: usize) {
        let name = self.name.get(..length).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"received") {
            self.hops = self.hops.saturating_add(1);
            self.reading = Some(Reading::Received(By::Blank));
        }
        if name.eq_ignore_ascii_case(b"tls-required") {
            self.reading = Some(Reading::TlsRequired(No::Blank));
        }
        if name.eq_ignore_ascii_case(b"delivered-to") {
            self.reading = Some(Reading::DeliveredTo(None));
        }
        self.has_date |= name.eq_ignore_ascii_case(b"date");
        self.has_message_id |= name.eq_ignore_ascii_case(b"message-id");
    }

    /// The line is no field. A first line of this kind ends the header; after another, more fields
    /// may follow.
    fn no_field(&mut self, length: usize) {
        let name = self.name.get(..length).unwrap_or_default();
        // Some programs leave this line, from a mailbox file, before the header.
        let from_file = name == b"From" || name == b">From";
        if self.line == Line::First && !from_file {
            (self.headless, self.in_header) = (true, false);
        }
    }

    /// Reads one octet of a value.
    fn read(&mut self, reading: Reading, octet: u8) {
        let is_blank = matches!(octet, b' ' | b'\t');
        self.reading = match reading {
            Reading::Received(by) => Some(Reading::Received(self.read_by(by, octet, is_blank))),
            Reading::TlsRequired(no) => match (no, octet.to_ascii_lowercase()) {
                (No::Blank, b' ' | b'\t') => Some(No::Blank),
                (No::Blank, b'n') => Some(No::N),
                (No::N, b'o') => Some(No::Whole),
                (No::Whole, b' ' | b'\t') => Some(No::Whole),
                _ => None,
            }
            .map(Reading::TlsRequired),
            Reading::DeliveredTo(_) if is_blank => Some(reading),
            Reading::DeliveredTo(hash) => {
                // FNV-1a: it is taken octet by octet, and a clash only needs to be rare.
                let octet = u64::from(octet.to_ascii_lowercase());
                let hash = (hash.unwrap_or(0xcbf2_9ce4_8422_2325) ^ octet).wrapping_mul(0x0100_0000_01b3);
                Some(Reading::DeliveredTo(Some(hash)))
            }
        };
    }

    /// Reads one octet of a Received field. A field has one `by` (RFC 5321 section 4.4). Another
    /// `by` in a comment counts too.
    fn read_by(&mut self, by: By, octet: u8, is_blank: bool) -> By {
        match by {
            By::Whole if is_blank => By::Name(0),
            By::Name(0) if is_blank => By::Name(0),
            By::Name(read) if self.own_name.get(read).is_some_and(|own| own.eq_ignore_ascii_case(&octet)) => {
                By::Name(read.saturating_add(1))
            }
            // Our name may not be the beginning of another name.
            By::Name(read) if is_blank || matches!(octet, b';' | b'(') => {
                self.count_name(read);
                By::Blank
            }
            _ if is_blank => By::Blank,
            By::Blank if octet.eq_ignore_ascii_case(&b'b') => By::B,
            By::B if octet.eq_ignore_ascii_case(&b'y') => By::Whole,
            _ => By::Not,
        }
    }

    /// Counts a name that has ended, if it is ours.
    fn count_name(&mut self, read: usize) {
        if read == self.own_name.len() {
            self.own_hops = self.own_hops.saturating_add(1);
        }
    }

    /// Ends a field: it counts if our name, or its value, ended here.
    fn end_field(&mut self) {
        match self.reading.take() {
            Some(Reading::Received(By::Name(read))) => self.count_name(read),
            Some(Reading::TlsRequired(No::Whole)) => self.tls_not_required = true,
            Some(Reading::DeliveredTo(Some(hash))) => self.count_delivery(hash),
            Some(_) | None => {}
        }
    }

    fn count_delivery(&mut self, hash: u64) {
        if let Some((_, times)) = self.delivered.iter_mut().find(|(other, _)| *other == hash) {
            *times = times.saturating_add(1);
        } else if self.delivered.len() < MAX_DELIVERED {
            self.delivered.push((hash, 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use posthaste_server::{Context, Envelope, Peer, PeerAddress, ReceivedField, session::ServerSettings};

    use super::*;

    #[test]
    fn hops_in_the_header_are_counted_however_it_is_split() {
        let message = b"Received: a\r\n\tb\r\nX-Received: no\r\nRECEIVED : c\r\nReceive: no\r\n\r\nReceived: body\r\n";
        for split in 0..message.len() {
            let own_name = "relay.test".parse().unwrap();
            let mut inspector = Inspector::new(&own_name);
            inspector.inspect(&message[..split]);
            inspector.inspect(&message[split..]);
            assert_eq!((inspector.hops, inspector.own_hops, inspector.eight_bit), (2, 0, false));
        }
    }

    #[test]
    fn tls_required_is_read_however_it_is_split() {
        let own_name = "relay.test".parse().unwrap();
        for (header, is_not_required) in [
            ("TLS-Required: No\r\n", true),
            ("tls-required:no\r\n", true),
            ("TLS-Required :\r\n\tNO \r\nSubject: x\r\n", true),
            ("Subject: x\r\nTLS-Required: No", true),
            ("TLS-Required: Yes\r\n", false),
            ("TLS-Required: Nono\r\n", false),
            ("TLS-Required: N o\r\n", false),
            ("TLS-Required:\r\n", false),
            ("X-TLS-Required: No\r\n", false),
            ("TLS-Required-X: No\r\n", false),
            ("Subject: TLS-Required: No\r\n", false),
            ("Received: No\r\n", false),
        ] {
            let message = format!("{header}\r\n\r\nTLS-Required: No\r\n").into_bytes();
            for split in 0..message.len() {
                let mut inspector = Inspector::new(&own_name);
                inspector.inspect(&message[..split]);
                inspector.inspect(&message[split..]);
                inspector.end();
                assert_eq!(inspector.tls_not_required, is_not_required, "{header:?} {split}");
            }
        }
    }

    #[test]
    fn received_fields_of_this_relay_are_counted_however_they_are_split() {
        let own_name = "relay.test".parse().unwrap();
        for (header, own_hops) in [
            ("Received: from a ([192.0.2.1])\r\n\tby relay.test with ESMTP id 1;\r\n\tdate\r\n", 1),
            ("Received: by RELAY.test; date\r\n", 1),
            ("Received: BY\r\n relay.test\r\n (x); date\r\n", 1),
            ("Received: from relay.test by other.test; date\r\n", 0),
            ("Received: by relay.test.other; date\r\n", 0),
            ("Received: by not.relay.test; date\r\n", 0),
            ("Received: by relay.tes; date\r\n", 0),
            ("Received: by relay.testimony with SMTP\r\n", 0),
            ("Received: by relay.test", 1),
            ("Received: nearby relay.test\r\n", 0),
            ("X-Received: by relay.test with SMTP\r\n", 0),
            ("Subject: by relay.test with\r\n", 0),
            ("Received: by relay.test\r\nReceived: by relay.test\r\nReceived: by\r\nTo: relay.test\r\n", 2),
        ] {
            let message = format!("{header}\r\n\r\nReceived: by relay.test; body\r\n").into_bytes();
            for split in 0..message.len() {
                let mut inspector = Inspector::new(&own_name);
                inspector.inspect(&message[..split]);
                inspector.inspect(&message[split..]);
                assert_eq!(inspector.own_hops, own_hops, "{header:?} {split}");
            }
        }
        let peer = Peer::new(PeerAddress::Local, PeerAddress::Local);
        let cx = Context::new(peer, ServerSettings::new("other.test".parse().unwrap()).into());
        let envelope = Envelope::new("me@a.test", ["\" by x\"@by.test"]).unwrap();
        let field = ReceivedField::of(&cx, &envelope).by(&own_name).with_id(7).with_recipient().to_string();
        let mut inspector = Inspector::new(&own_name);
        inspector.inspect(field.as_bytes());
        assert_eq!((inspector.hops, inspector.own_hops), (1, 1), "{field}");
    }

    #[test]
    fn a_loop_shows_in_delivered_to_fields_with_one_address() {
        let own_name = "relay.test".parse().unwrap();
        let same = |times| "Delivered-To: me@d.test\r\n".repeat(times);
        let lists: String = (0..50).map(|n| format!("Delivered-To: mailing list l{n}@lists.test\r\n")).collect();
        let many: String = (0..200).map(|n| format!("Delivered-To: {n}@d.test\r\n")).collect();
        for (header, is_loop) in [
            (same(3), false),
            (same(4), true),
            // A list, a forwarding address and a mailbox, each once; and a message sent again.
            (format!("{lists}{}", same(3)), false),
            (many.clone(), false),
            (format!("{many}{}", same(4)), false),
            (format!("{}{many}", same(4)), true),
            (
                "Delivered-To:me@d.test\r\ndelivered-to : ME@D.test\r\nDELIVERED-TO:\r\n\tme@d.\r\n test \r\n"
                    .repeat(2),
                true,
            ),
            ("Delivered-To:\r\n".repeat(10), false),
            ("X-Delivered-To: me@d.test\r\nDelivered: me@d.test\r\n".repeat(4), false),
            ("Subject: x\r\n Delivered-To: me@d.test\r\n".repeat(4), false),
        ] {
            let message = format!("{header}\r\n{}", same(4)).into_bytes();
            for split in [0, 1, 5, 12, 20, 30, message.len() / 2, message.len()] {
                let (front, rest) = message.split_at(split.min(message.len()));
                let mut inspector = Inspector::new(&own_name);
                inspector.inspect(front);
                inspector.inspect(rest);
                inspector.end();
                assert_eq!(inspector.is_loop(100), is_loop, "{header:?} {split}");
                assert_eq!(inspector.header_len(), header.len() + 2);
            }
        }
    }

    #[test]
    fn date_and_message_id_are_found_however_they_are_written() {
        let own_name = "relay.test".parse().unwrap();
        for (content, date, message_id, headless) in [
            ("", false, false, false),
            ("\r\nDate: body\r\n", false, false, false),
            ("Date: x\r\nMessage-ID: <a@b>\r\n\r\n", true, true, false),
            ("date:x", true, false, false),
            ("DATE\t : x\r\n", true, false, false),
            ("Subject: x\r\n Date: folded\r\n\tMessage-ID: folded\r\n\r\n", false, false, false),
            ("Resent-Date: x\r\nResent-Message-ID: <a@b>\r\nX-Message-ID: <a@b>\r\n", false, false, false),
            ("Dates: x\r\nDat: x\r\nMessage-IDs: x\r\nD ate: x\r\n", false, false, false),
            ("Subject: x\nMESSAGE-id: <a@b>\n\nDate: body\n", false, true, false),
            ("Subject: x\r\nno field\r\nDate: x\r\n\r\n", true, false, false),
            ("Subject: x\r\n \r\nDate: x\r\n", true, false, false),
            ("Hello\r\nDate: body\r\n", false, false, true),
            ("Hello", false, false, true),
            ("Hello, world: one\r\n", false, false, true),
            (" Date: x\r\nDate: x\r\n", false, false, true),
            (": x\r\nDate: x\r\n", false, false, true),
            ("\u{e4}: x\r\n", false, false, true),
            ("From a@b Mon Jan  1 00:00:00 2024\r\nDate: x\r\n\r\n", true, false, false),
            (">From a@b Mon Jan  1 00:00:00 2024\r\nDate: x\r\n\r\n", true, false, false),
        ] {
            for split in 0..=content.len() {
                let mut inspector = Inspector::new(&own_name);
                inspector.inspect(&content.as_bytes()[..split]);
                inspector.inspect(&content.as_bytes()[split..]);
                inspector.end();
                let found = (inspector.has_date, inspector.has_message_id, inspector.headless);
                assert_eq!(found, (date, message_id, headless), "{content:?} {split}");
            }
        }
    }
}
