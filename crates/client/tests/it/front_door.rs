//! `connect` and `send`, and the mistakes that their callers make.

use std::{net::SocketAddr, path::Path};

use crate::support::{self, connected, options, trusting};
use posthaste_client::{
    Client, ClientError, ConnectError, Credentials, Endpoint, EndpointError, Reader, RecipientOutcome, SendError, Sent,
    Streamed, Text, Tls, port,
    wire::{Mail, Notify, Rcpt, ReversePath},
};
use posthaste_testkit::{
    pki::tls,
    script::{Scripted, polite, serve, verb},
};

const TEXT: &str = "Subject: hello\r\n\r\nHello!\r\n";

#[tokio::test]
async fn a_server_is_named_in_every_usual_way() {
    let (port, options) = (Scripted::polite().await.port, options(Tls::Off));
    let text = format!("127.0.0.1:{port}");
    assert!(Client::connect(text.as_str(), &options).await.is_ok());
    assert!(Client::connect(&text, &options).await.is_ok());
    assert!(Client::connect(text.clone(), &options).await.is_ok());
    assert!(Client::connect(("127.0.0.1", port), &options).await.is_ok());
    assert!(Client::connect(("localhost".to_owned(), port), &options).await.is_ok());
    assert!(Client::connect(SocketAddr::from(([127, 0, 0, 1], port)), &options).await.is_ok());
    assert!(Client::connect(text.parse::<Endpoint>().unwrap(), &options).await.is_ok());
}

#[test]
fn a_text_that_names_no_server_is_an_error_with_a_remedy() {
    use EndpointError::{BadPath, BadPort, NoBrackets, NoHost, NoPort, Url};
    for (text, error, remedy) in [
        ("mx.test", NoPort as fn(String) -> EndpointError, "add it after a colon, as in mx.test:25"),
        ("", NoPort, "add it after a colon"),
        ("[::1]", NoPort, "as in [::1]:25"),
        (":25", NoHost, "as in mx.example.net:25"),
        ("[]:25", NoHost, "as in mx.example.net:25"),
        ("mx\r\ntest:25", NoHost, "as in mx.example.net:25"),
        ("mx.test:", BadPort, "write a number after the last colon"),
        ("mx.test:smtp", BadPort, "write a number"),
        ("mx.test:0", BadPort, "from 1 to 65535"),
        ("mx.test:65536", BadPort, "from 1 to 65535"),
        ("::1", NoBrackets, "[2001:db8::25]:25"),
        ("2001:db8::25:25", NoBrackets, "[2001:db8::25]:25"),
        ("smtp://mx.test:25", Url, "write the host and the port alone"),
        ("unix:run/lmtp", BadPath, "as in unix:/run/dovecot/lmtp"),
        ("unix:", BadPath, "as in unix:/run/dovecot/lmtp"),
        ("unix:/run/\0lmtp", BadPath, "as in unix:/run/dovecot/lmtp"),
    ] {
        let found = text.parse::<Endpoint>().unwrap_err();
        assert_eq!(found, error(text.to_owned()));
        assert!(found.to_string().contains(remedy), "{found}");
    }
    for (text, host, port) in [
        ("mx.test:25", "mx.test", 25),
        ("192.0.2.25:587", "192.0.2.25", 587),
        ("[2001:db8::25]:25", "2001:db8::25", 25),
        ("b\u{fc}cher.test:25", "b\u{fc}cher.test", 25),
    ] {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!((endpoint.host(), endpoint.port(), endpoint.to_string()), (host, port, text.to_owned()));
        assert_eq!(endpoint, Endpoint::from((host, port)));
    }
    let address: SocketAddr = "[::1]:25".parse().unwrap();
    assert_eq!(Endpoint::from(address).to_string(), "[::1]:25");
    let socket: Endpoint = "unix:/run/lmtp".parse().unwrap();
    assert_eq!((socket.host(), socket.port(), socket.to_string()), ("localhost", 0, "unix:/run/lmtp".to_owned()));
    assert_eq!(socket, Endpoint::from(Path::new("/run/lmtp")));
    assert_eq!("unix:25".parse::<Endpoint>().unwrap(), Endpoint::from(("unix", 25)));
    assert_eq!(Endpoint::from(("mx.test", port::SUBMISSION)).to_string(), "mx.test:587");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_error_that_names_it() {
    let options = options(Tls::Off);
    let error = Client::connect("no-such-host.invalid:25", &options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().starts_with("no address of no-such-host.invalid is found: "), "{error}");
    assert!(error.to_string().ends_with("; see that the name is right and that DNS works"), "{error}");

    let error = Client::connect("mx.test", &options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Endpoint(_)) && error.is_permanent(), "{error:?}");

    // A port that was free a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Client::connect(free, &options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp { .. }) && error.to_string().contains(&free.to_string()), "{error}");
}

