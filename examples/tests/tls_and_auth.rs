//! STARTTLS, implicit TLS and AUTH, with the clients that people use.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Output, Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste::client::session::sasl::{Credentials, Strength};
use posthaste::client::{Client, ClientOptions, Identity, Tls, tls::any_certificate};
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use support::client::Smtp;
use support::relay::{Config, PASSWORD, Relay, SECOND_PASSWORD, SECOND_USER, USER, program};
use support::sink::Sink;
use support::{json, python, token, tool};

const ACCOUNTS: [(&str, &str); 2] = [(USER, PASSWORD), (SECOND_USER, SECOND_PASSWORD)];

fn relay() -> (Sink, Relay) {
    let sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], relay_from: "[]", tls: true, ..Config::default() });
    (sink, relay)
}

#[test]
fn smtplib_submits_over_starttls_and_implicit_tls() {
    let (mut sink, relay) = relay();
    for (tls, port) in [("starttls", relay.submission), ("implicit", relay.implicit)] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let token = token();
            // The one has its password in the configuration, the other a verifier.
            let (user, password) = ACCOUNTS[usize::from(mechanism == "LOGIN")];
            let answer = send(
                &relay,
                &token,
                &json!({"tls": tls, "port": port, "user": user, "password": password, "mechanism": mechanism}),
            );
            assert_eq!(answer["refused"], json!({}), "{mechanism} over {tls}: {answer}");
            let taken = sink.one(&token);
            assert_eq!(taken.recipients[0].0, format!("rcp-{token}@elsewhere.test"));
            let text = String::from_utf8_lossy(&taken.data).into_owned();
            assert!(text.contains("ESMTPSA"), "the Received field says how it came:\n{text}");
            assert!(!text.contains(password));
        }
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let (_sink, relay) = relay();
    for (user, password) in [
        (USER, "wrong"),
        ("nobody", PASSWORD),
        (USER, "s3cret"),
        ("TESTER", PASSWORD),
        (SECOND_USER, PASSWORD),
        (USER, SECOND_PASSWORD),
    ] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let order = json!({"tls": "starttls", "port": relay.submission, "user": user, "password": password, "mechanism": mechanism});
            let answer = send(&relay, &token(), &order);
            assert_eq!(answer["code"], 535, "{user} with {password:?} by {mechanism}: {answer}");
        }
    }
    assert!(!relay.log().contains(PASSWORD), "no password is ever logged");
}

#[test]
fn submission_wants_a_login() {
    let (_sink, relay) = relay();
    for (tls, port) in [("starttls", relay.submission), ("implicit", relay.implicit)] {
        let answer = send(&relay, &token(), &json!({"tls": tls, "port": port}));
        assert_eq!(answer["code"], 530, "{tls}: {answer}");
    }
}

#[test]
fn no_password_is_asked_for_in_clear() {
    let (_sink, relay) = relay();
    let mut client = Smtp::connect(relay.submission);
    let offered = client.expect("EHLO client.test", 250).text.to_ascii_uppercase();
    assert!(offered.contains("STARTTLS"), "{offered}");
    assert!(!offered.contains("AUTH"), "{offered}");
    let reply = client.command("AUTH PLAIN AHRlc3RlcgBzM2NyZXQgcGFzcw==");
    assert!((500..600).contains(&reply.code), "{}", client.log());
}

#[test]
fn swaks_submits_over_starttls_and_implicit_tls() {
    let (mut sink, relay) = relay();
    for (option, port) in [("--tls", relay.submission), ("--tls-on-connect", relay.implicit)] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let token = token();
            let mut swaks = tool("swaks");
            swaks.args([option, "--server", "127.0.0.1", "--port", &port.to_string(), "--helo", "swaks.test"]);
            swaks.args(["--from", &format!("snd-{token}@sender.test"), "--to", &format!("rcp-{token}@elsewhere.test")]);
            swaks.args(["--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD, "--body", &token]);
            support::run(&mut swaks);
            sink.one(&token);
        }
    }
}

