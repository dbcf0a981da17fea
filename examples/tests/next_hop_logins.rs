//! The relay logs in at its next hop, with a password from a file.

mod support;

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use support::client::{Smtp, submit};
use support::next_hops::NextHop;
use support::relay::{Config, PASSWORD, Relay, USER};
use support::sink::Sink;
use support::{PATIENCE, data, token, wait_for};

/// A relay whose mail goes to a port of this host with a login.
fn leads_to(port: u16, tls: &str, authorities: &Path, user: &str, password: &str) -> Relay {
    let mut relay = Relay::prepare(&Config::default());
    let text = format!(
        "hostname = \"client.test\"\nqueue = \"queue\"\nrelay_from = [\"127.0.0.0/8\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{}\"\n\
         [[route]]\ndomains = [\"*\"]\nto = [\"localhost:{port}\"]\ntls = \"{tls}\"\nauthorities = {authorities:?}\n\
         login = {{ user = \"{user}\", password_file = \"password.txt\" }}\n\
         [delivery]\nretry = [\"1s\"]\ntimeout = \"6s\"\n",
        relay.port
    );
    fs::write(relay.config(), text).expect("the folder is ours");
    fs::write(relay.folder().join("password.txt"), password).expect("the folder is ours");
    relay.start_again();
    relay
}

/// A relay that takes mail from users, and where it goes.
fn provider() -> (Sink, Relay) {
    let sink = Sink::start();
    let config = Config { next_hops: vec![sink.port], relay_from: "[]", tls: true, ..Config::default() };
    (sink, Relay::start(&config))
}

#[test]
fn mail_goes_through_a_provider_by_starttls_and_by_implicit_tls() {
    let (mut sink, provider) = provider();
    let certificate = provider.folder().join("cert.pem");
    let ways = [
        (provider.submission, "verified"),
        (provider.implicit, "implicit"),
        // The provider is on loopback, and offers SCRAM.
        (provider.submission, "unverified"),
    ];
    for (port, tls) in ways {
        let relay = leads_to(port, tls, &certificate, USER, &format!("{PASSWORD}\n"));
        let token = token();
        submit(relay.port, &token);
        sink.one(&token);
    }
    assert!(provider.log().contains(&format!("identity=\"{USER}\"")), "{}", provider.log());
}

#[test]
fn mail_waits_while_the_login_is_refused_and_goes_after_sighup_with_the_right_password() {
    let (mut sink, provider) = provider();
    let certificate = provider.folder().join("cert.pem");
    let relay = leads_to(provider.implicit, "implicit", &certificate, USER, "not the pass");
    let (first, second) = (token(), token());
    submit(relay.port, &first);
    wait_for("the login is refused", PATIENCE, || relay.log().contains("535 5.7.8").then_some(()));
    assert!(sink.wait_within(&first, 1, std::time::Duration::ZERO).is_empty());
    fs::write(relay.folder().join("password.txt"), PASSWORD).expect("the folder is ours");
    relay.signal(Signal::HUP);
    sink.one(&first);
    // A file with a mistake changes nothing.
    fs::write(relay.folder().join("password.txt"), "4711\n4712\n").expect("the folder is ours");
    relay.signal(Signal::HUP);
    let refused = "has more than one line";
    let line = wait_for("the file is refused", PATIENCE, || {
        relay.log().lines().find(|line| line.contains(refused)).map(str::to_owned)
    });
    assert!(line.contains("password.txt has more than one line; write"), "{line}");
    submit(relay.port, &second);
    sink.one(&second);
    for secret in [PASSWORD, "not the pass", "4711"] {
        assert!(!relay.log().contains(secret), "{}", relay.log());
    }
}

#[test]
fn no_login_is_sent_to_a_host_with_the_certificate_of_another_authority() {
    let (mut sink, provider) = provider();
    let (other, _) = support::certificate(sink.folder());
    let relay = leads_to(provider.implicit, "implicit", &other, USER, PASSWORD);
    let token = token();
    submit(relay.port, &token);
    let words = "the certificate is not signed by the authority that it names";
    wait_for("the relay defers the message", PATIENCE, || relay.log().contains(words).then_some(()));
    assert!(sink.wait_within(&token, 1, std::time::Duration::ZERO).is_empty());
    assert!(!provider.log().contains("identity"), "{}", provider.log());
}

#[test]
fn postfix_takes_the_mail_of_a_relay_that_logs_in() {
    let Some(mut server) = NextHop::postfix() else { return };
    let (_, port) = server.address();
    let relay = leads_to(port, "verified", &server.certificate(), "me", "secret\n");
    let mut client = Smtp::ehlo(relay.port);
    client.open("me@sender.test", "you@dest.test");
    let token = token();
    client.send(data(&token));
    assert_eq!(client.reply().code, 250);
    assert!(String::from_utf8_lossy(&server.taken()).contains(&token));
    wait_for("Postfix names the user", PATIENCE, || server.log().contains("sasl_username=me").then_some(()));
}
