//! The small example programs: each does what its first line says.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use posthaste::client::tls::Roots;
use posthaste::client::{Client, ClientOptions, Credentials, Identity, Protocol, Sent, Tls};
use support::client::Smtp;
use support::program::Program;
use support::{certificate, wait_for};

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

#[test]
fn send_many_tries_again_what_was_refused_for_now() {
    let greylist = Program::start(env!("CARGO_BIN_EXE_greylist"), ["127.0.0.1:0", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let addresses = folder.path().join("addresses");
    let names: Vec<String> = (0..300).map(|number| format!("to{number}@b.test")).collect();
    fs::write(&addresses, format!("{}\nno address\n", names.join("\n"))).unwrap();
    let mut send = Command::new(env!("CARGO_BIN_EXE_send_many"));
    send.args([&greylist.address(), "me@a.test", "2"]);
    let output = send.stdin(fs::File::open(addresses).unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "one address is none: {output:?}");
    assert_eq!(text.lines().count(), 2 * names.len() + 1, "{text}");
    for name in &names {
        assert!(text.contains(&format!("{name}: <{name}>: 451 4.7.1 Greylisted")), "{text}");
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
    assert_eq!(fs::read_to_string(new[0].path()).unwrap(), format!("Return-Path: <me@a.test>\r\n{LETTER}"));
    assert_eq!(fs::read_dir(folder.path().join("mail/jo/tmp")).unwrap().count(), 0);
}

#[test]
fn greylist_lets_the_second_attempt_through() {
    let greylist = Program::start(env!("CARGO_BIN_EXE_greylist"), ["127.0.0.1:0", "1"]);
    let mut client = Smtp::ehlo(greylist.port());
    client.expect("MAIL FROM:<a@b.test>", 250);
    assert_eq!(client.expect("RCPT TO:<c@d.test>", 451).text.trim(), "4.7.1 Greylisted, try again in 1 s");
    std::thread::sleep(Duration::from_millis(1_100));
    client.expect("RCPT TO:<c@d.test>", 250);
    // The wait is that of a sender and a recipient.
    client.expect("RCPT TO:<e@d.test>", 451);
    client.expect("RSET", 250);
    client.expect("MAIL FROM:<f@b.test>", 250);
    client.expect("RCPT TO:<c@d.test>", 451);
}

#[test]
fn mx_takes_mail_for_its_users_and_few_connections_a_minute() {
    let mx = Program::start(env!("CARGO_BIN_EXE_mx"), ["127.0.0.1:0", "jo,kim"]);
    let port = mx.port();
    let mut client = Smtp::ehlo(port);
    client.expect("MAIL FROM:<a@b.test>", 250);
    assert_eq!(client.expect("RCPT TO:<amy@d.test>", 550).text.trim(), "5.1.1 No mailbox amy@d.test");
    client.expect("RCPT TO:<kim@d.test>", 250);
    client.expect("DATA", 354);
    client.send(format!("{LETTER}.\r\n"));
    assert_eq!(client.reply().code, 250);
    assert_eq!(mx.line(), "21 octets from <a@b.test>");
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
async fn relay_lookups_takes_mail_from_users_and_for_mailboxes_it_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (cert, _) = certificate(folder.path());
    let next_hop = Program::start(env!("CARGO_BIN_EXE_receive"), ["127.0.0.1:0"]);
    let to = format!("[127.0.0.1]:{}", next_hop.port());
    let arguments = ["127.0.0.1:0", "127.0.0.1:0", &to, folder.path().to_str().unwrap()];
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
    let sent = user.send("jo@app.test", ["you@b.test", "amy@app.test"], LETTER).await.unwrap();
    assert!(replies(&sent)[0].starts_with("250 "), "{:?}", replies(&sent));
    assert_eq!(replies(&sent)[1], "550 5.1.1 No such mailbox");
    wait_for("the user's message", support::PATIENCE, || next_hop.line().contains("<you@b.test>").then_some(()));
}

#[tokio::test]
async fn embedded_relay_sends_what_it_takes_to_the_smart_host() {
    let folder = tempfile::tempdir().unwrap();
    let next_hop = Program::start(env!("CARGO_BIN_EXE_receive"), ["127.0.0.1:0"]);
    let (to, queue) = (format!("[127.0.0.1]:{}", next_hop.port()), folder.path().join("queue"));
    let arguments = ["127.0.0.1:0".as_ref(), to.as_ref(), queue.as_os_str()];
    let relay = Program::start(env!("CARGO_BIN_EXE_embedded_relay"), arguments);
    let options = ClientOptions::new("client.test".parse().unwrap());
    let mut client = Client::connect(relay.address(), &options).await.unwrap();
    let sent = client.send("me@a.test", ["you@b.test"], LETTER).await.unwrap();
    assert!(replies(&sent)[0].starts_with("250 2.0.0 Queued as "), "{:?}", replies(&sent));
    assert!(next_hop.line().starts_with("from <me@a.test> by 127.0.0.1:"));
    assert_eq!(next_hop.line(), "to <you@b.test>");
}
