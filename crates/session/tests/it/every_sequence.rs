//! Every short sequence of commands, against a model of RFC 5321.

use posthaste_session::{
    ServerSettings, Transport,
    server::CloseReason,
    table::{Exchange, Phase},
};
use posthaste_testkit::{
    policy::{Policy, refuse},
    server::{ServerHarness, Stop},
};
use posthaste_wire::{Mechanism, MechanismSet};

/// Classes of commands, with the application's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Ehlo,
    EhloRefused,
    Mail,
    MailRefused,
    MailBad,
    Rcpt,
    RcptRefused,
    Data,
    DataRefused,
    MessageRefused,
    MessageFaulty,
    Rset,
    Noop,
    StartTls,
    Auth,
    AuthRefused,
    AuthCancelled,
    Bdat,
    BdatFaulty,
    BdatRefused,
    BdatLast,
    /// Without an address, so that another may follow.
    XClient,
    XClientLogin,
    XClientAddress,
    XForward,
    Unknown,
    Quit,
}

use Class::*;

const CLASSES: [Class; 27] = [
    Ehlo,
    EhloRefused,
    Mail,
    MailRefused,
    MailBad,
    Rcpt,
    RcptRefused,
    Data,
    DataRefused,
    MessageRefused,
    MessageFaulty,
    Rset,
    Noop,
    StartTls,
    Auth,
    AuthRefused,
    AuthCancelled,
    Bdat,
    BdatFaulty,
    BdatRefused,
    BdatLast,
    XClient,
    XClientLogin,
    XClientAddress,
    XForward,
    Unknown,
    Quit,
];

/// The message in chunks so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Chunks {
    #[default]
    None,
    Open,
    /// Only RSET and EHLO lead on.
    Spoiled,
}

/// Everything that a server has to remember.
#[derive(Debug, Clone, Copy, Default)]
struct Model {
    hello: bool,
    mail: bool,
    recipients: usize,
    chunks: Chunks,
    tls: bool,
    authenticated: bool,
    /// XCLIENT has named an address.
    introduced: bool,
    /// XFORWARD has said something.
    forwarded: bool,
    taken: usize,
    closed: bool,
}

impl Model {
    /// The codes of the replies to a command and what belongs to it.
    fn reply(&mut self, class: Class) -> Vec<u16> {
        let gives_up = match class {
            Ehlo | EhloRefused | Rset | Quit | Data | DataRefused | MessageRefused | MessageFaulty => true,
            StartTls => !self.tls,
            _ => false,
        };
        if self.chunks == Chunks::Open && gives_up {
            self.spoil();
        }
        let code = match class {
            Ehlo => {
                self.void();
                self.hello = true;
                250
            }
            EhloRefused => 550,
            // Grammar comes before order, so the reply does not depend on the phase.
            MailBad => 501,
            Noop => 250,
            Unknown => 500,
            Quit => {
                self.forwarded &= !self.mail;
                self.closed = true;
                221
            }
            Rset => {
                self.void();
                250
            }
            XClient | XClientLogin | XClientAddress | XForward if self.mail || self.chunks != Chunks::None => 503,
            XClient | XClientLogin | XClientAddress | XForward if self.introduced => 550,
            XClient | XClientLogin | XClientAddress => {
                self.void();
                self.hello = false;
                self.authenticated = class == XClientLogin;
                self.introduced = class == XClientAddress;
                220
            }
            XForward => {
                self.forwarded = true;
                250
            }
            _ if !self.hello => 503,
            StartTls if self.tls => 503,
            StartTls => {
                *self = Self { tls: true, introduced: self.introduced, taken: self.taken, ..Self::default() };
                220
            }
            _ if self.chunks == Chunks::Spoiled => 503,
            Bdat | BdatFaulty | BdatRefused | BdatLast if self.recipients == 0 => 503,
            Bdat => {
                self.chunks = Chunks::Open;
                250
            }
            BdatFaulty => {
                self.spoil();
                550
            }
            BdatRefused => {
                self.void();
                550
            }
            BdatLast => {
                self.taken += 1;
                self.void();
                250
            }
            // In the middle of a message, which follows MAIL.
            _ if self.chunks == Chunks::Open => 503,
            Mail | MailRefused if self.mail => 503,
            MailRefused => 451,
            Mail => {
                self.mail = true;
                250
            }
            Rcpt | RcptRefused if !self.mail => 503,
            RcptRefused => 450,
            Rcpt => {
                self.recipients += 1;
                250
            }
            Data | DataRefused | MessageRefused | MessageFaulty if self.recipients == 0 => 503,
            DataRefused => 451,
            Data => {
                self.taken += 1;
                self.void();
                return vec![354, 250];
            }
            MessageRefused | MessageFaulty => {
                self.void();
                return vec![354, 550];
            }
            Auth | AuthRefused | AuthCancelled if self.mail || self.authenticated => 503,
            AuthRefused => return vec![334, 535],
            AuthCancelled => return vec![334, 501],
            Auth => {
                self.authenticated = true;
                return vec![334, 235];
            }
        };
        vec![code]
    }

