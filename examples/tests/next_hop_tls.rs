//! How much TLS a route has, from the configuration to the next hop.

mod support;

use std::fs;

use support::client::submit;
use support::relay::{Config, Relay, program};
use support::sink::{Sink, SinkOptions};
use support::{PATIENCE, certificate, run, token, wait_for};

/// What comes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clear,
    Tls,
    /// It waits, and the log says why.
    Waits(&'static str),
}
use End::{Clear, Tls, Waits};

/// Whose certificates the relay trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trusts {
    TheHop,
    Another,
}
use Trusts::{Another, TheHop};

// Both certificates name the same authority: themselves.
const UNKNOWN: End = Waits("the certificate is not signed by the authority that it names");
const NOT_OFFERED: End = Waits("the server does not offer STARTTLS, which is required");

#[test]
fn mail_waits_if_the_next_hop_lacks_the_tls_that_its_route_requires() {
    for (host, tls, trusts, offers, expected) in [
        ("localhost", "off", Another, true, Clear),
        ("localhost", "opportunistic", Another, true, Tls),
        ("localhost", "opportunistic", Another, false, Clear),
        // By name, what is required is verified.
        ("localhost", "required", TheHop, true, Tls),
        ("localhost", "required", Another, true, UNKNOWN),
        ("localhost", "required", TheHop, false, NOT_OFFERED),
        ("localhost", "verified", TheHop, true, Tls),
        ("localhost", "verified", Another, true, UNKNOWN),
        ("localhost", "unverified", Another, true, Tls),
        ("localhost", "unverified", Another, false, NOT_OFFERED),
        // By address, only what says so is.
        ("127.0.0.1", "required", Another, true, Tls),
        ("127.0.0.1", "verified", Another, true, UNKNOWN),
        ("127.0.0.1", "verified", TheHop, true, Tls),
        ("127.0.0.1", "unverified", Another, true, Tls),
    ] {
        let case = format!("{tls} to {host}, trusting {trusts:?}, offered: {offers}");
        let mut sink = Sink::with(SinkOptions { tls: offers, bare: false });
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authorities = match trusts {
            // A sink without TLS has no certificate, and nothing is verified.
            TheHop if offers => sink.folder().join("cert.pem"),
            _ => certificate(folder.path()).0,
        };
        let mut relay = Relay::prepare(&Config {
            next_hops: vec![sink.port],
            route_tls: tls,
            authorities: Some(authorities),
            ..Config::default()
        });
        let text = fs::read_to_string(relay.config()).expect("it was written just now");
        let named = text.replace(&format!("127.0.0.1:{}", sink.port), &format!("{host}:{}", sink.port));
        fs::write(relay.config(), named).expect("the folder is ours");
        relay.start_again();
        let token = token();
        submit(relay.port, &token);
        match expected {
            Clear | Tls => assert_eq!(sink.one(&token).tls, expected == Tls, "{case}"),
            Waits(words) => {
                wait_for("the relay defers the message", PATIENCE, || relay.log().contains(words).then_some(()));
                assert!(sink.wait_within(&token, 1, std::time::Duration::ZERO).is_empty(), "{case}");
                relay.wait_queued(1);
            }
        }
    }
}

#[test]
fn a_route_that_cannot_be_verified_is_refused_and_says_what_to_write() {
    let check = |route: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("relay.toml"), format!("[[route]]\ndomains = [\"*\"]\n{route}\n")).expect("ours");
        let mut command = program();
        command.args(["check", "--config", "relay.toml"]).current_dir(folder.path());
        // A host that trusts no authority: the files named here do not exist.
        command.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
        let output = command.output().expect("cargo built the relay");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (route, words) in [
        ("to = \"mx\"\ntls = \"verified\"", "relay.toml:4: tls: by MX no certificate proves who a host is"),
        ("to = [\"mx.test:25\"]\ntls = \"verified\"", "relay.toml:4: tls: this host trusts no authorities"),
        ("to = [\"mx.test:25\"]\ntls = \"required\"", "relay.toml:4: tls: this host trusts no authorities"),
        (
            "to = [\"[::1]:25\", \"mx.test:25\"]\ntls = \"required\"",
            "relay.toml:4: tls: this host trusts no authorities",
        ),
        ("to = [\"192.0.2.1:25\"]\ntls = \"verified\"", "relay.toml:4: tls: this host trusts no authorities"),
        ("to = [\"mx test:25\"]", "relay.toml:3: to: `test:25` is no weight from 1 to 1000; write \"mx\""),
        ("to = [\"mx..test:25\"]", "relay.toml:3: to: `mx..test:25` is no host:port; write \"mx\""),
        ("to = [\"[mx]:25\"]", "relay.toml:3: to: `[mx]:25` is no host:port; write \"mx\""),
    ] {
        let (good, errors) = check(route);
        assert!(!good && errors.contains(words) && errors.contains("; "), "{route}: {errors}");
    }
    for route in [
        "to = \"mx\"\ntls = \"required\"",
        "to = \"mx\"\ntls = \"unverified\"",
        "to = [\"192.0.2.1:25\", \"[2001:db8::1]:25\"]\ntls = \"required\"",
        "to = [\"mx.test:25\"]\ntls = \"unverified\"",
        "to = [\"mail_relay:25\"]",
        "to = [\"mx.b\u{fc}cher.test:25\", \"xn--0.test:25\", \"-mx-.123:25\"]",
    ] {
        let (good, errors) = check(route);
        assert!(good, "{route}: {errors}");
    }
}

#[test]
fn the_sample_says_what_each_kind_of_tls_keeps_out() {
    let sample = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/relay.toml")).expect("it is there");
    for word in ["off", "opportunistic", "required", "verified", "unverified", "implicit"] {
        assert!(sample.contains(&format!("#   \"{word}\" ")), "{word}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (authorities, _) = certificate(folder.path());
        // An address, which takes every word.
        let text = format!(
            "[[route]]\ndomains = [\"*\"]\nto = [\"192.0.2.1:25\"]\ntls = \"{word}\"\n[delivery]\nauthorities = {authorities:?}\n"
        );
        fs::write(folder.path().join("relay.toml"), text).expect("ours");
        run(program().args(["check", "--config", "relay.toml"]).current_dir(folder.path()));
    }
}