#[tokio::test]
async fn opportunistic_tls_that_breaks_is_left_out_of_a_second_connection() {
    let server = Scripted::with_tls(tls("mx.test").0, |_, line| match line {
        "STARTTLS" => "220 go\r\n<alert>".to_owned(),
        _ => polite(line, &["STARTTLS"]),
    })
    .await;
    let address = ("127.0.0.1", server.port);
    let mut options = options(Tls::Opportunistic(trusting()));
    let client = Client::connect(address, &options).await.unwrap();
    assert!(!client.is_tls());
    assert_eq!((server.count("<connect>"), server.count("STARTTLS")), (2, 1));
    // Where TLS is demanded there is no second one.
    options.tls = support::Policy::Required.tls(trusting());
    assert!(matches!(Client::connect(address, &options).await, Err(ConnectError::Tls(_))));
    assert_eq!(server.count("<connect>"), 3);
}

#[tokio::test]
async fn a_password_without_demanded_tls_stays_here() {
    let server = Scripted::start(|_, line| polite(line, &["AUTH PLAIN"])).await;
    let mut options = options(Tls::Off);
    options.credentials = Some(Credentials::new("me", "secret").into());
    let error = Client::connect(("127.0.0.1", server.port), &options).await.unwrap_err();
    assert!(error.to_string().starts_with("there is no way to log in: "), "{error}");
    assert_eq!(server.count("AUTH"), 0);
}

#[tokio::test]
async fn a_message_goes_to_addresses_that_are_texts() {
    let script = |_, line: &str| match line {
        "RCPT TO:<gone@d.test>" => "550 5.1.1 No such user\r\n".to_owned(),
        "RCPT TO:<full@d.test>" => "452 4.2.2 Mailbox full\r\n".to_owned(),
        _ => polite(line, &["PIPELINING", "SIZE 1000"]),
    };
    let (stream, heard) = serve(script, None);
    let mut client = connected(stream).await;
    let sent: Sent = client.send("me@s.test", ["you@d.test", "<gone@d.test>", "full@d.test"], TEXT).await.unwrap();
    assert!(!sent.is_complete());
    let failed: Vec<_> = sent.failed().map(|failed| (failed.to_string(), failed.is_permanent())).collect();
    assert_eq!(
        failed,
        [
            ("<gone@d.test>: 550 5.1.1 No such user".to_owned(), true),
            ("<full@d.test>: 452 4.2.2 Mailbox full".to_owned(), false)
        ]
    );
    let first = sent.failed().next().unwrap();
    assert_eq!(first.path.to_string(), "<gone@d.test>");
    assert_eq!(first.reply().map(|reply| reply.code().get()), Some(550));
    assert!(matches!(sent.recipients[0].outcome, RecipientOutcome::Accepted(_)));
    let size = TEXT.len();
    assert_eq!(heard.lines(&["MAIL"])[0], format!("MAIL FROM:<me@s.test> SIZE={size}"));
}

#[tokio::test]
async fn a_message_goes_to_commands_with_parameters() {
    let (stream, heard) = serve(|_, line| polite(line, &["DSN", "SIZE"]), None);
    let mut client = connected(stream).await;
    let mut rcpt: Rcpt = "you@d.test".parse().unwrap();
    rcpt.notify = Some(Notify::NEVER);
    let mail: Mail = Mail { size: Some(7), ..Mail::new(ReversePath::Null) };
    assert!(client.send(&mail, [&rcpt], TEXT).await.unwrap().is_complete());
    let names = vec!["a@d.test".to_owned(), "b@d.test".to_owned()];
    assert!(client.send("<>", &names, TEXT.to_owned()).await.unwrap().is_complete());
    let size = TEXT.len();
    assert_eq!(
        heard.lines(&["MAIL", "RCPT"]),
        [
            "MAIL FROM:<> SIZE=7",
            "RCPT TO:<you@d.test> NOTIFY=NEVER",
            &format!("MAIL FROM:<> SIZE={size}"),
            "RCPT TO:<a@d.test>",
            "RCPT TO:<b@d.test>",
        ]
    );
}

