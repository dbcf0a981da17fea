//! Every call in every phase of a conversation is done, or refused without a change.

use bytes::BytesMut;
use posthaste_session::{ApiMisuse, ClientSettings};
use posthaste_testkit::client::ClientHarness;
use posthaste_wire::{Command, Secret, frame::SegmentList};

/// `.` done; `O` out of order, `N` not yet, `-` not offered, `U` unfinished, `H` no handshake, `E`
/// not to be encoded, `C` closed.
const TABLE: &str = "
NNNNNN NNNNNN OOOON OOO --- OOO H start
.OOOO. OO.... OOOOE OOO --- OOO H greeted
NNNNNN NNNNNN OOOON OOO --- OOO H ehlo sent
..-OO. ...... OOOOE OOO OOO OOO H ready
.OO.O. .O..O. OOOOE OOO NNN OOO H mail sent
.OO.O. .O..O. OOOOE OOO OOO OOO H mail
.OO... .O..O. OOOOE OOO NNN OOO H group
.OO... .O..O. OOOOE OOO ... OOO H rcpt
NNNNNN NNNNNN OOOON OOO NNN OOO H data sent
OOOOOO OOOOOO OOOOO OOO OOO ... H content
OOOOOO OOOOOO OOOOO OOO OOO O.. H no recipient
OOOOOO OOOOOO OOOOO OOO OOO ..U H half a chunk
OOOOOO OOOOOO OOOOO OOO OOO ... H whole chunk
.OOOO. .O..O. OOOOE OOO .NN OOO H chunk sent
.OOOO. .O..O. OOOOE OOO ... OOO H chunks
.OOOO. .O..O. OOOOE OOO OOO OOO H spoiled
..-OO. ...... OOOOE OOO NNN OOO H end sent
NNNNNN NNNNNN OOOON OOO NNN OOO H auth sent
OOOOOO OOOOOO OOOOO ..E OOO OOO H challenged
NNNNNN NNNNNN OOOON OOO NNN OOO H responded
NNNNNN NNNNNN OOOON OOO NNN OOO H starttls sent
OOOOOO OOOOOO OOOOO OOO OOO OOO . handshake
.OOOO. OO.... OOOOE OOO --- OOO H tls
CCCCCC CCCCCC CCCCC OOO CCC OOO H quit sent
CCCCCC CCCCCC CCCCC CCC CCC CCC H closed
";

/// The lines of both sides so far. The server offers PIPELINING, CHUNKING, STARTTLS and AUTH.
const PLACES: &[(&str, &[&str])] = &[
    ("start", &[]),
    ("greeted", &["S 220 s"]),
    ("ehlo sent", &["S 220 s", "C EHLO c"]),
    ("ready", &["ready"]),
    ("mail sent", &["ready", "C MAIL FROM:<a@b>"]),
    ("mail", &["ready", "C MAIL FROM:<a@b>", "S 250 ok"]),
    ("group", &["ready", "C MAIL FROM:<a@b>", "C RCPT TO:<c@d>"]),
    ("rcpt", &["ready", "C MAIL FROM:<a@b>", "C RCPT TO:<c@d>", "S 250 ok", "S 250 ok"]),
    ("data sent", &["ready", "C MAIL FROM:<a@b>", "C RCPT TO:<c@d>", "C DATA", "S 250 ok", "S 250 ok"]),
    ("content", &["ready", "C MAIL FROM:<a@b>", "C RCPT TO:<c@d>", "C DATA", "S 250 ok", "S 250 ok", "S 354 go"]),
    ("no recipient", &["ready", "C MAIL FROM:<a@b>", "C RCPT TO:<c@d>", "C DATA", "S 250 ok", "S 550 no", "S 354 go"]),
    ("half a chunk", &["rcpt", "begin 9", "payload half\r\n"]),
    ("whole chunk", &["rcpt", "begin 6", "payload half\r\n"]),
    ("chunk sent", &["rcpt", "begin 6", "payload half\r\n", "finish"]),
    ("chunks", &["rcpt", "begin 6", "payload half\r\n", "finish", "S 250 ok"]),
    ("spoiled", &["rcpt", "begin 6", "payload half\r\n", "finish", "S 452 no"]),
    ("end sent", &["rcpt", "begin-last 6", "payload half\r\n", "finish"]),
    ("auth sent", &["ready", "C AUTH LOGIN"]),
    ("challenged", &["ready", "C AUTH LOGIN", "S 334 "]),
    ("responded", &["ready", "C AUTH LOGIN", "S 334 ", "respond eA=="]),
    ("starttls sent", &["ready", "C STARTTLS"]),
    ("handshake", &["ready", "C STARTTLS", "S 220 go"]),
    ("tls", &["ready", "C STARTTLS", "S 220 go", "tls"]),
    ("quit sent", &["ready", "C QUIT"]),
    ("closed", &["ready", "S 421 bye"]),
];

/// The columns, in groups.
const CALLS: &[&[&str]] = &[
    &["C EHLO c", "C MAIL FROM:<a@b>", "C MAIL FROM:<a@b> BODY=BINARYMIME", "C RCPT TO:<c@d>", "C DATA", "C RSET"],
    &["C STARTTLS", "C AUTH LOGIN", "C QUIT", "C NOOP", "C XCLIENT NAME=n", "C XYZZY"],
    // Commands of several lines, or of another exchange than they seem to be.
    &["C BDAT 5 LAST", "C BURL imap://h/x LAST", "other DATA", "other MAIL", "noop a\r\nb"],
    &["respond eA==", "respond *", "respond a\r\nb"],
    &["begin 6", "begin-last 6", "begin-last 0"],
    &["payload hi\r\n", "payload ", "finish"],
    &["tls"],
];