/// GNU SASL's SCRAM-SHA-256 in a client for mail.
#[test]
fn msmtp_submits_with_scram() {
    let (mut sink, relay) = relay();
    for (starttls, port) in [("on", relay.submission), ("off", relay.implicit)] {
        for (user, password) in ACCOUNTS.into_iter().chain([(USER, "wrong"), ("nobody", PASSWORD)]) {
            let token = token();
            let mut msmtp = tool("msmtp");
            msmtp.args(["--host=127.0.0.1", &format!("--port={port}"), "--domain=client.test", "--auth=scram-sha-256"]);
            msmtp.args(["--tls=on", &format!("--tls-starttls={starttls}"), "--tls-certcheck=off"]);
            msmtp.args([&format!("--user={user}"), &format!("--passwordeval=echo '{password}'")]);
            msmtp.args([&format!("--from=snd-{token}@sender.test"), &format!("rcp-{token}@elsewhere.test")]);
            let mut child = msmtp.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("was found");
            let message = format!("Subject: {token}\r\n\r\nHello\r\n");
            // It may have given up already.
            let _ = child.stdin.take().expect("asked for above").write_all(message.as_bytes());
            let output = child.wait_with_output().expect("the child is ours");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            if ACCOUNTS.contains(&(user, password)) {
                assert!(output.status.success(), "{user}: {errors}");
                // It has neither, and gets both.
                let taken = String::from_utf8_lossy(&sink.one(&token).data).into_owned();
                let (header, _) = taken.split_once("\r\n\r\n").expect("the header ends");
                assert_eq!(header.matches("\r\nDate: ").count(), 1, "{header}");
                assert_eq!(header.matches("\r\nMessage-ID: <").count(), 1, "{header}");
            } else {
                assert!(errors.contains("535 5.7.8"), "{user}: {errors}");
            }
        }
    }
}

/// OpenSSL says what the connection is, and GNU SASL proves it.
#[test]
fn scram_of_gsasl_is_bound_to_tls_of_openssl() {
    let (_sink, relay) = relay();
    for (mechanism, (user, password), binding, code) in [
        ("SCRAM-SHA-256-PLUS", ACCOUNTS[0], "right", 235),
        ("SCRAM-SHA-256-PLUS", ACCOUNTS[1], "right", 235),
        ("SCRAM-SHA-256-PLUS", (USER, "wrong"), "right", 535),
        ("SCRAM-SHA-256-PLUS", ("nobody", PASSWORD), "right", 535),
        ("SCRAM-SHA-256-PLUS", ACCOUNTS[0], "wrong", 535),
        ("SCRAM-SHA-256", ACCOUNTS[0], "none", 235),
        ("SCRAM-SHA-256", (USER, "wrong"), "none", 535),
    ] {
        let order = json!({"port": relay.implicit, "user": user, "password": password, "mechanism": mechanism, "binding": binding});
        let answer = ask("peers/scram.py", &order);
        assert_eq!(answer["code"], code, "{order}: {answer}");
        assert_eq!(answer["offered"], "PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS");
    }
    assert!(ACCOUNTS.iter().all(|(_, password)| !relay.log().contains(password)), "no password is ever logged");
}

#[tokio::test]
async fn our_own_client_submits_with_a_bound_login() {
    let (mut sink, relay) = relay();
    // The certificate has signed itself; the proofs need none.
    let any = || Identity::unverified().expect("the features choose a provider");
    for (tls, port) in [(Tls::Required(any()), relay.submission), (Tls::Implicit(any()), relay.implicit)] {
        for (user, password) in ACCOUNTS {
            let token = token();
            let mut options = ClientOptions::new("client.test".parse().expect("a name"));
            options.tls = tls.clone();
            options.weakest_login = Strength::Bound;
            options.credentials = Some(Credentials::new(user, password).into());
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the relay listens");
            let mut client = Client::start(stream, "localhost", &options).await.expect("the password is right");
            let (from, to) = (format!("snd-{token}@sender.test"), format!("rcp-{token}@elsewhere.test"));
            let content = bytes::Bytes::from(format!("Subject: {token}\r\n\r\nHello\r\n"));
            let sent = client.send(from, [to], content).await.expect("they are addresses");
            assert!(sent.is_complete(), "{user}");
            client.quit().await;
            sink.one(&token);
        }
    }
}

