//! What a TLS policy asks for is there before any mail is named, or none is.

use std::sync::Arc;

use crate::support::{Policy, options, send, trusting};
use bytes::Bytes;
use posthaste_client::{
    Client, ConnectError,
    rustls::{ClientConfig, ServerConfig},
    session::sasl::{ChooseError, Credentials},
    tls::{ClientCertificate, Pem, verified_by},
    wire::Secret,
};
use posthaste_testkit::{
    pki::{Authority, self_signed, tls},
    script::{Place, Script, polite, serve, verb},
};

/// What a server does about STARTTLS.
const NOT_OFFERED: &str = "";
const LATER: &str = "454 4.7.0 later\r\n";
const NEVER: &str = "554 5.7.0 never\r\n";
const GONE: &str = "421 4.3.2 going\r\n";
const CLOSED: &str = "close";
const SILENT: &str = "<silence>";
const NO_REPLY: &str = "what?\r\n";
const BROKEN: &str = "220 go\r\n<garbage>";
const REFUSED: &str = "220 go\r\n<alert>";
const RESIDUE: &str = "220 go\r\n250-mx.test\r\n250 AUTH PLAIN\r\n";
const GOOD: &str = "220 go\r\n<tls>";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Mail goes in clear.
    Clear,
    /// Mail goes within TLS.
    Tls,
    /// No mail goes on this connection, and one without TLS may do.
    ClearLater(&'static str),
    /// No mail goes.
    Fails(&'static str),
}

fn is_demanded(policy: Policy) -> bool {
    policy.tls(trusting()).is_demanded()
}

/// A client that trusts this authority alone.
fn trusts(authority: &Authority) -> Arc<ClientConfig> {
    verified_by(authority.roots().into()).unwrap()
}

/// A certificate of its own changes nothing of what the server has to prove.
#[tokio::test(start_paused = true)]
async fn a_client_with_a_certificate_judges_servers_as_before() {
    let authority = Authority::new("one");
    let [own, key] = authority.pem(&["client.test"]);
    let own = ClientCertificate::new(&Pem::from(own.as_bytes()), &Pem::from(key.as_bytes())).unwrap();
    for policy in [Policy::Off, Policy::Opportunistic, Policy::Required, Policy::Verified] {
        for server in
            [authority.server(&["mx.test"], 2020, 2120), Authority::new("other").server(&["mx.test"], 2020, 2120)]
        {
            let tls = policy.tls(trusts(&authority));
            let shown = tls.showing(&own);
            assert_eq!((shown.is_demanded(), shown.is_verified()), (tls.is_demanded(), tls.is_verified()));
            let mut ends = Vec::new();
            for tls in [tls, shown] {
                let script = |_, line: &str| match line {
                    "STARTTLS" => GOOD.to_owned(),
                    _ => polite(line, &["STARTTLS"]),
                };
                let (stream, _) = serve(script, Some(Arc::clone(&server)));
                let started = Client::start(stream, "mx.test", &options(tls)).await;
                ends.push(started.map(|client| client.is_tls()).map_err(|error| error.to_string()));
            }
            assert_eq!(ends[0], ends[1], "{policy:?}");
        }
    }
}

/// What happens, and what of it the server hears.
async fn end(
    policy: Policy,
    config: &Arc<ClientConfig>,
    script: impl Script,
    server: &Arc<ServerConfig>,
    words: &'static str,
) -> End {
    let (stream, heard) = serve(script, Some(Arc::clone(server)));
    let started = Client::start(stream, "mx.test", &options(policy.tls(Arc::clone(config)))).await;
    let end = match &started {
        Ok(client) if client.is_tls() => End::Tls,
        Ok(_) => End::Clear,
        Err(error) => {
            assert!(error.to_string().contains(words) && !words.is_empty(), "{policy:?} {words:?}: {error}");
            assert!(!error.suggests_clear() || !is_demanded(policy), "{policy:?}: {error}");
            if error.suggests_clear() { End::ClearLater(words) } else { End::Fails(words) }
        }
    };
    if let Ok(mut client) = started {
        let _ = send(&mut client, 1, Bytes::from_static(b"x\r\n")).await;
    }
    let named = heard.of(&["MAIL", "RCPT", "AUTH"]);
    let may = matches!(end, End::Clear | End::Tls);
    assert!(named.is_empty() != may && named.iter().all(|(place, _)| place.tls == (end == End::Tls)), "{named:?}");
    // Inside TLS it says EHLO again: what was learnt in clear is forgotten.
    assert!(end != End::Tls || heard.of(&["EHLO"]).last().is_some_and(|(place, _)| place.tls));
    end
}

/// What a server does with STARTTLS, whatever its certificate: under no policy, an opportunistic
/// one, and one that demands TLS.
#[tokio::test(start_paused = true)]
async fn every_tls_policy_meets_every_answer_to_starttls() {
    use End::{Clear, ClearLater, Fails, Tls};
    use Policy::{Off, Opportunistic, Required, Verified};
    let (server, client) = tls("mx.test");
    for (starttls, optional, demanded) in [
        (NOT_OFFERED, Clear, Fails("does not offer STARTTLS, which is required")),
        (LATER, Clear, Fails("refused STARTTLS: 454 4.7.0 later")),
        (NEVER, Clear, Fails("refused STARTTLS: 554 5.7.0 never")),
        (GONE, ClearLater("421 4.3.2 going"), Fails("421 4.3.2 going")),
        (CLOSED, ClearLater("closed the connection"), Fails("closed the connection")),
        (SILENT, ClearLater("silent"), Fails("silent")),
        (NO_REPLY, ClearLater("reply"), Fails("reply")),
        (BROKEN, ClearLater("is no TLS"), Fails("is no TLS")),
        (REFUSED, ClearLater("the server refused it"), Fails("the server refused it")),
        (RESIDUE, ClearLater("STARTTLS"), Fails("STARTTLS")),
        (GOOD, Tls, Tls),
    ] {
        for (policy, expected) in [(Off, Clear), (Opportunistic, optional), (Required, demanded), (Verified, demanded)]
        {
            let script = move |_, line: &str| match line {
                "STARTTLS" => starttls.replace(SILENT, ""),
                _ => polite(line, if starttls.is_empty() { &[] } else { &["STARTTLS"] }),
            };
            let words = match expected {
                ClearLater(words) | Fails(words) => words,
                Clear | Tls => "",
            };
            assert_eq!(end(policy, &client, script, &server, words).await, expected, "{policy:?} {starttls:?}");
        }
    }
}

/// What a server does with EHLO within TLS.
#[tokio::test(start_paused = true)]
async fn opportunistic_tls_that_breaks_before_it_is_of_use_suggests_clear() {
    use End::{ClearLater, Fails};
    let (server, client) = tls("mx.test");
    for (said, words) in [
        ("close", "closed connection"),
        ("", "silent"),
        ("421 4.3.2 going\r\n", "421 4.3.2 going"),
        ("450 4.3.2 not now\r\n", "450 4.3.2 not now"),
        ("550 5.3.2 never\r\n", "550 5.3.2 never"),
        ("what?\r\n", "reply"),
    ] {
        for policy in [Policy::Opportunistic, Policy::Required, Policy::Verified] {
            let script = move |place: Place, line: &str| match line {
                line if place.tls && (line.starts_with("EHLO") || line.starts_with("HELO")) => said.to_owned(),
                _ => polite(line, &["STARTTLS"]),
            };
            let expected = if is_demanded(policy) { Fails(words) } else { ClearLater(words) };
            assert_eq!(end(policy, &client, script, &server, words).await, expected, "{policy:?} {said:?}");
        }
    }
}

/// What fails before STARTTLS, or without it, is no fault of TLS.
#[tokio::test]
async fn failures_outside_tls_do_not_suggest_clear() {
    let (server, client) = tls("mx.test");
    for (at, said, offers) in [
        ("<connect>", "421 4.3.2 going\r\n", true),
        ("<connect>", "close", true),
        ("EHLO", "421 4.3.2 going\r\n", true),
        ("EHLO", "close", true),
        ("EHLO", "close", false),
    ] {
        let script = move |_, line: &str| match line {
            line if verb(line) == at => said.to_owned(),
            _ => polite(line, if offers { &["STARTTLS"] } else { &[] }),
        };
        let (stream, _) = serve(script, Some(Arc::clone(&server)));
        let options = options(Policy::Opportunistic.tls(Arc::clone(&client)));
        let error = Client::start(stream, "mx.test", &options).await.unwrap_err();
        assert!(!error.suggests_clear(), "{at} {said:?}: {error}");
    }
}

/// What a certificate is worth, under a configuration that verifies and one that does not.
#[tokio::test]
async fn every_tls_policy_meets_every_certificate() {
    use End::{Clear, Fails, Tls};
    use Policy::{Off, Opportunistic, Required, Verified};
    let (authority, other) = (Authority::new("one"), Authority::new("two"));
    let (verifying, trusting) = (trusts(&authority), trusting());
    for (server, verdict) in [
        (authority.server(&["mx.test"], 2020, 2120), Tls),
        (authority.server(&["other.test", "MX.TEST"], 2020, 2120), Tls),
        (authority.server(&["mx.test"], 2020, 2021), Fails("the certificate has expired")),
        (authority.server(&["mx.test"], 2119, 2120), Fails("the certificate is not valid yet")),
        (authority.server(&["other.test"], 2020, 2120), Fails("the certificate is for another name")),
        (authority.server(&["*.mx.test"], 2020, 2120), Fails("the certificate is for another name")),
        (authority.server(&["127.0.0.1"], 2020, 2120), Fails("the certificate is for another name")),
        (authority.server(&[], 2020, 2120), Fails("the certificate is for another name")),
        (other.server(&["mx.test"], 2020, 2120), Fails("signed by no authority that is trusted here")),
        (self_signed("mx.test", false), Fails("signed by no authority that is trusted here")),
        (self_signed("mx.test", true), Fails("an authority's own and not a server's")),
    ] {
        let words = if let Fails(words) = verdict { words } else { "" };
        for (policy, config, expected) in [
            (Off, &trusting, Clear),
            (Opportunistic, &trusting, Tls),
            (Required, &trusting, Tls),
            (Verified, &verifying, verdict),
            (Required, &verifying, verdict),
        ] {
            let script = |_, line: &str| polite(line, &["STARTTLS"]);
            assert_eq!(end(policy, config, script, &server, words).await, expected, "{policy:?} {verdict:?}");
        }
    }
}

/// Names that the DNS has and that a certificate can, or cannot, be for.
#[tokio::test]
async fn a_host_whose_name_no_certificate_can_be_for_gets_its_mail_where_tls_is_optional() {
    let authority = Authority::new("one");
    for (host, of_certificate) in [
        ("mx.xn--bcher-kva.test", Some("mx.xn--bcher-kva.test")),
        ("mx.b\u{fc}cher.test", Some("mx.xn--bcher-kva.test")),
        ("MX.test", Some("mx.test")),
        ("mail_1.one.test", Some("mail_1.one.test")),
        ("xn--0.test", Some("xn--0.test")),
        ("mx1", Some("mx1")),
        ("4.mx7", Some("4.mx7")),
        ("[127.0.0.1]", Some("127.0.0.1")),
        ("127.0.0.1", Some("127.0.0.1")),
        ("[IPv6:::1]", Some("::1")),
        ("[ipv6:::1]", Some("::1")),
        ("mail.123", None),
        ("mail.0x1f", None),
        ("-mx.test", None),
        ("mx-.test", None),
        ("a\\032b.test", None),
        (&format!("{}.test", "a".repeat(64)), None),
        ("[x:y]", None),
        ("", None),
    ] {
        if !host.is_ascii() && cfg!(not(feature = "idna")) {
            continue;
        }
        let server = authority.server(&[of_certificate.unwrap_or("mx.test")], 2020, 2120);
        let start = |policy: Policy, config| {
            let (stream, _) = serve(|_, line| polite(line, &["STARTTLS"]), Some(Arc::clone(&server)));
            async move { Client::start(stream, host, &options(policy.tls(config))).await }
        };
        let optional = start(Policy::Opportunistic, trusting()).await.unwrap();
        assert_eq!(optional.is_tls(), of_certificate.is_some(), "{host}");
        for (policy, config) in [(Policy::Required, trusting()), (Policy::Verified, trusts(&authority))] {
            let demanded = start(policy, config).await;
            match (&demanded, of_certificate) {
                (Ok(client), Some(_)) => assert!(client.is_tls(), "{host}"),
                (Err(error @ ConnectError::TlsName(_)), None) => {
                    assert!(error.to_string().contains("no certificate can be for the name"), "{error}");
                }
                _ => panic!("{host}: {demanded:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_no_good() {
    let (server, client) = tls("other.test");
    let (stream, heard) = serve(|_, line| polite(line, &["STARTTLS"]), Some(server));
    let started = Client::start(stream, "mx.test", &options(Policy::Required.tls(client))).await;
    assert!(matches!(started, Err(ConnectError::Tls(_))));
    assert!(heard.of(&["MAIL", "AUTH"]).is_empty());
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
    let client = Client::start(ours, "mx.test", &options(Policy::Implicit.tls(client))).await.unwrap();
    assert!(client.is_tls());
    drop(accept.await.unwrap());

    // A server that greets in clear.
    let (_, config) = tls("mx.test");
    let (stream, heard) = serve(|_, line| polite(line, &[]), None);
    let started = Client::start(stream, "mx.test", &options(Policy::Implicit.tls(config))).await;
    assert!(matches!(started, Err(ConnectError::Tls(_))));
    assert!(heard.of(&["EHLO", "HELO", "MAIL"]).is_empty());
}

#[tokio::test]
async fn credentials_leave_only_where_tls_is_demanded() {
    let (server, config) = tls("mx.test");
    let credentials = Credentials {
        authorization_identity: None,
        authentication_identity: "me".to_owned(),
        password: Secret::new("secret".to_owned()),
    };
    for (policy, starttls, authenticates) in [
        (Policy::Off, GOOD, false),
        (Policy::Opportunistic, LATER, false),
        // An attacker in between could have put a certificate of his own there.
        (Policy::Opportunistic, GOOD, false),
        // Only a proof that is not the password itself would leave, which this server does not
        // take.
        (Policy::Required, GOOD, false),
        (Policy::Verified, GOOD, true),
    ] {
        // In clear the server offers AUTH too, as an attacker in between might.
        let script = move |_, line: &str| match line {
            "STARTTLS" => starttls.to_owned(),
            _ => polite(line, &["STARTTLS", "AUTH PLAIN LOGIN"]),
        };
        let (stream, heard) = serve(script, Some(Arc::clone(&server)));
        let mut options = options(policy.tls(Arc::clone(&config)));
        options.credentials = Some(credentials.clone().into());
        let started = Client::start(stream, "mx.test", &options).await;
        let said = heard.of(&["AUTH"]);
        assert_eq!((started.is_ok(), said.len()), (authenticates, usize::from(authenticates)), "{policy:?}");
        assert!(said.iter().all(|(place, _)| place.tls));
        if let Err(error) = started {
            assert!(matches!(error, ConnectError::AuthUnavailable(ChooseError::Unprotected)));
        }
    }
}

#[tokio::test]
async fn a_server_without_ehlo_gets_helo_and_no_way_around_tls() {
    let script = |_, line: &str| match line {
        line if line.starts_with("EHLO") => "500 what?\r\n".to_owned(),
        _ => polite(line, &[]),
    };
    let (stream, heard) = serve(script, None);
    assert!(Client::start(stream, "mx.test", &options(posthaste_client::Tls::Off)).await.is_ok());
    assert_eq!(heard.of(&["EHLO", "HELO"]).len(), 2);
    let (stream, heard) = serve(script, None);
    let (_, config) = tls("mx.test");
    let started = Client::start(stream, "mx.test", &options(Policy::Required.tls(config))).await;
    assert!(matches!(started, Err(ConnectError::TlsUnavailable)));
    assert!(heard.of(&["MAIL"]).is_empty());
}
