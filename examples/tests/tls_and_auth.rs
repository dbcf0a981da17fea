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
