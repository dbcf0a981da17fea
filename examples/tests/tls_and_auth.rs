//! STARTTLS, implicit TLS and AUTH, with the clients that people use.

mod support;

use std::fs;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::client::Smtp;
use support::relay::{Config, PASSWORD, Relay, USER};
use support::sink::Sink;
use support::{json, python, token, tool};

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
            let answer = send(
                &relay,
                &token,
                &json!({"tls": tls, "port": port, "user": USER, "password": PASSWORD, "mechanism": mechanism}),
            );
            assert_eq!(answer["refused"], json!({}), "{mechanism} over {tls}: {answer}");
            let taken = sink.one(&token);
            assert_eq!(taken.recipients[0].0, format!("rcp-{token}@elsewhere.test"));
            let text = String::from_utf8_lossy(&taken.data).into_owned();
            assert!(text.contains("ESMTPSA"), "the Received field says how it came:\n{text}");
            assert!(!text.contains(PASSWORD));
        }
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let (_sink, relay) = relay();
    for (user, password) in [(USER, "wrong"), ("nobody", PASSWORD), (USER, "s3cret"), ("TESTER", PASSWORD)] {
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

/// RFC 8689: from relay to relay as long as a certificate proves who is there, and back where none does.
#[test]
fn mail_that_requires_tls_goes_as_far_as_tls_proves_who_is_there() {
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

/// RFC 4865: for those who submit, and for nobody else.
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
    use std::io::Write;
    let file = relay.folder().join(token);
    fs::write(&file, format!("Subject: {token}\r\n\r\nHello\r\n")).expect("the folder is ours");
    let mut order = order.clone();
    order["from"] = format!("snd-{token}@sender.test").into();
    order["to"] = json!([format!("rcp-{token}@elsewhere.test")]);
    order["file"] = file.to_string_lossy().into();
    let mut child =
        python("peers/send.py").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 was found");
    write!(child.stdin.take().expect("asked for above"), "{order}").expect("send.py reads it");
    let output = child.wait_with_output().expect("the child is ours");
    json(&String::from_utf8_lossy(&output.stdout))
}