    fn void(&mut self) {
        *self = Self { mail: false, recipients: 0, chunks: Chunks::None, forwarded: false, ..*self };
    }

    fn spoil(&mut self) {
        *self = Self { chunks: Chunks::Spoiled, forwarded: false, ..*self };
    }

    fn phase(&self) -> Phase {
        match self {
            Self { closed: true, .. } => Phase::Closed,
            Self { hello: false, .. } => Phase::Greeted,
            Self { chunks: Chunks::Open, .. } => Phase::Chunks,
            Self { chunks: Chunks::Spoiled, .. } => Phase::Spoiled,
            Self { mail: false, .. } => Phase::Ready,
            Self { recipients: 0, .. } => Phase::Mail,
            _ => Phase::Rcpt,
        }
    }
}

/// Says a command of a class and what belongs to it. Returns the codes of the replies.
fn say(server: &mut ServerHarness, class: Class) -> Vec<u16> {
    // An unused verdict must not wait for a later question.
    server.policy = Policy::default();
    let mut refuse = |exchange, line| server.policy.script(exchange, refuse(line));
    let (line, more): (&[u8], &[u8]) = match class {
        Ehlo => (b"EHLO c\r\n", b""),
        EhloRefused => {
            refuse(Exchange::Hello, "550 no");
            (b"EHLO c\r\n", b"")
        }
        Mail => (b"MAIL FROM:<a@b>\r\n", b""),
        MailRefused => {
            refuse(Exchange::Mail, "451 no");
            (b"MAIL FROM:<a@b>\r\n", b"")
        }
        MailBad => (b"MAIL FROM:<a@b> SIZE=x\r\n", b""),
        Rcpt => (b"RCPT TO:<c@d>\r\n", b""),
        RcptRefused => {
            refuse(Exchange::Rcpt, "450 no");
            (b"RCPT TO:<c@d>\r\n", b"")
        }
        Data => (b"DATA\r\n", b"QUIT\r\n.\r\n"),
        DataRefused => {
            refuse(Exchange::Data, "451 no");
            (b"DATA\r\n", b"")
        }
        MessageRefused => {
            refuse(Exchange::EndOfData, "550 no");
            (b"DATA\r\n", b"RSET\r\n.\r\n")
        }
        MessageFaulty => (b"DATA\r\n", b"a\n.\nb\r\n.\r\n"),
        Rset => (b"RSET\r\n", b""),
        Noop => (b"NOOP\r\n", b""),
        StartTls => (b"STARTTLS\r\n", b""),
        Auth => (b"AUTH PLAIN\r\n", b"AHRlc3RlcgBzM2NyZXQ=\r\n"),
        AuthRefused => (b"AUTH PLAIN\r\n", b"AGEAYg==\r\n"),
        AuthCancelled => (b"AUTH PLAIN\r\n", b"*\r\n"),
        Bdat => (b"BDAT 6\r\nRSET\r\n", b""),
        BdatFaulty => (b"BDAT 6\r\nRSET\n\n", b""),
        BdatRefused => {
            refuse(Exchange::EndOfData, "550 no");
            (b"BDAT 0 LAST\r\n", b"")
        }
        BdatLast => (b"BDAT 7 LAST\r\n.\r\nQUIT", b""),
        XClient => (b"XCLIENT NAME=a.test\r\n", b""),
        XClientLogin => (b"XCLIENT LOGIN=me\r\n", b""),
        XClientAddress => (b"XCLIENT ADDR=192.0.2.1\r\n", b""),
        XForward => (b"XFORWARD NAME=a.test\r\n", b""),
        Unknown => (b"XYZZY\r\n", b""),
        Quit => (b"QUIT\r\n", b""),
    };
    if server.feed(line) == Stop::Tls {
        server.establish_tls();
    }
    let mut codes = heard(server);
    if codes.last().is_some_and(|code| *code / 100 == 3) {
        server.feed(more);
        codes.extend(heard(server));
    }
    codes
}