#[tokio::test]
async fn a_recipient_outside_ascii_asks_for_smtputf8() {
    for (offers, outcome) in [(&["SMTPUTF8"][..], 'A'), (&[], 'U')] {
        let (stream, heard) = serve(move |_, line| polite(line, offers), None);
        let mut client = connected(stream).await;
        let sent = client.send("me@s.test", ["d\u{f6}ner@d.test"], TEXT).await.unwrap();
        assert_eq!(support::letters(&sent), outcome.to_string());
        assert_eq!(
            heard.lines(&["MAIL"]),
            if outcome == 'A' { vec!["MAIL FROM:<me@s.test> SMTPUTF8"] } else { vec![] }
        );
    }
}

#[tokio::test]
async fn a_mistake_in_an_address_is_an_error_before_the_server_hears_of_it() {
    let (stream, heard) = serve(|_, line| polite(line, &[]), None);
    let mut client = connected(stream).await;
    for (from, to, words) in [
        ("me", vec!["you@d.test"], "\"me\""),
        ("me@s.test", vec!["you@d.test", "you@@d.test"], "recipient \"you@@d.test\""),
        ("me@s.test", vec!["You <you@d.test>"], "without a display name"),
        ("me@s.test", vec![""], "recipient \"\""),
        ("me@s.test", vec!["you@d.test>\r\nRCPT TO:<other@d.test"], "recipient"),
        ("me@s.test", vec![], "the message has no recipient; name one"),
    ] {
        let error = client.send(from, to.iter(), TEXT).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(matches!(error, SendError::NoRecipient), to.is_empty());
        assert!(error.is_permanent(), "{error}");
    }
    assert!(heard.all().iter().all(|(_, line)| matches!(verb(line), "<connect>" | "EHLO")));
    // The connection is still good.
    assert!(client.send("me@s.test", ["you@d.test"], TEXT).await.unwrap().is_complete());
}

#[tokio::test]
async fn a_conversation_that_breaks_off_is_the_outcome_of_each_recipient() {
    let script = |_, line: &str| if line == "DATA" { "close".to_owned() } else { polite(line, &[]) };
    let (stream, _) = serve(script, None);
    let mut client = connected(stream).await;
    let sent = client.send("me@s.test", ["you@d.test"], TEXT).await.unwrap();
    let failed: Vec<_> = sent.failed().map(|failed| (failed.to_string(), failed.outcome.is_transient())).collect();
    let text = "<you@d.test>: the server closed the connection, while we waited for the reply to DATA".to_owned();
    assert_eq!(failed, [(text, true)]);
    assert!(sent.failed().all(|failed| failed.reply().is_none()) && !sent.in_doubt);
    // Nor does the next message go over it.
    let sent = client.send("me@s.test", ["you@d.test"], TEXT).await.unwrap();
    assert!(!sent.is_complete() && sent.broken.is_some());
}

#[tokio::test]
async fn bare_line_feeds_are_an_error_that_says_so() {
    let (stream, heard) = serve(|_, line| polite(line, &[]), None);
    let mut client = connected(stream).await;
    let sent = client.send("me@s.test", ["you@d.test"], "Subject: x\n\nHello\n").await.unwrap();
    let failed = sent.failed().next().unwrap().to_string();
    assert!(failed.ends_with("bare LF at octet 10 of the content; end each line with CRLF"), "{failed}");
    assert!(heard.of(&["<end>"]).is_empty());
}

#[tokio::test]
async fn a_recipient_that_needs_smtputf8_does_not_touch_the_others() {
    for (offer, letters, mail) in [("SMTPUTF8", "AA", " SMTPUTF8"), ("PIPELINING", "UA", "")] {
        let (stream, heard) = serve(move |_, line| polite(line, &[offer]), None);
        let mut client = connected(stream).await;
        let sent = client.send("me@s.test", ["j\u{f6}@d.test", "you@d.test"], TEXT).await.unwrap();
        assert_eq!(support::letters(&sent), letters, "{sent:?}");
        let line = &heard.lines(&["MAIL"])[0];
        assert_eq!(line, &format!("MAIL FROM:<me@s.test>{mail}"));
    }
}