/// Clients cannot find out which names exist: each name has a salt of its own, before and after a
/// restart, and as many iterations.
#[test]
fn every_name_has_a_salt_and_keeps_it() {
    let (_sink, mut relay) = relay();
    let names = [USER, SECOND_USER, "nobody", "somebody"];
    let before = names.map(|name| salt(&relay, name));
    assert!(before.iter().all(|salt| salt.ends_with(",i=4096") && salt.len() == before[0].len()), "{before:?}");
    let different: std::collections::BTreeSet<_> = before.iter().collect();
    assert_eq!(different.len(), names.len());
    relay.kill();
    relay.start_again();
    assert_eq!(names.map(|name| salt(&relay, name)), before);
}

/// `s=` and `i=` of a server's first message.
fn salt(relay: &Relay, name: &str) -> String {
    let config = any_certificate().expect("the features choose a provider");
    let name_of_server = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(config, name_of_server).expect("the configuration is whole");
    let stream = TcpStream::connect(("127.0.0.1", relay.implicit)).expect("the relay listens");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("it is not zero");
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut ask = |line: &str| {
        stream.get_mut().write_all(line.as_bytes()).expect("the relay reads");
        loop {
            let mut reply = String::new();
            stream.read_line(&mut reply).expect("the relay answers");
            if reply.get(3..4) != Some("-") {
                return reply;
            }
        }
    };
    ask("");
    ask("EHLO client.test\r\n");
    let first = STANDARD.encode(format!("n,,n={name},r=client"));
    let challenge = ask(&format!("AUTH SCRAM-SHA-256 {first}\r\n"));
    let text = challenge.strip_prefix("334 ").unwrap_or_else(|| panic!("{challenge}"));
    let text = String::from_utf8(STANDARD.decode(text.trim()).expect("base64")).expect("SCRAM is text");
    text.split_once(",s=").expect("there is a salt").1.to_owned()
}

