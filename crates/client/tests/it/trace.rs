//! What a trace shows of conversations, and what it does not.

use std::{io, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use posthaste_client::{
    Client, Credentials, Once, Pool, Reader, Streamed, Tls, Transcript,
    session::sasl::{BearerToken, ClientCredentials},
    wire::Secret,
};
use posthaste_testkit::{
    pki::tls,
    script::{Scripted, polite, serve, verb},
};

use crate::support::{Policy, options, trusting};

const TEXT: &str = "Subject: hello\r\n\r\nHello!\r\n";

#[tokio::test]
async fn a_transcript_shows_a_session_without_its_secrets() {
    let (theirs, ours) = tls("mx.test");
    let script = |_, line: &str| match line {
        "RCPT TO:<gone@d.test>" => "550-5.1.1 No such\x1b user\r\n550 5.1.1 Sorry\r\n".to_owned(),
        _ => polite(line, &["STARTTLS", "AUTH PLAIN", "PIPELINING", "SIZE"]),
    };
    let (stream, _) = serve(script, Some(theirs));
    let mut options = options(Policy::Verified.tls(ours));
    let transcript = Transcript::default();
    options.trace = Some(transcript.trace());
    options.credentials = Some(Credentials::new("me", "hunter2").into());
    let mut client = Client::start(stream, "mx.test", &options).await.unwrap();
    let sent = client.send("me@s.test", ["you@d.test", "gone@d.test"], TEXT).await.unwrap();
    assert_eq!(sent.failed().count(), 1);
    client.quit().await;
    let hello = |offers: &str| format!("1 C: EHLO client.test\n1 S: 250-mx.test\n{offers}1 S: 250 HELP\n");
    let hello = hello("1 S: 250-STARTTLS\n1 S: 250-AUTH PLAIN\n1 S: 250-PIPELINING\n1 S: 250-SIZE\n");
    let expected = format!(
        "1 S: 220 mx.test\n{hello}\
         1 C: STARTTLS\n1 S: 220 go\n1 *: TLS established: TLSv1_3, TLS13_AES_256_GCM_SHA384\n{hello}\
         1 C: AUTH PLAIN <redacted>\n1 S: 235 ok\n\
         1 C: MAIL FROM:<me@s.test> SIZE=26\n1 C: RCPT TO:<you@d.test>\n1 C: RCPT TO:<gone@d.test>\n1 C: DATA\n\
         1 S: 250 ok\n1 S: 250 ok\n1 S: 550-5.1.1 No such\\u{{1b}} user\n1 S: 550 5.1.1 Sorry\n1 S: 354 go on\n\
         1 C: <26 octets of content>\n1 C: .\n1 S: 250 ok\n1 C: QUIT\n1 S: 221 bye\n"
    );
    assert_eq!(transcript.to_string(), expected);
}

#[tokio::test]
async fn content_by_bdat_is_counted_chunk_by_chunk() {
    for (is_whole, expected) in [
        (true, "1 C: BDAT 26 LAST\n1 C: <26 octets of content>\n1 S: 250 ok\n"),
        (
            false,
            "1 C: BDAT 70000\n1 C: <70000 octets of content>\n1 S: 250 ok\n\
             1 C: BDAT 26 LAST\n1 C: <26 octets of content>\n1 S: 250 ok\n",
        ),
    ] {
        let (stream, _) = serve(|_, line| polite(line, &["CHUNKING", "PIPELINING"]), None);
        let transcript = Transcript::default();
        let mut options = options(Tls::Off);
        options.trace = Some(transcript.trace());
        let mut client = Client::start(stream, "mx.test", &options).await.unwrap();
        let sent = if is_whole {
            client.send("me@s.test", ["you@d.test"], TEXT).await
        } else {
            let pieces = ["Hello\r\n".repeat(10_000), TEXT.to_owned()];
            let pieces = pieces.map(|piece| Ok::<_, io::Error>(Bytes::from(piece)));
            client.send("me@s.test", ["you@d.test"], Streamed::new(futures_util::stream::iter(pieces))).await
        };
        assert!(sent.unwrap().is_complete());
        let text = transcript.to_string();
        assert!(text.ends_with(expected) && !text.contains("Hello"), "{text}");
    }
}

#[tokio::test]
async fn a_connection_that_fails_is_shown_with_its_reason() {
    let transcript = Transcript::default();
    let mut options = options(Tls::Opportunistic(trusting()));
    options.trace = Some(transcript.trace());

    // A port that was free a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Client::connect(free, &options).await.unwrap_err();
    assert_eq!(transcript.to_string(), format!("1 *: connecting to 127.0.0.1 at {free}\n1 *: {error}\n"));

    let broken = Scripted::with_tls(tls("mx.test").0, |place, line| match (place.connection, verb(line)) {
        (0, "STARTTLS") => "220 go\r\n<alert>".to_owned(),
        (1, "DATA") => "354 go\r\n<hang>".to_owned(),
        _ => polite(line, &["STARTTLS"]),
    })
    .await;
    let transcript = Transcript::default();
    options.trace = Some(transcript.trace());
    options.session.timeouts.end_of_data = Duration::from_millis(50);
    let pool = Pool::new([("127.0.0.1", broken.port)], options.clone()).unwrap();
    let sent = pool.send("me@s.test", ["you@d.test"], Once::new(Reader::new(TEXT.as_bytes()))).await.unwrap();
    assert!(sent.recipients[0].broken.is_some());
    let text = transcript.to_string();
    assert!(text.contains("1 S: 220 go\n1 *: TLS was tried and not required: the TLS handshake failed"), "{text}");
    assert!(text.contains("2 *: connecting to 127.0.0.1 at 127.0.0.1:"), "{text}");
    let end = "2 C: <26 octets of content>\n2 C: .\n\
        2 *: the server was silent for too long, while we waited for the reply to the content\n";
    assert!(text.ends_with(end) && !text.contains("Hello"), "{text}");
}

#[tokio::test]
async fn content_that_breaks_off_is_shown_as_such() {
    let (stream, _) = serve(|_, line| polite(line, &[]), None);
    let transcript = Transcript::default();
    let mut options = options(Tls::Off);
    options.trace = Some(transcript.trace());
    let mut client = Client::start(stream, "mx.test", &options).await.unwrap();
    let sent = client.send("me@s.test", ["you@d.test"], "Subject: secret\n").await.unwrap();
    assert!(sent.broken.is_some());
    let text = transcript.to_string();
    assert!(
        text.contains("1 C: <0 octets of content, not all of it>\n1 *: the content must not be sent: bare LF at "),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

/// The server accepts, or refuses with a reply that repeats the client's line and credentials.
#[tokio::test]
async fn a_password_or_token_shows_in_no_mechanism() {
    let password: ClientCredentials = Credentials::new("me", "hunter2").into();
    let token = ClientCredentials::Token(BearerToken {
        authorization_identity: Some("me".to_owned()),
        token: Secret::new("hunter2".to_owned()),
        host: Some("mx.test".to_owned()),
        port: Some(587),
    });
    let mechanisms = [
        ("PLAIN", &password),
        ("LOGIN", &password),
        ("CRAM-MD5", &password),
        ("SCRAM-SHA-256", &password),
        ("OAUTHBEARER", &token),
        ("XOAUTH2", &token),
    ];
    let secrets = ["hunter2", "aHVudGVy", "h1bnRlcj", "odW50ZXI", "challenge", "Y2hhbGxlbmdl"];
    for (mechanism, credentials) in mechanisms {
        for is_accepted in [true, false] {
            let (theirs, ours) = tls("mx.test");
            let mut challenges = 0;
            let script = move |_: posthaste_testkit::script::Place, line: &str| {
                if matches!(verb(line), "<connect>" | "EHLO" | "STARTTLS") {
                    return polite(line, &["STARTTLS", &format!("AUTH {mechanism}")]);
                }
                challenges += 1;
                match (mechanism, challenges) {
                    ("LOGIN", 1 | 2) | ("CRAM-MD5", 1) => {
                        format!("334 {}\r\n", STANDARD.encode(format!("<challenge{challenges}>")))
                    }
                    ("SCRAM-SHA-256", 1) => {
                        let first = STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap();
                        let first = String::from_utf8(first).unwrap();
                        let nonce = first.rsplit_once("r=").unwrap().1;
                        format!("334 {}\r\n", STANDARD.encode(format!("r={nonce}challenge,s=c2FsdHNhbHQ=,i=4096")))
                    }
                    ("OAUTHBEARER" | "XOAUTH2", 1) if !is_accepted => {
                        format!("334 {}\r\n", STANDARD.encode("{\"status\":\"challenge\"}"))
                    }
                    _ if is_accepted => "235 2.7.0 welcome\r\n".to_owned(),
                    _ => {
                        let response = line.rsplit(' ').next().unwrap();
                        format!("535-5.7.8 no {response}\r\n535 5.7.8 hunter2 of me is wrong\r\n")
                    }
                }
            };
            let (stream, heard) = serve(script, Some(theirs));
            let transcript = Transcript::default();
            let mut options = options(Policy::Verified.tls(ours));
            options.trace = Some(transcript.trace());
            options.credentials = Some(credentials.clone().into());
            let started = Client::start(stream, "mx.test", &options).await;
            let (text, heard) = (transcript.to_string(), heard.all());
            assert!(text.contains(&format!("C: AUTH {mechanism}")) && text.contains("<redacted>"), "{text}");
            assert!(text.contains(if is_accepted { "235 2.7.0 welcome" } else { "535-5.7.8 no " }), "{text}");
            assert_eq!(started.is_ok(), is_accepted && mechanism != "SCRAM-SHA-256", "{mechanism}");
            for secret in secrets {
                assert!(!text.contains(secret), "{mechanism} {secret}: {text}");
            }
            // Whatever the client has said after AUTH and its mechanism.
            for (_, line) in heard.iter().skip_while(|(_, line)| !line.starts_with("AUTH")) {
                let said = line.rsplit(' ').next().unwrap();
                assert!(said.len() < 8 || said == mechanism || said.starts_with('<') || !text.contains(said), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn a_reply_to_no_command_within_a_login_hides_the_password_too() {
    let (theirs, ours) = tls("mx.test");
    let script = |_, line: &str| match verb(line) {
        "AUTH" => format!("334 {}\r\n421 hunter2 is over\r\n", STANDARD.encode("Username:")),
        _ => polite(line, &["STARTTLS", "AUTH LOGIN"]),
    };
    let (stream, _) = serve(script, Some(theirs));
    let transcript = Transcript::default();
    let mut options = options(Policy::Verified.tls(ours));
    options.trace = Some(transcript.trace());
    options.credentials = Some(Credentials::new("me", "hunter2").into());
    assert!(Client::start(stream, "mx.test", &options).await.is_err());
    let text = transcript.to_string();
    assert!(text.contains("421 <redacted> is over") && !text.contains("hunter2"), "{text}");
}
