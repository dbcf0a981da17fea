//! Builds well-formed values from octets: the grammars of the RFCs in the other direction, written
//! independently of the parsers. A fuzzer or proptest owns the octets, and so makes every choice.

use std::net::{Ipv4Addr, Ipv6Addr};

use posthaste_wire::{
    Auth, BodyType, Command, Domain, EhloName, ForwardPath, Mail, Mailbox, Notify, OriginalRecipient, Parameters, Rcpt,
    Ret, ReversePath, Secret, Utf8Xtext, Xtext,
    command::{Attributes, Node},
    parameter::{DateTime, DeliverBy, DeliverByMode, Hold, Priority, Rrvs, RrvsAction, Solicitation},
};

/// Octets that choose. Once they are used up, each choice is the first.
#[derive(Debug)]
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// The choices of these octets.
    pub const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The next octet. 0: they are used up.
    pub fn octet(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.octet()) % bound
    }

    /// `true` or `false`.
    pub fn coin(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    fn number(&mut self) -> u64 {
        let octets = self.below(9);
        (0..octets).fold(0, |number, _| number << 8 | u64::from(self.octet()))
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// What `build` gives, or `None`, as the next octet chooses.
    pub fn maybe<T>(&mut self, build: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.coin().then(|| build(self))
    }

    /// `least` to `most` pieces, one after another.
    fn some(&mut self, least: usize, most: usize, of: &[&str]) -> String {
        let pieces = least + self.below(most - least + 1);
        (0..pieces).map(|_| self.one(of)).collect()
    }

    /// One to `most` of what `build` gives, with a separator between them.
    fn list(&mut self, most: usize, separator: &str, mut build: impl FnMut(&mut Self) -> String) -> String {
        let parts = 1 + self.below(most);
        (0..parts).map(|_| build(self)).collect::<Vec<_>>().join(separator)
    }
}

/// `Mailbox` of RFC 5321 section 4.1.2 with the characters of RFC 6531.
pub fn mailbox_text(source: &mut Source<'_>) -> String {
    let local = match source.below(8) {
        0..4 => source.list(3, ".", |source| {
            source.some(1, 4, &["a", "Z", "0", "..", "-", "!", "#", "'", "+", "=", "{", "~", "\u{e9}", "\u{5f20}"])
        }),
        4..7 => {
            let text = &["a", " ", "!", "@", "<", ">", ",", "[", "]", ".", r"\\", r#"\""#, r"\ ", r"\a", "\u{e9}"];
            format!("\"{}\"", source.some(0, 6, text))
        }
        _ => "a".repeat(source.one(&[64, 65, 300])),
    };
    format!("{local}@{}", domain_text(source))
}

/// `Domain / address-literal`.
pub fn domain_text(source: &mut Source<'_>) -> String {
    match source.below(8) {
        0..4 => source.list(3, ".", label),
        4 => format!("[{}]", Ipv4Addr::from(source.number() as u32)),
        5 => {
            let address = Ipv6Addr::from(u128::from(source.number()) << 64 | u128::from(source.number()));
            match source.coin() {
                true => format!("[IPv6:{address}]"),
                false => format!("[ipv6:{}]", address.segments().map(|group| format!("{group:04X}")).join(":")),
            }
        }
        6 => format!(
            "[{}:{}]",
            label(source).replace(['\u{fc}', '_'], "u"),
            source.some(1, 4, &["y", "!", ":", "=", "@", "~", ">"])
        ),
        _ => format!("{}.{}", "d".repeat(63), "e".repeat(63)),
    }
}

fn label(source: &mut Source<'_>) -> String {
    let inner = source.some(0, 3, &["b", "-", "7", "_", "\u{fc}"]);
    format!("{}{inner}{}", source.one(&["a", "X", "3"]), source.one(&["z", "0"]))
}

/// A mailbox.
pub fn mailbox(source: &mut Source<'_>) -> Mailbox {
    mailbox_text(source).parse().expect("a mailbox")
}

/// The argument of EHLO: a domain, an address literal, or what is neither.
pub fn hello_name(source: &mut Source<'_>) -> EhloName {
    let odd = |source: &mut Source<'_>| source.some(1, 4, &["a", "_", ":", "[", "\u{fc}", "..", "<"]);
    let text = if source.coin() { odd(source) } else { domain_text(source) };
    text.parse().expect("a name")
}

/// Xtext of 1 to 24 octets: an empty value is no esmtp-value.
pub fn xtext(source: &mut Source<'_>) -> Xtext {
    match source.coin() {
        true => source.some(1, 8, &["a", "!", "~", "\\", "<", "+2B", "+3D", "+41", "+FF"]).parse().expect("xtext"),
        false => {
            let octets: Vec<u8> = (0..=source.below(8)).map(|_| source.octet()).collect();
            Xtext::encode(&octets).unwrap_or_else(|_| "x".parse().expect("xtext"))
        }
    }
}

/// `utf-8-addr-xtext` or `utf-8-addr-unitext` of RFC 6533 section 3.
pub fn utf8_xtext(source: &mut Source<'_>) -> Utf8Xtext {
    let pieces =
        &["a", "@", "!", "\"", "~", r"\x{20}", r"\x{5C}", r"\x{FC}", r"\x{3B4}", r"\x{10FFFF}", "\u{fc}", "\u{10348}"];
    let text = source.some(1, 8, pieces);
    let text = Utf8Xtext::parse(&text).expect("utf-8-addr-unitext").into_owned();
    if source.coin() { text } else { Utf8Xtext::encode(&text.decode()).expect("utf-8-addr-xtext") }
}

/// The value of ORCPT, of any address type.
pub fn original_recipient(source: &mut Source<'_>) -> OriginalRecipient {
    let text = match source.below(5) {
        0 => format!("rfc822;{}", xtext(source)),
        1 => format!("{};{}", source.one(&["x400", "RFC822", "x_y!", "a+b"]), xtext(source)),
        2 => format!("utf-8;{}", utf8_xtext(source)),
        3 => "UTF-8;b\u{fc}cher+x@b.test".to_owned(),
        _ => return OriginalRecipient::new(mailbox(source)).expect("short enough"),
    };
    text.parse().expect("an address and its type")
}

/// `date-time` of RFC 3339 section 5.6.
pub fn date_time(source: &mut Source<'_>) -> DateTime {
    let (year, month, day) = (source.number() % 10_000, 1 + source.below(12), 1 + source.below(28));
    let (hour, minute, second) = (source.below(24), source.below(60), source.below(61));
    let offset = match source.below(3) {
        0 => "Z".to_owned(),
        1 => "z".to_owned(),
        _ => format!("{}{:02}:{:02}", source.one(&['+', '-']), source.below(24), source.below(60)),
    };
    let (separator, fraction) = (source.one(&['T', 't']), source.one(&["", ".0", ".000123456789"]));
    let text = format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}{fraction}{offset}");
    DateTime::parse(&text).expect("a point in time").into_owned()
}

/// The value of SOLICIT.
pub fn solicitation(source: &mut Source<'_>) -> Solicitation {
    let text = source.list(3, ",", |source| {
        format!("{}{}", source.one(&["a", "Z"]), source.some(0, 5, &["b", "7", ".", "-", "_", ":", "/"]))
    });
    Solicitation::parse(&text).expect("class keywords").into_owned()
}

/// Parameters that have no field, with the space before the first.
pub fn unknown_parameters(source: &mut Source<'_>) -> Parameters {
    let mut text = String::new();
    for _ in 0..source.below(3) {
        text += source.one(&[" X", " x-y", " 8", " SIZES", " XSIZE", " A234567890123456789"]);
        if source.coin() {
            text += &format!("={}", source.some(1, 4, &["v", "!", "<", ">", "+", "\"", "\\", "~", "\u{e9}"]));
        }
    }
    Parameters::parse(&text).expect("parameters").into_owned()
}

/// MAIL with any parameters.
pub fn mail(source: &mut Source<'_>) -> Mail {
    let reverse_path = match source.below(4) {
        0 => ReversePath::Null,
        _ => ReversePath::Mailbox(mailbox(source)),
    };
    let needs_utf8 = !reverse_path.is_ascii();
    Mail {
        reverse_path,
        size: source.maybe(Source::number),
        body: source.maybe(|source| source.one(&[BodyType::SevenBit, BodyType::EightBitMime, BodyType::BinaryMime])),
        smtputf8: source.coin() || needs_utf8,
        require_tls: source.coin(),
        ret: source.maybe(|source| source.one(&[Ret::Full, Ret::Headers])),
        envid: source.maybe(xtext),
        auth: source.maybe(|source| if source.coin() { "<>".parse().expect("xtext") } else { xtext(source) }),
        by: source.maybe(|source| {
            let seconds = (source.number() % 1_000_000_000) as i32;
            match source.one(&[DeliverByMode::Return, DeliverByMode::Notify]) {
                mode @ DeliverByMode::Return => DeliverBy { seconds: seconds.max(1), mode, trace: source.coin() },
                mode => DeliverBy { seconds: source.one(&[seconds, -seconds]), mode, trace: source.coin() },
            }
        }),
        hold: source.maybe(|source| match source.coin() {
            true => Hold::For((source.number() % 999_999_999) as u32 + 1),
            false => Hold::Until(date_time(source)),
        }),
        mt_priority: source.maybe(|source| Priority::new(source.below(19) as i8 - 9).expect("within the range")),
        solicit: source.maybe(solicitation),
        parameters: unknown_parameters(source),
    }
}

/// RCPT with any parameters.
pub fn rcpt(source: &mut Source<'_>) -> Rcpt {
    Rcpt {
        forward_path: match source.below(4) {
            0 => ForwardPath::Postmaster,
            _ => ForwardPath::Mailbox(mailbox(source)),
        },
        notify: source.maybe(|source| Notify { success: source.coin(), failure: source.coin(), delay: source.coin() }),
        orcpt: source.maybe(original_recipient),
        rrvs: source.maybe(|source| Rrvs {
            since: date_time(source),
            action: source.one(&[None, Some(RrvsAction::Reject), Some(RrvsAction::Continue)]),
        }),
        parameters: unknown_parameters(source),
    }
}

/// Words with a space between them.
fn free_text(source: &mut Source<'_>) -> String {
    source.list(3, " ", |source| source.some(1, 4, &["a", "Z", "\"", "<", "@", ">", "=", "\u{e9}", "\\"]))
}

/// Builds a command and calls `then` with it.
pub fn with_command<T>(source: &mut Source<'_>, then: impl FnOnce(&Command<'_>) -> T) -> T {
    match source.below(28) {
        // What has many forms comes more often.
        0..6 => then(&Command::Mail(mail(source).borrowed())),
        6..10 => then(&Command::Rcpt(rcpt(source).borrowed())),
        10 => then(&Command::Ehlo(hello_name(source).borrowed())),
        11 => then(&Command::Helo(hello_name(source).borrowed())),
        12 => then(&Command::Lhlo(hello_name(source).borrowed())),
        13 => then(&Command::Data),
        14 => then(&Command::Bdat { size: source.number(), last: source.coin() }),
        15 => then(&Command::Rset),
        16 => then(&Command::Noop(&source.maybe(free_text).unwrap_or_default())),
        17 => then(&Command::Quit),
        18 => then(&Command::Vrfy(&free_text(source))),
        19 => then(&Command::Expn(&free_text(source))),
        20 => then(&Command::Help(&source.maybe(free_text).unwrap_or_default())),
        21 => then(&Command::StartTls),
        22 => {
            let response = source.maybe(|source| source.one(&["=", "AGEAYg==", "dGVzdA"]));
            let mechanism = source.some(1, 20, &["A", "9", "-", "_"]);
            then(&Command::Auth(Auth { mechanism: &mechanism, initial_response: response.map(Secret::new) }))
        }
        23 => {
            let (name, queue) = (domain_text(source), source.some(1, 4, &["q", "#", "@", "!", "~"]));
            let domain = Domain::parse(&name).expect("a domain");
            then(&Command::Etrn(source.one(&[Node::Host(domain), Node::Subdomains(domain), Node::Queue(&queue)])))
        }
        24 => {
            let rest = source.some(1, 6, &["/", "a", "%20", ":", "?", "[::1]"]);
            let url = format!("{}:{rest}", source.one(&["imap", "h+t.t-p"]));
            then(&Command::Burl { url: &url, last: source.coin() })
        }
        verb @ (25 | 26) => {
            let attribute = |source: &mut Source<'_>| {
                let value = source.maybe(xtext).map_or(String::new(), |text| text.to_string());
                format!("{}={value}", source.one(&["NAME", "addr", "HELO2"]))
            };
            let text = source.list(3, " ", attribute);
            let attributes = Attributes::parse(&text).expect("attributes");
            then(&if verb == 25 { Command::XClient(attributes) } else { Command::XForward(attributes) })
        }
        _ => {
            let argument = source.maybe(free_text).unwrap_or_default();
            then(&Command::Other { verb: source.one(&["XYZZY", "x-1", "MAILS", "RCP", "-"]), argument: &argument })
        }
    }
}