#[tokio::test]
async fn content_that_must_not_leave_is_permanent_and_names_the_remedy() {
    for (content, text) in [("a\nb", "bare LF at octet 1"), ("a\rb", "bare CR at octet 1"), ("a\0", "NUL at octet 1")] {
        let (stream, _) = serve(|_, line| polite(line, &["PIPELINING"]), None);
        let mut client = connected(stream).await;
        let sent = client.send("me@s.test", ["you@d.test"], content).await.unwrap();
        let outcome = &sent.recipients[0].outcome;
        assert!(outcome.is_permanent() && outcome.to_string().contains(text), "{outcome}");
        assert!(sent.failed().next().unwrap().to_string().contains(text));
    }
    // The same text with lines that end in CRLF.
    let (stream, _) = serve(|_, line| polite(line, &["PIPELINING"]), None);
    let sent = connected(stream).await.send("me@s.test", ["you@d.test"], Text::new("a\nb\n")).await.unwrap();
    assert!(sent.is_complete(), "{sent:?}");
}

#[tokio::test]
async fn content_of_another_length_than_it_gave_is_not_sent() {
    for (offer, length) in [("PIPELINING", 6), ("PIPELINING", 600), ("CHUNKING", 6), ("CHUNKING", 600)] {
        let (stream, _) = serve(move |_, line| polite(line, &[offer]), None);
        let content = Reader::new(TEXT.as_bytes()).with_length(length);
        let sent = connected(stream).await.send("me@s.test", ["you@d.test"], content).await.unwrap();
        assert!(!sent.is_complete() && !sent.in_doubt, "{offer} {length}: {sent:?}");
        assert!(matches!(sent.broken.as_deref(), Some(ClientError::Content(_))), "{offer} {length}: {sent:?}");
    }
}

#[tokio::test]
async fn a_source_without_octets_and_without_end_can_be_given_up() {
    let (stream, _) = serve(|_, line| polite(line, &["PIPELINING"]), None);
    let empty = futures_util::stream::iter(std::iter::repeat_with(|| Ok::<_, std::io::Error>("")));
    let mut client = connected(stream).await;
    let sending = client.send("me@s.test", ["you@d.test"], Streamed::new(empty));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), sending).await.is_err());
}

#[tokio::test]
async fn an_empty_text_is_no_sender() {
    let (stream, heard) = serve(|_, line| polite(line, &["PIPELINING"]), None);
    let mut client = connected(stream).await;
    assert!(matches!(client.send("", ["you@d.test"], TEXT).await, Err(SendError::Address(_))));
    assert!(client.send("<>", ["you@d.test"], TEXT).await.unwrap().is_complete());
    assert_eq!(heard.lines(&["MAIL"]).len(), 1);
}

/// Only the domain is outside ASCII, and has A-labels.
#[cfg(feature = "idna")]
#[tokio::test]
async fn a_domain_goes_in_a_labels_to_a_server_without_smtputf8() {
    for (offers, path) in [(&[][..], "xn--bcher-kva.test"), (&["SMTPUTF8"], "b\u{fc}cher.test")] {
        let (stream, heard) = serve(move |_, line| polite(line, offers), None);
        let mut client = connected(stream).await;
        let to = ["you@b\u{fc}cher.test", "other@d.test"];
        let sent = client.send("me@s.test", to, TEXT).await.unwrap();
        assert!(sent.is_complete(), "{sent:?}");
        assert_eq!(sent.recipients[0].path.to_string(), "<you@b\u{fc}cher.test>");
        let lines = heard.lines(&["MAIL", "RCPT"]);
        assert_eq!(lines[1..], [format!("RCPT TO:<you@{path}>"), "RCPT TO:<other@d.test>".to_owned()]);
    }
}

/// A dropped future leaves a transaction behind.
#[tokio::test(start_paused = true)]
async fn a_client_whose_message_was_dropped_is_of_no_use() {
    for silent_at in ["MAIL", "RCPT", "DATA", "<end>"] {
        let script = move |_, line: &str| if line.starts_with(silent_at) { String::new() } else { polite(line, &[]) };
        let (stream, _) = serve(script, None);
        let mut client = connected(stream).await;
        assert!(client.is_usable());
        let send = client.send("me@s.test", ["you@d.test"], TEXT);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), send).await.is_err());
        assert!(!client.is_usable(), "{silent_at}");
    }
}
