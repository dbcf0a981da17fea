//! What a TLS policy asks for is there before any mail is named, or none is.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use posthaste_client::{
    Client, ConnectError, Stage, TlsPolicy,
    session::sasl::{ChooseError, Credentials},
    wire::Secret,
};
use support::{mail, of, options, polite, rcpts, serve, tls};

/// What a server does about STARTTLS.
const NOT_OFFERED: &str = "";
const LATER: &str = "454 4.7.0 later\r\n";
const NEVER: &str = "554 5.7.0 never\r\n";
const GONE: &str = "421 4.3.2 going\r\n";
const BROKEN: &str = "220 go\r\n<garbage>";
const RESIDUE: &str = "220 go\r\n250-mx.test\r\n250 AUTH PLAIN\r\n";
const GOOD: &str = "220 go\r\n<tls>";

#[derive(Debug, PartialEq, Eq)]
enum End {
    Clear,
    Tls,
    Unavailable,
    Refused,
    /// Connect again without TLS, if the policy is opportunistic.
    Handshake,
    Conversation,
}

#[tokio::test]
async fn every_policy_against_every_server() {
    use End::{Clear, Conversation, Handshake, Refused, Tls, Unavailable};
    use TlsPolicy::{Off, Opportunistic, Required};
    let (server, client) = tls("mx.test");
    for (policy, starttls, expected) in [
        (Off, NOT_OFFERED, Clear),
        (Off, GOOD, Clear),
        (Opportunistic, NOT_OFFERED, Clear),
        (Opportunistic, LATER, Clear),
        (Opportunistic, NEVER, Clear),
        (Opportunistic, GONE, Refused),
        (Opportunistic, BROKEN, Handshake),
        (Opportunistic, RESIDUE, Conversation),
        (Opportunistic, GOOD, Tls),
        (Required, NOT_OFFERED, Unavailable),
        (Required, LATER, Refused),
        (Required, NEVER, Refused),
        (Required, GONE, Refused),
        (Required, BROKEN, Handshake),
        (Required, RESIDUE, Conversation),
        (Required, GOOD, Tls),
    ] {
        let script = move |_, line: &str| match line {
            "STARTTLS" => starttls.to_owned(),
            _ => polite(line, if starttls.is_empty() { &[] } else { &["STARTTLS"] }),
        };
        let (stream, heard) = serve(script, Some(Arc::clone(&server)));
        let started = Client::start(stream, "mx.test", &options(policy, Some(Arc::clone(&client)))).await;
        let end = match &started {
            Ok(client) if client.is_tls() => Tls,
            Ok(_) => Clear,
            Err(ConnectError::TlsUnavailable) => Unavailable,
            Err(ConnectError::Refused { stage: Stage::StartTls, .. }) => Refused,
            Err(ConnectError::Tls(_)) => Handshake,
            Err(ConnectError::Conversation(_)) => Conversation,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(end, expected, "{policy:?} {starttls:?}");
        if let Ok(mut client) = started {
            let recipients = rcpts(&["a".to_owned()]);
            let recipients: Vec<_> = recipients.iter().map(|rcpt| rcpt.borrowed()).collect();
            client.transact(mail("MAIL FROM:<>"), &recipients, Bytes::from_static(b"x\r\n")).await;
        }
        let named = of(&heard, &["MAIL", "RCPT", "AUTH"]);
        let may = matches!(expected, Clear | Tls);
        assert!(named.is_empty() != may && named.iter().all(|(inside, _)| *inside == (expected == Tls)), "{named:?}");
        // Inside TLS it says EHLO again: what was learnt in clear is forgotten.
        assert!(expected != Tls || of(&heard, &["EHLO"]).last().is_some_and(|(inside, _)| *inside));
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_no_good() {
    let (server, client) = tls("other.test");
    let (stream, heard) = serve(|_, line| polite(line, &["STARTTLS"]), Some(server));
    let started = Client::start(stream, "mx.test", &options(TlsPolicy::Required, Some(client))).await;
    assert!(matches!(started, Err(ConnectError::Tls(_))));
    assert!(of(&heard, &["MAIL", "AUTH"]).is_empty());
}

#[tokio::test]
async fn implicit_tls_says_nothing_in_clear() {
    let (server, client) = tls("mx.test");
    let (ours, theirs) = tokio::io::duplex(64 * 1_024);
    let accept = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio_rustls::TlsAcceptor::from(server).accept(theirs).await.unwrap();
        stream.write_all(b"220 mx.test\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        stream.write_all(b"250 ok\r\n").await.unwrap();
        stream
    });
    let client = Client::start(ours, "mx.test", &options(TlsPolicy::Implicit, Some(client))).await.unwrap();
    assert!(client.is_tls());
    drop(accept.await.unwrap());

    // A server that greets in clear.
    let (_, config) = tls("mx.test");
    let (stream, heard) = serve(|_, line| polite(line, &[]), None);
    let started = Client::start(stream, "mx.test", &options(TlsPolicy::Implicit, Some(config))).await;
    assert!(matches!(started, Err(ConnectError::Tls(_))));
    assert!(of(&heard, &["EHLO", "HELO", "MAIL"]).is_empty());
}

#[tokio::test]
async fn credentials_leave_only_where_tls_is_demanded() {
    let (server, config) = tls("mx.test");
    let credentials = Credentials {
        authorisation_identity: None,
        authentication_identity: "me".to_owned(),
        password: Secret::new("secret".to_owned()),
    };
    for (policy, starttls, authenticates) in [
        (TlsPolicy::Off, GOOD, false),
        (TlsPolicy::Opportunistic, LATER, false),
        // Whoever is in between could have put a certificate of his own there.
        (TlsPolicy::Opportunistic, GOOD, false),
        (TlsPolicy::Required, GOOD, true),
    ] {
        // In clear it offers AUTH too, as somebody in between might.
        let script = move |_, line: &str| match line {
            "STARTTLS" => starttls.to_owned(),
            _ => polite(line, &["STARTTLS", "AUTH PLAIN LOGIN"]),
        };
        let (stream, heard) = serve(script, Some(Arc::clone(&server)));
        let mut options = options(policy, Some(Arc::clone(&config)));
        options.credentials = Some(credentials.clone().into());
        let started = Client::start(stream, "mx.test", &options).await;
        let said = of(&heard, &["AUTH"]);
        assert_eq!((started.is_ok(), said.len()), (authenticates, usize::from(authenticates)), "{policy:?}");
        assert!(said.iter().all(|(inside, _)| *inside));
        if let Err(error) = started {
            assert!(matches!(error, ConnectError::AuthUnavailable(ChooseError::Unprotected)));
        }
    }
}

#[tokio::test]
async fn a_server_without_ehlo_gets_helo_and_no_way_around_tls() {
    let script = |_: bool, line: &str| match line {
        line if line.starts_with("EHLO") => "500 what?\r\n".to_owned(),
        _ => polite(line, &[]),
    };
    let (stream, heard) = serve(script, None);
    assert!(Client::start(stream, "mx.test", &options(TlsPolicy::Off, None)).await.is_ok());
    assert_eq!(of(&heard, &["EHLO", "HELO"]).len(), 2);
    let (stream, heard) = serve(script, None);
    let (_, config) = tls("mx.test");
    let started = Client::start(stream, "mx.test", &options(TlsPolicy::Required, Some(config))).await;
    assert!(matches!(started, Err(ConnectError::TlsUnavailable)));
    assert!(of(&heard, &["MAIL"]).is_empty());
}
