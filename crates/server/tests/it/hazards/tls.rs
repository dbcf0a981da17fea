//! TLS begins and ends where it should, and what is no SMTP gets no further than its first line.

use posthaste_server::{Tls, rustls::ClientConnection};
use posthaste_testkit::talk::{Talk, handshake};
use std::sync::{Arc, atomic::Ordering::SeqCst};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{PATIENCE, PIECES, Pair, Scripted, WAYS, pki, serve};
use crate::support::settings;

/// What a server says until it closes. A connection that is reset has said nothing more.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the server closes");
    rest
}

/// Checks that octets are TLS records, to the last one.
fn assert_records(mut octets: &[u8], context: &str) {
    while let [kind, 3, _, high, low, after @ ..] = octets {
        assert!((20..24).contains(kind), "{context}: {}", octets.escape_ascii());
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        octets = after.get(length..).unwrap_or_else(|| panic!("{context}: half a record"));
    }
    assert!(octets.is_empty(), "{context}: {}", octets.escape_ascii());
}

#[tokio::test]
async fn octets_in_clear_in_the_place_of_a_handshake_end_the_connection() {
    let pki = pki();
    for octets in [
        &b"EHLO evil.test\r\nMAIL FROM:<evil@a.test>\r\nRCPT TO:<victim@d.test>\r\n"[..],
        &[b'\r', b'\n'].repeat(32),
        &[0x16; 64],
        &[0; 64],
        b"\x16\x03\x01\x00\x05EHLO c.test\r\n",
    ] {
        for piece in PIECES {
            let scripted = Scripted::default();
            let (server, stream) = serve(&scripted, settings(), Tls::StartTls(Arc::clone(&pki.0))).await;
            let mut talk = Talk::new(stream).greeted().await;
            talk.expect("STARTTLS", "220").await;
            let asked = scripted.asked.load(SeqCst);
            for piece in octets.chunks(piece) {
                let _ = talk.stream.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = talk.stream.shutdown().await;
            assert_records(&rest(&mut talk.stream).await, &octets.escape_ascii().to_string());
            assert_eq!(scripted.asked.load(SeqCst), asked, "{}", octets.escape_ascii());
            server.abort();
        }
    }
}

#[tokio::test]
async fn what_follows_a_close_notify_in_clear_is_not_read() {
    let pki = pki();
    for starttls in [false, true] {
        // The decisions of the handler are those about what came within TLS.
        for (lines, within, clear, decisions) in [
            (&[][..], "", "MAIL FROM:<evil@a.test>\r\n", 0),
            (&["MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>"], "", "RSET\r\nMAIL FROM:<evil@a.test>\r\n", 2),
            (&["MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"], "half a", " message\r\n.\r\nNOOP\r\n", 3),
            (&["MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"], "x\r\n.\r", "\nMAIL FROM:<evil@a.test>\r\n", 3),
            (&["MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>"], "BDAT 6 LAST\r\nhal", "f a\r\nNOOP\r\n", 3),
            (&["MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>"], "BDAT 6\r\nhalf a", "BDAT 0 LAST\r\n", 3),
            (&["AUTH PLAIN"], "AHRlc3Rlcg", "BzM2NyZXQ=\r\n", 0),
        ] {
            let scripted = Scripted::default();
            let mut settings = settings();
            settings.offers.chunking = true;
            settings.offers.auth.insert(posthaste_server::wire::Mechanism::Plain);
            let config = Arc::clone(&pki.0);
            let tls = if starttls { Tls::StartTls(config) } else { Tls::Implicit(config) };
            let (server, mut stream) = serve(&scripted, settings, tls).await;
            if starttls {
                let mut talk = Talk::new(stream).greeted().await;
                talk.expect("STARTTLS", "220").await;
                stream = talk.stream;
            }
            let mut talk = Talk::new(handshake(stream, &pki.1).await);
            if !starttls {
                talk.reply().await;
            }
            talk.expect("EHLO c.test", "250").await;
            let before = scripted.asked.load(SeqCst);
            for line in lines {
                talk.ask(line).await;
            }
            talk.send(within).await;
            if within.starts_with("BDAT 6\r\n") {
                talk.reply().await;
            }
            let (stream, connection) = talk.stream.get_mut();
            stream.write_all(&close_notify(connection)).await.unwrap();
            let _ = stream.write_all(clear.as_bytes()).await;
            let _ = stream.shutdown().await;
            let context = format!("STARTTLS {starttls}: {lines:?} {within:?} {clear:?}");
            // Its own close_notify, and no reply.
            let said = rest(stream).await;
            assert_records(&said, &context);
            assert!(said.len() < 64, "{context}: {} octets", said.len());
            assert_eq!(scripted.asked.load(SeqCst), before + decisions, "{context}");
            assert!(scripted.messages.lock().unwrap().is_empty(), "{context}");
            server.abort();
        }
    }
}

fn close_notify(connection: &mut ClientConnection) -> Vec<u8> {
    connection.send_close_notify();
    let mut octets = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut octets).unwrap();
    }
    octets
}

#[tokio::test]
async fn what_does_not_begin_with_tls_is_not_heard_where_tls_is_implicit() {
    let pki = pki();
    for octets in [
        &b"EHLO c.test\r\nMAIL FROM:<evil@a.test>\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: mx.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        // SSL 2.
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80",
        &[0; 64],
        &[0xff; 64],
    ] {
        for piece in PIECES {
            let scripted = Scripted::default();
            let (server, mut stream) = serve(&scripted, settings(), Tls::Implicit(Arc::clone(&pki.0))).await;
            for piece in octets.chunks(piece) {
                let _ = stream.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = stream.shutdown().await;
            assert_records(&rest(&mut stream).await, &octets.escape_ascii().to_string());
            assert_eq!(scripted.asked.load(SeqCst), 0, "{}", octets.escape_ascii());
            server.abort();
        }
    }
}

#[tokio::test]
async fn no_reply_repeats_what_a_browser_could_run() {
    let pki = pki();
    let script = "<script>alert(1)</script>";
    for way in WAYS {
        for line in [
            format!("GET /{script} HTTP/1.1"),
            format!("POST / HTTP/1.1\r\nX: {script}\r\n\r\n{script}"),
            script.to_owned(),
            format!("EHLO {script}"),
            format!("EHLO c.test\r\nMAIL FROM:{script}"),
            format!("EHLO c.test\r\nMAIL FROM:<\"{script}\"@a.test>\r\nRCPT TO:<\"{script}\"@b.test>"),
            format!("EHLO c.test\r\nMAIL FROM:<a@a.test> {script}"),
            format!("EHLO c.test\r\nAUTH {script}"),
            format!("VRFY {script}\r\nEXPN {script}\r\nHELP {script}\r\nNOOP {script}"),
        ] {
            let mut pair = Pair::connect(&line, way, usize::MAX, &pki, settings(), true, |_| {}).await;
            pair.say(b"").await;
            pair.session.feed(format!("{line}\r\n").as_bytes());
            // The server is compared with the session, which must not say it.
            let said = String::from_utf8_lossy(&pair.session.said).into_owned();
            assert!(!said.contains("script"), "{line:?}: {said}");
            pair.stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            pair.hear().await;
            pair.end().await;
        }
    }
}
