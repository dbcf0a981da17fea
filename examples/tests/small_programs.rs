//! The small example programs: each does what its first line says.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use posthaste::client::tls::Roots;
use posthaste::client::{Client, ClientOptions, Credentials, Identity, Protocol, Sent, Tls};
use posthaste::server::session::ServerSettings;
use posthaste::server::wire::Rcpt;
use posthaste::server::{
    Context, Layer, Listener, Refusal, ScramKey, Server, Service as _, accepted, handlers, refusal,
};
use serde_json::json;
use support::client::Smtp;
use support::program::Program;
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::{PATIENCE, certificate, free_port, wait_for};

const LETTER: &str = "Subject: x\r\n\r\nHello\r\n";

/// What came of each recipient.
fn replies(sent: &Sent) -> Vec<String> {
    sent.recipients.iter().map(|recipient| recipient.outcome.to_string()).collect()
}

/// With STARTTLS, a certificate that is verified, and a login.
fn logged_in(certificate: &Path, user: &str, password: &str) -> ClientOptions {
    let mut options = ClientOptions::new("client.test".parse().unwrap());
    let roots = Roots::empty().add_pem_file(certificate).unwrap();
    options.tls = Tls::Required(Identity::verified(roots).unwrap());
    options.credentials = Some(Credentials::new(user, password).into());
    options
}

#[test]
fn receive_prints_what_send_has_sent() {
    let receive = Program::start(env!("CARGO_BIN_EXE_receive"), ["127.0.0.1:0"]);
    let address = receive.address();
    let mut send = Command::new(env!("CARGO_BIN_EXE_send"));
    send.args([&address, "me@a.test", "you@b.test", "and@c.test"]);
    let folder = tempfile::tempdir().unwrap();
    let letter = folder.path().join("letter");
    fs::write(&letter, LETTER).unwrap();
    let output = send.stdin(fs::File::open(letter).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("250 2.0.0 Printed").count(), 2, "{output:?}");
    assert!(receive.line().starts_with("from <me@a.test> by 127.0.0.1:"));
    assert_eq!([receive.line(), receive.line()], ["to <you@b.test>", "to <and@c.test>"]);
}