fn heard(server: &mut ServerHarness) -> Vec<u16> {
    let said = String::from_utf8(std::mem::take(&mut server.said)).expect("ASCII");
    let last = said.lines().filter(|line| line.as_bytes().get(3) != Some(&b'-'));
    last.map(|line| line.get(..3).and_then(|code| code.parse().ok()).expect("a code")).collect()
}

/// Says a command of a class and compares the result with the model.
fn step(server: &mut ServerHarness, model: &mut Model, class: Class, sequence: &[Class]) {
    let taken = model.taken;
    let expected = model.reply(class);
    assert_eq!(say(server, class), expected, "at the end of {sequence:?}");
    assert_eq!(server.session.phase(), model.phase(), "after {sequence:?}");
    assert_eq!(server.messages.len(), model.taken - taken, "at the end of {sequence:?}");
    assert_eq!(server.session.is_authenticated(), model.authenticated, "after {sequence:?}");
    assert_eq!(server.session.forwarded().is_some(), model.forwarded, "after {sequence:?}");
    assert_eq!(server.closed, model.closed.then_some(CloseReason::Quit), "after {sequence:?}");
}

/// Tries every continuation of this many commands.
fn explore(server: &ServerHarness, model: Model, sequence: &mut Vec<Class>, classes: &[Class], length: u32) -> u64 {
    let mut ends = 0;
    for class in classes {
        let (mut server, mut model) = (server.fork(), model);
        sequence.push(*class);
        step(&mut server, &mut model, *class, sequence);
        ends += match length {
            1 => 1,
            _ if model.closed => 1,
            _ => explore(&server, model, sequence, classes, length - 1),
        };
        sequence.pop();
    }
    ends
}

fn check(prefix: &[Class], classes: &[Class], length: u32) {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.offers.auth_in_clear = true;
    settings.offers.chunking = true;
    settings.offers.xclient = true;
    settings.offers.xforward = true;
    // The budgets have tests of their own.
    settings.limits.auth_failures = u32::MAX;
    let mut server = ServerHarness::new(settings, Transport::StartTls);
    server.run();
    server.said.clear();
    let (mut model, mut sequence) = (Model::default(), Vec::new());
    for class in prefix {
        sequence.push(*class);
        server = server.fork();
        step(&mut server, &mut model, *class, &sequence);
    }
    let ends = explore(&server, model, &mut sequence, classes, length);
    println!("{ends} sequences of {length} of {} commands after {prefix:?}", classes.len());
}

/// The length of the sequences of the main commands: 4 in a debug build, 6 in a release build (7.5
/// million), or `SEQUENCE_LENGTH`. Sequences of all commands are one shorter.
fn length() -> u32 {
    let wanted = std::env::var("SEQUENCE_LENGTH").ok().and_then(|length| length.parse().ok());
    wanted.unwrap_or(if cfg!(debug_assertions) { 4 } else { 6 })
}

#[test]
fn sequences_of_the_main_commands_match_the_model() {
    let classes = [
        Ehlo,
        Mail,
        MailRefused,
        Rcpt,
        RcptRefused,
        Data,
        MessageRefused,
        Rset,
        StartTls,
        Auth,
        Bdat,
        BdatFaulty,
        BdatLast,
        Unknown,
    ];
    check(&[], &classes, length());
}

#[test]
fn sequences_from_the_greeting_match_the_model() {
    check(&[], &CLASSES, length() - 1);
}

#[test]
fn sequences_from_a_transaction_match_the_model() {
    check(&[Ehlo, Mail, Rcpt], &CLASSES, length() - 1);
}

#[test]
fn sequences_from_within_chunks_match_the_model() {
    check(&[Ehlo, Mail, Rcpt, Bdat], &CLASSES, length() - 1);
}

#[test]
fn sequences_inside_tls_with_authentication_match_the_model() {
    check(&[Ehlo, StartTls, Ehlo, Auth], &CLASSES, length() - 1);
}

#[test]
fn sequences_with_a_client_that_was_named_match_the_model() {
    check(&[Ehlo, Auth, XForward, XClientLogin, XForward], &CLASSES, length() - 1);
    check(&[XClientAddress], &CLASSES, length() - 1);
}

#[test]
fn sequences_after_a_refused_message_match_the_model() {
    check(&[Ehlo, Mail, Rcpt, MessageRefused], &CLASSES, length() - 1);
}