/// What it prints is taken, checks its password, and is another one each time.
#[test]
fn a_verifier_is_made_of_a_password() {
    let verifier = |arguments: &[&str], password: &str| {
        let mut child = program()
            .arg("verifier")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo built the relay");
        writeln!(child.stdin.take().expect("asked for above"), "{password}").expect("it reads");
        let output = child.wait_with_output().expect("the child is ours");
        assert!(!String::from_utf8_lossy(&output.stderr).contains(password), "{output:?}");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let [one, other] = [(); 2].map(|()| verifier(&[], PASSWORD).expect("a good password"));
    assert_ne!(one, other);
    for (text, iterations) in [(one, 4_096), (verifier(&["--iterations", "5000"], PASSWORD).expect("enough"), 5_000)] {
        let key: posthaste::server::ScramKey = text.parse().expect("it is one");
        assert!(key.verify(PASSWORD) && key.iterations() == iterations && key.salt().len() == 16);
    }
    for arguments in [["--iterations", "4095"], ["--iterations", "1000001"]] {
        assert_eq!(verifier(&arguments, PASSWORD), None);
    }
    assert_eq!(verifier(&[], "a\u{7}b"), None);
}

#[test]
fn curl_submits_over_starttls_and_implicit_tls() {
    let (mut sink, relay) = relay();
    let (_, file, _) = support::corpus().remove(0);
    for url in [format!("smtp://127.0.0.1:{}", relay.submission), format!("smtps://127.0.0.1:{}", relay.implicit)] {
        let token = token();
        let mut curl = tool("curl");
        // The certificate has signed itself.
        curl.args(["--silent", "--show-error", "--ssl-reqd", "--cacert"]).arg(relay.folder().join("cert.pem"));
        curl.args(["--url", &url, "--user", &format!("{USER}:{PASSWORD}")]);
        curl.args([
            "--mail-from",
            &format!("snd-{token}@sender.test"),
            "--mail-rcpt",
            &format!("rcp-{token}@elsewhere.test"),
        ]);
        support::run(curl.arg("--upload-file").arg(&file));
        sink.one(&token);
    }
}

#[test]
fn openssl_negotiates_tls_12_and_later_alone() {
    let (_sink, relay) = relay();
    let connect = |version: &str| -> Output {
        let mut command = tool("openssl");
        command.args([
            "s_client",
            "-brief",
            version,
            "-cipher",
            "ALL:@SECLEVEL=0",
            "-connect",
            &format!("127.0.0.1:{}", relay.implicit),
        ]);
        command.stdin(Stdio::null()).output().expect("was found")
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let output = connect(version);
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for version in ["-tls1", "-tls1_1"] {
        assert!(!connect(version).status.success(), "{version} must be refused");
    }
}

/// RFC 8689: mail goes from relay to relay as long as certificates are verified, and is reported
/// where one is not.
#[test]
fn requiretls_mail_goes_as_far_as_certificates_are_verified() {
    let mut sink = Sink::start();
    let last = Relay::start(&Config { next_hops: vec![sink.port], tls: true, ..Config::default() });
    let authorities = Some(last.folder().join("cert.pem"));
    let (next_hops, route_tls) = (vec![last.port], "opportunistic");
    let first = Relay::start(&Config { next_hops, route_tls, authorities, tls: true, ..Config::default() });
    let token = token();
    let order = json!({"tls": "starttls", "port": first.port, "mail_options": ["REQUIRETLS", "RET=FULL"]});
    let answer = send(&first, &token, &order);
    assert_eq!(answer["refused"], json!({}), "{answer}");
    assert!(answer["extensions"].get("requiretls").is_some(), "{answer}");
    // The last relay has nowhere to go with it, and says so to its sender, without the message.
    let report = sink.one(&token);
    let text = String::from_utf8_lossy(&report.data).into_owned();
    for line in ["Reporting-MTA: dns; relay.test\r\n", "Action: failed\r\nStatus: 5.7.10\r\n"] {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }
    assert_eq!((report.reverse_path.as_str(), text.contains("Hello")), ("", false), "{text}");
    assert_eq!((first.status()["reported"], last.status()["reported"]), (0, 1));
}

/// RFC 4865: offered for submission alone.
#[test]
fn a_submission_may_be_held() {
    let (mut sink, relay) = relay();
    let token = token();
    let order = json!({"tls": "starttls", "port": relay.submission, "user": USER, "password": PASSWORD, "mail_options": ["HOLDFOR=3"]});
    let begun = std::time::Instant::now();
    let answer = send(&relay, &token, &order);
    assert_eq!(answer["refused"], json!({}), "{answer}");
    let limits = answer["extensions"]["futurerelease"].as_str().unwrap_or_default();
    assert!(limits.starts_with("2592000 2"), "{answer}");
    sink.one(&token);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    let answer = send(&relay, &token, &json!({"tls": "starttls", "port": relay.port, "mail_options": ["HOLDFOR=3"]}));
    assert_eq!(answer["code"], 555, "{answer}");
}

fn send(relay: &Relay, token: &str, order: &Value) -> Value {
    let file = relay.folder().join(token);
    fs::write(&file, format!("Subject: {token}\r\n\r\nHello\r\n")).expect("the folder is ours");
    let mut order = order.clone();
    order["from"] = format!("snd-{token}@sender.test").into();
    order["to"] = json!([format!("rcp-{token}@elsewhere.test")]);
    order["file"] = file.to_string_lossy().into();
    ask("peers/send.py", &order)
}

/// Gives a script its order, and takes its answer.
fn ask(script: &str, order: &Value) -> Value {
    let mut child = python(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 was found");
    write!(child.stdin.take().expect("asked for above"), "{order}").expect("the script reads it");
    let output = child.wait_with_output().expect("the child is ours");
    json(&String::from_utf8_lossy(&output.stdout))
}