#[test]
fn a_program_that_fails_prints_the_remedy() {
    for (arguments, remedy) in [
        (["mx.example.net", "me@a.test", "you@b.test"], "has no port; add it after a colon, as in mx.example.net:25"),
        (["127.0.0.1:1", "me@a.test", "you@b.test"], "error: no connection to 127.0.0.1:1: Connection refused"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_send")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(remedy) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn send_built_sends_the_letters_of_two_builders() {
    let receive = Program::start(env!("CARGO_BIN_EXE_receive"), ["127.0.0.1:0"]);
    let mut send = Command::new(env!("CARGO_BIN_EXE_send_built"));
    let output = send.args([&receive.address(), "me@a.test", "you@b.test"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "<you@b.test>: 250 2.0.0 Printed\n".repeat(2));
    for start in ["From: \"Me\" <me@a.test>\nTo: \"You\" <you@b.test>\n", "From: me@a.test\nTo: you@b.test\n"] {
        assert!(receive.line().starts_with("from <me@a.test> by 127.0.0.1:"));
        assert_eq!(receive.line(), "to <you@b.test>");
        let mut letter = receive.line();
        while !letter.ends_with("--\n") {
            letter = letter + "\n" + &receive.line();
        }
        assert!(letter.starts_with(start) && letter.contains("rows.csv"), "{letter}");
    }
}

/// Puts the first attempt for each recipient off.
#[derive(Debug, Clone, Default)]
struct Later(Arc<Mutex<HashSet<String>>>);

impl Layer for Later {
    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let is_first = self.0.lock().unwrap().insert(rcpt.forward_path.to_string());
        if is_first { Err(refusal!("451 4.7.1 Later")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn send_many_tries_again_what_was_refused_for_now() {
    let service = handlers::message(async |_, _, body| {
        body.collect(1_000).await?;
        Ok(accepted!("250 2.0.0 Thrown away"))
    });
    let settings = ServerSettings::new("localhost".parse().unwrap());
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    tokio::spawn(Server::new(service.layer(Later::default())).listen(listener).serve());
    let folder = tempfile::tempdir().unwrap();
    let addresses = folder.path().join("addresses");
    let names: Vec<String> = (0..300).map(|number| format!("to{number}@b.test")).collect();
    fs::write(&addresses, format!("{}\nno address\n", names.join("\n"))).unwrap();
    let mut send = tokio::process::Command::new(env!("CARGO_BIN_EXE_send_many"));
    send.args([&address, "me@a.test", "0"]).stdin(fs::File::open(addresses).unwrap());
    let output = send.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "one address is none: {output:?}");
    assert_eq!(text.lines().count(), 2 * names.len() + 1, "{text}");
    for name in &names {
        assert!(text.contains(&format!("{name}: <{name}>: 451 4.7.1 Later")), "{text}");
        assert!(text.contains(&format!("{name}: sent\n")), "{text}");
    }
}

#[tokio::test]
async fn submission_takes_mail_of_users_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let users = folder.path().join("users");
    // `pencil`, as `relay verifier` prints it.
    fs::write(&users, "jo SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n").unwrap();
    let arguments = ["127.0.0.1:0".as_ref(), cert.as_os_str(), key.as_os_str(), users.as_os_str()];
    let submission = Program::start(env!("CARGO_BIN_EXE_submission"), arguments);
    let port = submission.port();

    let mut client = Client::connect(("localhost", port), &logged_in(&cert, "jo", "pencil")).await.unwrap();
    let sent = client.send("jo@a.test", ["you@b.test"], LETTER).await.unwrap();
    assert_eq!(replies(&sent), ["250 2.0.0 Printed"]);
    assert_eq!(submission.line(), "jo sends 21 octets to 1 recipients");
}

#[tokio::test]
async fn lmtp_maildir_decides_about_each_recipient() {
    let folder = tempfile::tempdir().unwrap();
    for user in ["jo", "amy"] {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(folder.path().join("mail").join(user).join(part)).unwrap();
        }
    }
    // What amy's folder cannot take, jo's still can.
    fs::remove_dir(folder.path().join("mail/amy/tmp")).unwrap();
    let socket = folder.path().join("socket");
    let arguments = [socket.clone(), folder.path().join("mail")];
    let lmtp = Program::start(env!("CARGO_BIN_EXE_lmtp_maildir"), &arguments);
    lmtp.address();

    let mut options = ClientOptions::new("client.test".parse().unwrap());
    options.protocol = Protocol::Lmtp;
    let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let mut client = Client::start(stream, "localhost", &options).await.unwrap();
    let to = ["jo@b.test", "amy@b.test", "gone@b.test", "\"../mail/jo\"@b.test", "\"\"@b.test"];
    let sent = client.send("me@a.test", to, LETTER).await.unwrap();
    let local = "451 4.3.0 Local error, try again later";
    let gone = "550 5.1.1 No such user";
    assert_eq!(replies(&sent), ["250 2.0.0 Delivered", local, gone, gone, gone]);

    let new: Vec<_> = fs::read_dir(folder.path().join("mail/jo/new")).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(new.len(), 1);
    // Two recipients were accepted, so that neither is named to the other.
    let kept = fs::read_to_string(new[0].path()).unwrap();
    let trace =
        "Return-Path: <me@a.test>\r\nReceived: from client.test ([127.0.0.1])\r\n\tby localhost with LMTP;\r\n\t";
    assert!(kept.starts_with(trace) && kept.ends_with(&format!(" +0000\r\n{LETTER}")), "{kept}");
    assert_eq!(fs::read_dir(folder.path().join("mail/jo/tmp")).unwrap().count(), 0);
}

/// The relay as a process, an LMTP server of another, and folders.
#[test]
fn the_relay_delivers_to_lmtp_and_to_maildirs() {
    let mut relay = Relay::prepare(&Config { next_hops: vec![free_port()], ..Config::default() });
    let mail = relay.folder().join("mail");
    for part in ["jo/tmp", "jo/new", "jo/cur"] {
        fs::create_dir_all(mail.join(part)).unwrap();
    }
    let socket = relay.folder().join("lmtp");
    let lmtp = Program::start(env!("CARGO_BIN_EXE_lmtp_maildir"), [&socket, &mail]);
    lmtp.address();
    let routes = format!(
        "[[route]]\ndomains = [\"lmtp.test\"]\nto = \"lmtp:unix:{}\"\n\
         [[route]]\ndomains = [\"maildir.test\"]\nto = \"maildir:{}/{{domain}}/{{local}}\"\n",
        socket.display(),
        mail.display()
    );
    let text = fs::read_to_string(relay.config()).unwrap();
    let (before, after) = text.split_once("[[route]]").unwrap();
    fs::write(relay.config(), format!("{before}{routes}[[route]]{after}")).unwrap();
    relay.start_again();
    for (to, folder) in [("jo@lmtp.test", "jo/new"), ("Amy@maildir.test", "maildir.test/amy/new")] {
        let mut client = Smtp::ehlo(relay.port);
        client.open("me@sender.test", to);
        client.send("Subject: x\r\n\r\nHello\r\n.\r\n");
        assert_eq!(client.reply().code, 250);
        let file =
            wait_for("the message is in its folder", PATIENCE, || fs::read_dir(mail.join(folder)).ok()?.next()?.ok());
        let kept = fs::read_to_string(file.path()).unwrap();
        assert!(kept.starts_with("Return-Path: <me@sender.test>\r\n") && kept.ends_with("\r\n\r\nHello\r\n"), "{kept}");
    }
}

/// What a browser gets.
fn get(address: &str, host: &str, path: &str) -> String {
    let (mut stream, mut page) = (TcpStream::connect(address).unwrap(), String::new());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[tokio::test]
async fn capture_shows_messages_as_text_to_this_host_alone() {
    let capture = Program::start(env!("CARGO_BIN_EXE_capture"), ["127.0.0.1:0", "127.0.0.1:0"]);
    let smtp = capture.address();
    let page = capture.line().replace("the page is http://", "").replace('/', "");
    let options = ClientOptions::new("client.test".parse().unwrap());
    let mut client = Client::connect(smtp, &options).await.unwrap();
    for number in 1..=51 {
        let letter = format!("From: x\r\nSUBJECT: <b>{number}</b> & more\r\n\r\n<script>alert(1)</script>\r\n");
        let sent = client.send("me@a.test", ["you@b.test", "\"<i>\"@c.test"], letter).await.unwrap();
        assert_eq!(
            replies(&sent),
            [format!("250 2.0.0 Captured as {number}"), format!("250 2.0.0 Captured as {number}")]
        );
    }
    let list = get(&page, &page, "/");
    assert!(list.starts_with("HTTP/1.1 200") && list.contains("content-security-policy: default-src 'none'"), "{list}");
    assert!(list.contains("<a href=/51>SUBJECT: &lt;b>51&lt;/b> &amp; more</a> from &lt;me@a.test>"), "{list}");
    assert_eq!((list.contains("href=/1>"), list.contains("href=/2>")), (false, true), "{list}");
    let one = get(&page, "localhost:8025", "/51");
    assert!(one.contains("To &lt;you@b.test><br>To &lt;\"&lt;i>\"@c.test>"), "{one}");
    assert!(one.contains("&lt;script>alert(1)") && !one.contains("<script"), "{one}");
    for (host, path) in [("rebound.test:80", "/"), ("", "/"), (page.as_str(), "/1"), (&page, "/x"), (&page, "/52")] {
        let none = get(&page, host, path);
        assert!(none.starts_with("HTTP/1.1 404") && none.ends_with("\r\n\r\n"), "{host} {path}: {none}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_capture")).args(["127.0.0.1:0", "0.0.0.0:0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("give it a loopback address"), "{output:?}");
}

/// Answers requests with these statuses, one after the other. Returns the bodies. A status of 0 is
/// no answer.
fn endpoint(statuses: Vec<u16>) -> (u16, std::thread::JoinHandle<Vec<serde_json::Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let answer = |status| {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let (mut line, mut length) = (String::new(), 0);
            stream.read_line(&mut line).unwrap();
            assert_eq!(line, "POST /inbound?key=1 HTTP/1.1\r\n");
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).unwrap();
                length = line.strip_prefix("content-length: ").map_or(length, |length| length.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            if status > 0 {
                // More of a body than is read.
                let body = "x".repeat(100_000);
                let _ = write!(stream.get_mut(), "HTTP/1.1 {status} So\r\nContent-Length: 100000\r\n\r\n{body}");
            }
            serde_json::from_slice(&body).unwrap()
        };
        statuses.into_iter().map(answer).collect()
    });
    (port, answering)
}

#[tokio::test]
async fn webhook_decides_as_the_application_does() {
    let rows = [
        (204, "250 2.0.0"),
        (422, "554 5.7.1"),
        (429, "451 4.3.2"),
        (503, "451 4.3.0"),
        (302, "451 4.3.0"),
        (0, "451 4.3.0"),
    ];
    let (port, answering) = endpoint(rows.iter().map(|(status, _)| *status).collect());
    let url = format!("http://127.0.0.1:{port}/inbound?key=1");
    let webhook = Program::start(env!("CARGO_BIN_EXE_webhook"), ["127.0.0.1:0", &url]);
    let options = ClientOptions::new("client.test".parse().unwrap());
    let mut client = Client::connect(webhook.address(), &options).await.unwrap();
    for (status, reply) in rows {
        let sent = client.send("me@a.test", ["you@b.test"], LETTER).await.unwrap();
        assert!(replies(&sent)[0].starts_with(reply), "{status}: {:?}", replies(&sent));
    }
    let requests = answering.join().unwrap();
    for request in requests {
        assert_eq!(request["envelope"]["mail"]["reverse_path"], "<me@a.test>", "{request}");
        assert_eq!(request["content"], "U3ViamVjdDogeA0KDQpIZWxsbw0K", "{request}");
    }
    // Nothing listens any more.
    let sent = client.send("me@a.test", ["you@b.test"], LETTER).await.unwrap();
    assert!(replies(&sent)[0].starts_with("451 4.3.0"), "{:?}", replies(&sent));
}

#[test]
fn mx_takes_mail_for_its_users_and_few_connections_a_minute() {
    let mx = Program::start(env!("CARGO_BIN_EXE_mx"), ["127.0.0.1:0", "jo@d.test,kim@d.test"]);
    let port = mx.port();
    let mut client = Smtp::ehlo(port);
    client.expect("MAIL FROM:<a@b.test>", 250);
    assert_eq!(client.expect("RCPT TO:<amy@d.test>", 550).text.trim(), "5.1.1 No mailbox amy@d.test");
    client.expect("RCPT TO:<kim@d.test>", 250);
    client.expect("DATA", 354);
    client.send(format!("{LETTER}.\r\n"));
    assert_eq!(client.reply().code, 250);
    // With a Received field in front of it.
    let (octets, sender) = mx.line().split_once(" octets from ").map(|(n, from)| (n.parse(), from.to_owned())).unwrap();
    assert!(octets.is_ok_and(|octets: usize| octets > LETTER.len() + 60) && sender == "<a@b.test>");
    client.expect("MAIL FROM:<a@b.test>", 250);
    client.expect("RCPT TO:<jo@d.test>", 250);
    client.expect("DATA", 354);
    client.send(format!("{}\r\n.\r\n", "X: 1\r\n".repeat(1_001)));
    assert_eq!(client.reply().code, 554);
    for _ in 1..30 {
        Smtp::ehlo(port);
    }
    let mut refused = String::new();
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("421 4.7.0 Too many connections"), "{refused}");
}

#[tokio::test]
async fn relay_lookups_follows_its_database_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (cert, _) = certificate(folder.path());
    let next_hop = Program::start(env!("CARGO_BIN_EXE_receive"), ["127.0.0.1:0"]);
    let database = rusqlite::Connection::open(folder.path().join("relay.db")).unwrap();
    let key = ScramKey::derive("pencil", &[7; 16], 4_096).unwrap().to_text();
    let execute = |text: &str| database.execute_batch(text).unwrap();
    let port = next_hop.port();
    execute("CREATE TABLE routes (domain TEXT PRIMARY KEY, host TEXT, port INTEGER)");
    execute("CREATE TABLE mailboxes (address TEXT PRIMARY KEY, key TEXT)");
    execute(&format!("INSERT INTO routes VALUES ('app.test', '[127.0.0.1]', {port})"));
    execute(&format!("INSERT INTO mailboxes VALUES ('jo@app.test', '{}')", key.expose()));
    let arguments = ["127.0.0.1:0", "127.0.0.1:0", folder.path().to_str().unwrap()];
    let relay = Program::start(env!("CARGO_BIN_EXE_relay_lookups"), arguments);
    let (mx, submission) = (relay.port(), relay.port());

    let mut other = Smtp::ehlo(mx);
    other.expect("MAIL FROM:<me@a.test>", 250);
    other.expect("RCPT TO:<amy@app.test>", 550);
    other.expect("RCPT TO:<you@b.test>", 550);
    other.expect("RCPT TO:<jo@app.test>", 250);
    other.expect("DATA", 354);
    other.send(format!("{LETTER}.\r\n"));
    assert_eq!(other.reply().code, 250);
    assert!(next_hop.line().starts_with("from <me@a.test> by 127.0.0.1:"));
    assert_eq!(next_hop.line(), "to <jo@app.test>");

    let wrong = Client::connect(("localhost", submission), &logged_in(&cert, "jo@app.test", "pen")).await;
    assert!(wrong.is_err_and(|error| error.to_string().contains("535")));
    let options = logged_in(&cert, "jo@app.test", "pencil");
    let mut user = Client::connect(("localhost", submission), &options).await.unwrap();
    let to = ["you@b.test", "amy@app.test"];
    let sent = user.send("jo@app.test", to, LETTER).await.unwrap();
    assert_eq!(replies(&sent), ["550 5.1.1 There is no route to that recipient", "550 5.1.1 No such mailbox"]);
    execute(&format!("INSERT INTO routes VALUES ('*', '[127.0.0.1]', {port})"));
    execute("INSERT INTO mailboxes VALUES ('amy@app.test', 'no key')");
    let sent = user.send("jo@app.test", to, LETTER).await.unwrap();
    assert!(replies(&sent).iter().all(|reply| reply.starts_with("250 ")), "{:?}", replies(&sent));
    wait_for("the user's message", PATIENCE, || next_hop.line().contains("<you@b.test>").then_some(()));
}

#[test]
fn embedded_relay_submits_a_message_and_reports_what_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = Sink::start();
    sink.rule("rcpt", &json!(["reply", "550 5.1.1 Gone"]), Some("gone@b.test"), None);
    let (to, queue) = (format!("[127.0.0.1]:{}", sink.port), folder.path().join("queue"));
    let arguments = [&*to, queue.to_str().unwrap(), "me@a.test", "you@b.test", "gone@b.test"];
    let letter = "Date: Mon, 30 Nov 2026 10:00:00 +0000\nSubject: x\n\nHello\n";
    let relay = Program::with_input(env!("CARGO_BIN_EXE_embedded_relay"), arguments, letter);
    let mut lines: Vec<String> = std::iter::repeat_with(|| relay.line()).take(4).collect();
    let last = lines.pop().unwrap();
    lines[..2].sort();
    assert!(lines[0].starts_with("<gone@b.test>: ") && lines[0].contains("550 5.1.1 Gone"), "{lines:?}");
    assert_eq!(lines[1..], ["<you@b.test>: taken by [127.0.0.1]", "<me@a.test>: gets a report of 1"]);
    assert_eq!(last, "<me@a.test>: taken by [127.0.0.1]");
    let taken = sink.wait("gone@b.test", 1);
    assert!(taken[0].reverse_path.is_empty() && taken[0].recipients[0].0 == "me@a.test", "{taken:?}");
}