fn call(client: &mut ClientHarness, call: &str) -> Result<(), ApiMisuse> {
    let (word, text) = call.split_once(' ').unwrap_or((call, ""));
    let (now, mut out, mut segments) = (client.clock.now(), BytesMut::new(), SegmentList::new());
    let session = &mut client.session;
    let octets = || text.parse().expect("a number");
    let done = match word {
        "C" => session.send(now, &Command::parse(text.as_bytes()).expect("a command"), &mut out).map(drop),
        "other" => session.send(now, &Command::Other { verb: text, argument: "" }, &mut out).map(drop),
        "noop" => session.send(now, &Command::Noop(text), &mut out).map(drop),
        "respond" => session.respond(now, Some(Secret::new(text)), &mut out).map(drop),
        "begin" => session.begin_chunk(now, octets(), false, &mut out),
        "begin-last" => session.begin_chunk(now, octets(), true, &mut out),
        "payload" => session.payload(now, text.as_bytes(), &mut segments).map(drop),
        "finish" => session.finish_payload(now, &mut segments).map(drop),
        "tls" => session.tls_established(),
        _ => panic!("no such call: {call}"),
    };
    assert!(done.is_ok() || out.is_empty() && segments.octets() == 0, "{call}: something is written");
    done
}

fn at(place: &str) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    let (_, steps) = PLACES.iter().find(|(name, _)| *name == place).expect("a place");
    play(&mut client, steps);
    client
}

fn play(client: &mut ClientHarness, steps: &[&str]) {
    for step in steps {
        match (*step, step.strip_prefix("S ")) {
            (_, Some(line)) => client.feed(format!("{line}\r\n").as_bytes()),
            ("ready", _) => {
                play(client, &["S 220 s", "C EHLO c"]);
                client.feed(b"250-s\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 AUTH LOGIN\r\n");
            }
            ("rcpt", _) => {
                play(client, &["ready", "C MAIL FROM:<a@b>", "C RCPT TO:<c@d>", "S 250 ok", "S 250 ok"]);
            }
            (step, _) => call(client, step).unwrap_or_else(|error| panic!("{step}: {error}")),
        }
    }
}

const fn letter(done: Result<(), ApiMisuse>) -> char {
    match done {
        Ok(()) => '.',
        Err(ApiMisuse::OutOfOrder) => 'O',
        Err(ApiMisuse::NotYet) => 'N',
        Err(ApiMisuse::NotOffered) => '-',
        Err(ApiMisuse::Unfinished) => 'U',
        Err(ApiMisuse::Handshake) => 'H',
        Err(ApiMisuse::Encode(_)) => 'E',
        Err(ApiMisuse::Closed) => 'C',
        Err(_) => '?',
    }
}

#[test]
fn every_call_in_every_phase_is_allowed_or_refused_as_the_table_says() {
    let mut table = String::from("\n");
    for (place, _) in PLACES {
        for group in CALLS {
            for what in *group {
                let mut client = at(place);
                let before = format!("{:?}", client.session);
                let done = call(&mut client, what);
                table.push(letter(done));
                if done.is_err() {
                    assert_eq!(format!("{:?}", client.session), before, "{what} at {place} changes something");
                }
            }
            table.push(' ');
        }
        table.push_str(&format!("{place}\n"));
    }
    assert_eq!(table, TABLE, "{table}");
}

/// Errors that need a setup of their own.
#[test]
fn calls_beyond_a_limit_or_without_room_are_refused() {
    let mut client = at("content");
    let now = client.clock.now();
    // Each line that starts with a dot takes two segments.
    let content = b".\r\n".repeat(100);
    let mut segments = SegmentList::new();
    client.session.payload(now, &content, &mut segments).expect("it is clean");
    while segments.push_fixed(b" ") {}
    let before = format!("{:?}", client.session);
    assert_eq!(client.session.payload(now, b"more\r\n", &mut segments), Ok(0));
    assert_eq!(client.session.finish_payload(now, &mut segments), Err(ApiMisuse::NoRoom));
    assert_eq!(format!("{:?}", client.session), before);
    client.session.finish_payload(now, &mut SegmentList::new()).expect("there is room");

    // This error ends the session: half a message must not be finished as if it were whole.
    for place in ["content", "half a chunk"] {
        let mut client = at(place);
        let refused = client.session.payload(now, b"a\nb", &mut SegmentList::new());
        assert!(matches!(refused, Err(ApiMisuse::Content(_))), "{place}");
        assert_eq!(client.session.finish_payload(now, &mut SegmentList::new()), Err(ApiMisuse::Closed), "{place}");
        assert_eq!(client.send_line("RSET"), Err(ApiMisuse::Closed), "{place}");
        assert_eq!(client.session.poll_timeout(), None, "{place}");
    }

    let mut client = at("ready");
    let too_long = "x".repeat(3_000);
    let before = format!("{:?}", client.session);
    assert!(matches!(client.send(&Command::Noop(&too_long)), Err(ApiMisuse::Encode(_))));
    assert_eq!(format!("{:?}", client.session), before);
    let mut client = at("challenged");
    for (length, fits) in [(12_287, false), (12_286, true)] {
        assert_eq!(client.respond(Some(&"A".repeat(length))).is_ok(), fits, "{length}");
    }
}
