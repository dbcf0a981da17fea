//! A mistake in relay.toml is named with its file, line and key, and with what to do.

mod support;

use std::fs;
use std::path::Path;

use support::relay::program;
use support::{certificate, run, tool};

const GOOD: &str = r#"hostname = "relay.test"
queue = "queue"
relay_from = ["127.0.0.0/8", "::1/128"]
relay_domains = ["dest.test"]
[[listener]]
address = "127.0.0.1:2525"
role = "mx"
tls = "starttls"
[tls]
certificate = "cert.pem"
key = "key.pem"
[[account]]
name = "tester"
password = "s3cret pass"
[[route]]
domains = ["*.test"]
to = ["127.0.0.1:2600"]
tls = "opportunistic"
[dns]
servers = ["127.0.0.1:53"]
[delivery]
mx_port = 25
allow_loopback = false
retry = ["1s", "5m", "2h"]
expire_after = "5d"
timeout = "6s"
warn_after = "never"
authorities = "cert.pem"
[limits]
message_size = 2097152
recipients = 1000
connections = 1000
returned_size = 1048576
hold = "30d"
[offers]
dsn = true
requiretls = true
[[listener]]
address = "127.0.0.1:2587"
role = "submission"
[[route]]
domains = ["*"]
to = "mx"
"#;

/// What to replace in the good file, with what, the line that is to blame, and the key.
const BROKEN: &[(&str, &str, usize, &str)] = &[
    ("hostname = ", "hostnme = ", 1, "hostnme"),
    ("hostname = \"relay.test\"", "hostname = 5", 1, "hostname"),
    ("hostname = \"relay.test\"", "hostname = \"not a name\"", 1, "hostname"),
    ("[\"127.0.0.0/8\", \"::1/128\"]", "[\"127.0.0.0/33\"]", 3, "relay_from"),
    ("[\"127.0.0.0/8\", \"::1/128\"]", "[\"everybody\"]", 3, "relay_from"),
    ("address = \"127.0.0.1:2525\"", "address = \"127.0.0.1\"", 6, "address"),
    ("address = \"127.0.0.1:2525\"", "address = \"127.0.0.1:99999\"", 6, "address"),
    ("role = \"mx\"", "role = \"relay\"", 7, "role"),
    ("tls = \"starttls\"", "tls = \"yes\"", 8, "tls"),
    ("certificate = \"cert.pem\"", "certificate = \"missing.pem\"", 10, "certificate"),
    ("key = \"key.pem\"", "key = \"cert.pem\"", 11, "key"),
    ("key = \"key.pem\"", "key = \"relay.toml\"", 11, "key"),
    ("name = \"tester\"", "name = \"\\u0007\"", 13, "name"),
    ("password = \"s3cret pass\"", "password = \"\"", 14, "password"),
    ("password = \"s3cret pass\"", "password = \"\\u0007\"", 14, "password"),
    ("password = \"s3cret pass\"", "verifier = \"s3cret pass\"", 14, "verifier"),
    ("password = \"s3cret pass\"", "verifier = \"SCRAM-SHA-256$1:AAAAAAAAAAA=$AA==:AA==\"", 14, "verifier"),
    ("password = \"s3cret pass\"", "", 13, "name"),
    ("password = \"s3cret pass\"", VERIFIER_TOO, 13, "name"),
    ("to = [\"127.0.0.1:2600\"]", "to = []", 17, "to"),
    ("to = [\"127.0.0.1:2600\"]", "to = \"smarthost\"", 17, "to"),
    ("tls = \"opportunistic\"", "tls = \"maybe\"", 18, "tls"),
    ("tls = \"opportunistic\"", "chunking = \"no\"", 18, "chunking"),
    ("servers = [\"127.0.0.1:53\"]", "servers = [\"localhost\"]", 20, "servers"),
    ("mx_port = 25", "mx_port = 70000", 22, "mx_port"),
    ("allow_loopback = false", "allow_loopback = \"no\"", 23, "allow_loopback"),
    ("\"5m\"", "\"5 fortnights\"", 24, "retry"),
    ("retry = [\"1s\", \"5m\", \"2h\"]", "retry = []", 24, "retry"),
    ("expire_after = \"5d\"", "expire_after = 5", 25, "expire_after"),
    ("timeout = \"6s\"", "timeout = \"-6s\"", 26, "timeout"),
    ("warn_after = \"never\"", "warn_after = \"soon\"", 27, "warn_after"),
    ("authorities = \"cert.pem\"", "authorities = \"missing.pem\"", 28, "authorities"),
    ("authorities = \"cert.pem\"", "authorities = \"key.pem\"", 28, "authorities"),
    ("message_size = 2097152", "message_size = \"2 MiB\"", 30, "message_size"),
    ("message_size = 2097152", "message_size = -1", 30, "message_size"),
    ("recipients = 1000", "recipients = 0", 31, "recipients"),
    ("connections = 1000", "conections = 1000", 32, "conections"),
    ("returned_size = 1048576", "returned_size = 8000000", 33, "returned_size"),
    ("hold = \"30d\"", "hold = \"400d\"", 34, "hold"),
    ("dsn = true", "dsn = \"yes\"", 36, "dsn"),
    ("requiretls = true", "require_tls = true", 37, "require_tls"),
    ("[limits]", "[limit]", 29, "limit"),
];

/// The example of RFC 7677 as a key, beside the password.
const VERIFIER_TOO: &str = r#"password = "x"
verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=""#;

#[test]
fn a_good_configuration_passes() {
    let folder = folder(GOOD);
    let mut check = program();
    let output = check.args(["check", "--config", "relay.toml"]).current_dir(folder.path()).output();
    let output = output.expect("cargo built the relay");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&said)),
        (Some(0), "relay.toml: no mistake found\n".into())
    );
}

#[test]
fn each_mistake_is_named_with_line_key_and_remedy() {
    let mut wrong = vec![];
    for (good, bad, line, key) in BROKEN {
        assert!(GOOD.contains(good), "{good} is in the good file");
        let errors = refused(&GOOD.replacen(good, bad, 1));
        let start = format!("relay.toml:{line}: ");
        let named = errors.lines().filter_map(|text| text.split_once(&start)).any(|(_, rest)| {
            rest.split_once(": ").is_some_and(|(named, problem)| named.contains(key) && problem.contains("; "))
        });
        if !named {
            wrong.push(format!("`{bad}`: wanted `{start}…{key}: problem; remedy`, got\n    {}", errors.trim()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
}

#[test]
fn what_is_missing_is_named() {
    for (line, key) in [
        ("address = \"127.0.0.1:2525\"\n", "address"),
        ("name = \"tester\"\n", "name"),
        ("to = [\"127.0.0.1:2600\"]\n", "to"),
        ("[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n", "tls"),
    ] {
        let errors = refused(&GOOD.replacen(line, "", 1));
        assert!(errors.contains("relay.toml") && errors.contains(key), "without {key}: {errors}");
    }
}

#[test]
fn a_mistake_in_a_secret_does_not_show_it() {
    for line in ["password = \"4711\\u0007 pass\"", "verifier = \"SCRAM-SHA-256$4096:4711\"", "password = 4711"] {
        let errors = refused(&GOOD.replacen("password = \"s3cret pass\"", line, 1));
        assert!(errors.contains("; ") && !errors.contains("4711"), "{errors}");
    }
}

#[test]
fn text_that_is_no_toml_is_named_by_its_line() {
    let errors = refused(&GOOD.replacen("role = \"mx\"", "role = mx\"", 1));
    assert!(errors.contains("relay.toml:7"), "{errors}");
}

/// The first lines of each file in the table. A line whose key the row has itself is left empty.
const HEAD: [(&str, &str); 4] = [
    ("hostname", "\"relay.test\""),
    ("postmaster", "\"admin@dest.test\""),
    ("queue", "\"queue\""),
    ("relay_from", "[\"127.0.0.0/8\"]"),
];

/// What the rows abbreviate.
const SHORT: &[(&str, &str)] = &[
    ("@tls", "tls = { certificate = \"cert.pem\", key = \"key.pem\" }"),
    ("@mx", "{ address = \"127.0.0.1:2525\" }"),
    ("@submission", "{ address = \"127.0.0.1:2587\", role = \"submission\" }"),
    (
        "@account",
        "account = [{ name = \"me\", verifier = \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\" }]",
    ),
    (
        "@4097",
        "\"SCRAM-SHA-256$4097:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"",
    ),
    (
        "@4096",
        "\"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"",
    ),
    ("@to_hop", "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:25\"]"),
    ("@to_mx", "[[route]]\ndomains = [\"*\"]\nto = \"mx\""),
];

/// What stands behind the head, from line 5 on; and all that is found: line, E for an error or W for a warning, key, and
/// words of the text.
const FOUND: &[(&str, &[&str])] = &[
    ("", &[]),
    // The own name.
    ("hostname = \"not a name\"", &["5 E hostname: not a name"]),
    ("hostname = \"localhost\"", &["5 W hostname: every host calls itself"]),
    ("hostname = \"localhost.localdomain\"", &["5 W hostname: every host calls itself"]),
    ("hostname = \"mail\"", &["5 W hostname: not a full name"]),
    ("hostname = \"[192.0.2.1]\"", &["5 W hostname: is an address"]),
    ("hostname = \"192.0.2.1\"", &["5 W hostname: is an address"]),
    ("hostname = \"b\u{fc}cher.test\"", &[]),
    ("#postmaster", &["1 W hostname: no route leads mail for `relay.test` away"]),
    ("#postmaster\n@to_mx", &["1 W hostname: no route leads mail for `relay.test` away"]),
    ("#postmaster\n@to_hop", &[]),
    ("#postmaster\n[[route]]\ndomains = [\"relay.test\"]\nto = [\"hub.test:25\"]\n@to_mx", &[]),
    ("[[route]]\ndomains = [\"Relay.test\"]\nto = \"mx\"\n@to_hop", &["6 W domains: back here"]),
    ("postmaster = \"somebody\"", &["5 E postmaster: somebody"]),
    ("postmaster = \"\u{e4}@dest.test\"", &["5 E postmaster: not in ASCII"]),
    ("postmaster = \"a@RELAY.test\"", &["5 E postmaster: no route leads to"]),
    (
        "postmaster = \"a@gone.test\"\n[[route]]\ndomains = [\"dest.test\"]\nto = \"mx\"",
        &["5 E postmaster: no route leads to `gone.test`", "7 W domains: all other domains"],
    ),
    // The queue.
    ("queue = \"cert.pem\"", &["5 E queue: no folder"]),
    ("queue = \"cert.pem/queue\"", &["5 E queue: cannot be in"]),
    ("queue = \"\"", &["5 E queue: empty"]),
    ("queue = \"nowhere\"", &["5 E queue: leads nowhere"]),
    ("queue = \"open\"", &["5 E queue: every user of this host may write"]),
    (
        "queue = \"a/folder/that/is/still/to/be/made/for/the/queue/with/a/name/that/is/so/long/that/no/socket/can/have/it\"",
        &["5 W queue: too long for a socket"],
    ),
    // Networks.
    ("relay_from = []\nrelay_domains = [\"dest.test\"]", &[]),
    ("relay_from = \"127.0.0.0/8\"", &["5 E relay_from: no list"]),
    ("relay_from = [\"0.0.0.0/0\"]", &["5 E relay_from: strangers send everywhere"]),
    ("relay_from = [\"::/0\"]", &["5 E relay_from: strangers send everywhere"]),
    ("relay_from = [\"2000::/3\"]", &["5 E relay_from: strangers send everywhere"]),
    ("relay_from = [\"::ffff:0.0.0.0/96\"]", &["5 E relay_from: strangers send everywhere"]),
    (
        "relay_from = [\n\"0.0.0.0/1\",\n\"128.0.0.0/1\"]",
        &["6 E relay_from: strangers send everywhere", "7 E relay_from: strangers send everywhere"],
    ),
    (
        "relay_from = [\"12.0.0.0/8\", \"13.0.0.0/8\"]",
        &["5 W relay_from: wide", "5 W relay_from: wide", "5 E relay_from: together the networks are `12.0.0.0/7`"],
    ),
    ("relay_from = [\"2001::/20\"]", &["5 W relay_from: wide"]),
    ("relay_from = [\"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fc00::/7\", \"2001:db8::/32\"]", &[]),
    ("relay_from = [\"192.0.2.7/24\"]", &["5 W relay_from: 192.0.2.0/24"]),
    ("relay_from = [\"192.0.2.0/24\",\n\"192.0.2.0/24\"]", &["6 W relay_from: in line 5"]),
    ("relay_from = [\"192.0.2.0/28\",\n\"192.0.2.0/24\"]", &["5 W relay_from: within `192.0.2.0/24` in line 6"]),
    ("listener = [@submission]\n@account\n@tls", &["4 W relay_from: log in at every listener"]),
    // Domains of others.
    ("relay_domains = [\"*\"]", &["5 E relay_domains: strangers send everywhere"]),
    ("relay_domains = [\"*.test\"]", &["5 W relay_domains: top-level"]),
    ("relay_domains = [\"relay.test\"]", &["5 W relay_domains: this host's name"]),
    ("relay_domains = [\"a.test\", \"A.test\"]", &["5 W relay_domains: already"]),
    ("relay_domains = [\"*.[192.0.2.1]\"]", &["5 E relay_domains: was expected"]),
    (
        "relay_domains = [\"a.test\", \"*.b.test\",\n\"c.test\", \"*.d.test\"]\n[[route]]\ndomains = [\"a.test\", \"x.b.test\", \"dest.test\"]\nto = \"mx\"",
        &[
            "6 E relay_domains: no route has `c.test`",
            "6 E relay_domains: no route has `*.d.test`",
            "8 W domains: all other",
        ],
    ),
    // Listeners.
    ("listener = [@mx, @submission]\n@account\n@tls", &[]),
    ("listener = [@mx, @submission]\n@account", &["5 E role: nobody can log in without TLS"]),
    (
        "listener = [@mx, { address = \"127.0.0.1:2587\", role = \"submission\", tls = \"off\" }]\n@account\n@tls",
        &["5 E tls: nobody can log in without TLS"],
    ),
    ("listener = [@mx, @submission]\n@tls", &["5 E role: add an [[account]]"]),
    ("listener = [{ address = \"127.0.0.1:2525\", tls = \"starttls\" }]", &["5 E tls: no certificate"]),
    ("@tls\nlistener = [{ address = \"127.0.0.1:2525\", tls = \"off\" }]", &["5 W tls: no listener uses it"]),
    ("listener = [@mx,\n@mx]", &["6 E address: the listener in line 5 has that port"]),
    ("listener = [@mx, { address = \"0.0.0.0:2525\" }]", &["5 E address: has that port"]),
    ("listener = [@mx, { address = \"[::]:2525\" }]", &["5 E address: has that port"]),
    ("listener = [{ address = \"[::]:2525\" }, { address = \"0.0.0.0:2525\" }]", &["5 E address: has that port"]),
    ("listener = [@mx, { address = \"[::ffff:127.0.0.1]:2525\" }]", &["5 E address: has that port"]),
    ("listener = [@mx, { address = \"127.0.0.2:2525\" }, { address = \"0.0.0.0:2526\" }]", &[]),
    ("listener = [{ address = \"127.0.0.1:0\" }]", &["5 E address: no port"]),
    ("listener = [{ address = \"192.0.2.77:2525\" }]", &["5 W address: no such address"]),
    ("listener = [@mx, { address = \"127.0.0.1:25\", role = \"submission\" }]\n@account\n@tls", &["5 W role: port 25"]),
    ("listener = [{ address = \"127.0.0.1:25\", tls = \"implicit\" }]\n@tls", &["5 W tls: port 25"]),
    (
        "listener = [@mx, { address = \"127.0.0.1:465\", role = \"submission\" }]\n@account\n@tls",
        &["5 W address: port 465"],
    ),
    ("listener = [{ address = \"127.0.0.1:465\", tls = \"implicit\" }]\n@tls", &["5 W listener: port 465"]),
    ("listener = [{ address = \"127.0.0.1:587\" }]", &["5 W listener: port 587"]),
    (
        "listener = [@mx, { address = \"127.0.0.1:587\", role = \"submission\", tls = \"implicit\" }]\n@account\n@tls",
        &["5 W tls: port 587"],
    ),
    (
        "listener = []\n#relay_from\n#postmaster",
        &["W listener: from nobody for anybody", "1 W hostname: no route leads"],
    ),
    (
        "listener = [@mx]\n#relay_from\n#postmaster",
        &["1 W hostname: no route leads", "5 W listener: from nobody for anybody"],
    ),
    // Accounts.
    (
        "listener = [@mx, @submission]\n@tls\naccount = [{ name = \"IX\", verifier = @4096 },\n{ name = \"\u{2168}\", verifier = @4096 }]",
        &["8 E name: the account in line 7"],
    ),
    ("@account\n@tls", &["5 W name: no listener lets anyone log in"]),
    (
        "listener = [@mx, @submission]\n@tls\naccount = [{ name = \"a\", password = \"short\" }]",
        &["7 W password: fewer than 8 characters"],
    ),
    (
        "listener = [@mx, @submission]\n@tls\naccount = [{ name = \"a\", verifier = @4096 },\n{ name = \"b\", verifier = @4097 }]",
        &["8 W verifier: 4096"],
    ),
    (
        "#readable\nlistener = [@mx, @submission]\n@tls\naccount = [{ name = \"a\", password = \"long enough\" }]",
        &["8 W password: every user of this host"],
    ),
    ("listener = [@mx, @submission]\n@tls\naccount = [{ name = \"a\", password = \"long enough\" }]", &[]),
    ("listener = [@mx, @submission]\n@tls\naccount = [{ password = \"long enough\" }]", &["7 E name: missing"]),
    // Certificates.
    ("tls = { certificate = \"v1.pem\", key = \"v1.key\" }", &["5 E certificate: version 1"]),
    ("tls = { certificate = \"expired.pem\", key = \"expired.key\" }", &["5 W certificate: has expired"]),
    ("tls = { certificate = \"future.pem\", key = \"future.key\" }", &["5 W certificate: not valid yet"]),
    ("tls = { certificate = \"other.pem\", key = \"other.key\" }", &["5 W certificate: is not for relay.test"]),
    ("tls = { certificate = \"cert.pem\", key = \"other.key\" }", &["5 E key: does not fit"]),
    ("tls = { certificate = \"open.pem\", key = \"open.key\" }", &["5 W key: every user of this host"]),
    ("tls = { certificate = \"none.pem\", key = \"none.key\" }", &["5 E certificate: none.pem", "5 E key: none.key"]),
    ("tls = { certificate = \"cert.pem\" }", &["5 E key: missing"]),
    // Routes.
    ("@to_mx\n[[route]]\ndomains = [\"a.test\"]\nto = \"mx\"", &["9 W domains: line 6 has all"]),
    (
        "[[route]]\ndomains = [\"*.b.test\", \"a.test\"]\nto = \"mx\"\n[[route]]\ndomains = [\"x.y.b.test\", \"*.c.b.test\", \"A.test\"]\nto = \"mx\"\n@to_hop",
        &["9 W domains: no mail takes this route"],
    ),
    (
        "[[route]]\ndomains = [\"a.test\"]\nto = \"mx\"\n[[route]]\ndomains = [\"a.test\",\n\"*\", \"*\"]\nto = \"mx\"",
        &["9 W domains: line 6 has `a.test`", "10 W domains: line 10 has `*`"],
    ),
    ("[[route]]\ndomains = []\nto = \"mx\"", &["6 E domains: empty"]),
    ("[[route]]\nto = \"mx\"", &["5 E domains: missing"]),
    ("[[route]]\ndomains = [\"*\"]", &["5 E to: missing"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:2525\"]", &["7 E to: own listener"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:25\",\n\"localhost:2525\"]", &["8 E to: own listener"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"Relay.TEST:2525\"]", &["7 E to: own listener"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"0.0.0.0:2525\"]", &["7 E to: own listener"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"[::ffff:127.0.0.1]:2525\"]", &["7 E to: own listener"]),
    (
        "listener = [{ address = \"0.0.0.0:2525\" }]\n[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.3:2525\"]",
        &["8 E to: own listener"],
    ),
    (
        "listener = [{ address = \"[::]:2525\" }]\n[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.3:2525\"]",
        &["8 E to: own listener"],
    ),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:2526\", \"192.0.2.1:2525\", \"127.0.0.2:2525\"]", &[]),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"a.test:25\", \"A.test:25\"]", &["7 W to: already"]),
    ("[[route]]\ndomains = [\"dest.test\"]\nto = \"mx\"", &["6 W domains: all other domains"]),
    // What has no effect.
    ("[dns]\nservers = []", &["6 E servers: empty"]),
    ("[dns]\nservers = [\"127.0.0.1:53\",\n\"127.0.0.1:53\"]", &["7 W servers: already"]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:2526\"]\n[dns]\nservers = [\"127.0.0.1:53\"]",
        &["9 W servers: nothing is looked up"],
    ),
    ("[offers]\nbinarymime = true\nchunking = false", &["6 W binarymime: without chunking"]),
    ("[offers]\nchunking = false", &[]),
    ("[offers]\nfuturerelease = true", &["6 W futurerelease: nobody can log in"]),
    ("[offers]\nrequiretls = true", &["6 W requiretls: no route names its hosts"]),
    ("@to_hop\n[offers]\nrequiretls = true\n[delivery]\nauthorities = \"cert.pem\"", &["9 W requiretls: inside TLS"]),
    ("[delivery]\nauthorities = \"cert.pem\"", &["6 W authorities: verified TLS"]),
    (
        "[delivery]\nauthorities = \"key.pem\"",
        &["6 E authorities: no certificate in it", "6 W authorities: verified TLS"],
    ),
    (
        "@to_hop\n[delivery]\nmx_port = 25\nallow_loopback = true",
        &["9 W mx_port: no effect", "10 W allow_loopback: no effect"],
    ),
    ("[submission]\nadd_fields = \"submission\"", &["6 W add_fields: nobody"]),
    ("[submission]\nadd_fields = \"trusted\"", &[]),
    ("[submission]\nadd_fields = \"always\"", &["6 E add_fields: trusted"]),
    // Times and numbers.
    ("[delivery]\nretry = [\"1ms\",\n\"400d\"]", &["6 E retry: less than a second", "7 E retry: more than 366 days"]),
    (
        "[delivery]\nexpire_after = \"1ms\"\nwarn_after = \"367d\"",
        &["6 E expire_after: second", "7 E warn_after: 366 days"],
    ),
    ("[delivery]\nexpire_after = \"30s\"", &["6 W expire_after: before the first wait"]),
    ("[delivery]\nretry = [\"6d\"]", &["6 W retry: before the first wait"]),
    ("[delivery]\nexpire_after = \"2h\"\nwarn_after = \"2h\"", &["7 W warn_after: never told"]),
    ("[delivery]\nwarn_after = \"30s\"", &["6 W warn_after: before the second attempt"]),
    ("[delivery]\nexpire_after = \"2h\"", &[]),
    ("[delivery]\ntimeout = \"1ms\"", &["6 E timeout: second"]),
    ("[delivery]\ntimeout = \"2d\"", &["6 E timeout: more than 1 days"]),
    ("[delivery]\nconcurrency = 10\nconcurrency_per_site = 11", &["7 W concurrency_per_site: at most 10"]),
    ("[delivery]\nconcurrency = 10", &[]),
    ("[limits]\nmessage_size = 65536\nreturned_size = 65537", &["7 W returned_size: at most 65536"]),
    ("[limits]\nrecipients = 99", &["6 W recipients: 100"]),
    ("[limits]\nrecipients = 20000", &["6 E recipients: 1 to 10000"]),
    (
        "[limits]\nmessage_size = 99999999999999999999\nhold = \"400d\"",
        &["6 E message_size: too much", "7 E hold: 366 days"],
    ),
    ("[limits]\nhold = \"1d\"", &["6 W hold: nobody can log in"]),
    (
        "listener = [@mx, @submission]\n@account\n@tls\n[limits]\nhold = \"1d\"\n[offers]\nfuturerelease = false",
        &["9 W hold: switched off"],
    ),
    // Kinds of values, and several mistakes at once.
    ("listener = 5", &["5 E listener: [[listener]]"]),
    ("[listener]\naddress = \"127.0.0.1:2525\"", &["5 E listener: [[listener]]"]),
    ("[[tls]]\nkey = \"key.pem\"", &["5 E tls: no table; write [tls]"]),
    ("relay_domains = [\"dest.test\", 5, true]", &["5 E relay_domains: a number", "5 E relay_domains: true"]),
    ("[limits]\nrecipients = 1.5\nconnections = \"many\"", &["6 E recipients: a fraction", "7 E connections: text"]),
    // A mistake has no further ones in its wake.
    ("listener = [@submission]\n@account\ntls = 1\nrelay_from = []", &["7 E tls: no table"]),
    ("listener = [@mx, @submission]\naccount = 1\n@tls", &["6 E account: [[account]]"]),
    ("@account\n@tls\nlistener = [{ address = \"127.0.0.1:2525\", role = \"msa\" }]", &["7 E role: mx"]),
    ("relay_domains = [\"a.test\"]\n[[route]]\ndomains = [\"dest.test\"]\nto = \"mars\"", &["8 E to: mars"]),
    (
        "colour = 1\n[offers]\nmusic = true\ndsn = 1\n[[route]]\nto = \"mars\"\ndomans = [\"*\"]\n[limits]\nhold = \"1\"",
        &[
            "5 E colour: limits",
            "7 E music: dsn, smtputf8",
            "8 E dsn: true or false",
            "9 E domains: missing",
            "10 E to: mars",
            "11 E domans: domains, to, tls",
            "13 E hold: span",
        ],
    ),
];

#[test]
fn everything_is_found_at_once_and_nothing_else() {
    let has_ipv6 = std::net::UdpSocket::bind("[::]:0").is_ok();
    let mut wrong = vec![];
    for (text, wanted) in FOUND.iter().filter(|(text, _)| has_ipv6 || !text.contains("[::]")) {
        let file = whole(text);
        let (code, found) = checked(&file, text.contains("#readable"));
        let right = found.len() == wanted.len() && found.iter().zip(*wanted).all(|(line, wanted)| is_as(line, wanted));
        let fails = wanted.iter().any(|wanted| wanted.contains(" E "));
        if !right || code != Some(if fails { 2 } else { 0 }) {
            wrong.push(format!("{text}\n  wanted {wanted:#?}\n  got {code:?} {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), FOUND.len(), wrong.join("\n\n"));
}

/// A row as a file.
fn whole(text: &str) -> String {
    let has = |key: &str| text.lines().any(|line| line.trim_start_matches('#').split(' ').next() == Some(key));
    let head = HEAD.map(|(key, value)| if has(key) { "\n".to_owned() } else { format!("{key} = {value}\n") });
    SHORT.iter().fold(head.concat() + text, |text, (short, long)| text.replace(short, long))
}

/// Whether a line is `relay.toml:LINE: KEY: [warning: ]PROBLEM; REMEDY` as wanted.
fn is_as(line: &str, wanted: &str) -> bool {
    let (place, words) = wanted.split_once(": ").expect("a row has words");
    let place: Vec<_> = place.split(' ').collect();
    let (number, severity, key) = match place[..] {
        [number, severity, key] => (format!(":{number}"), severity, key),
        [severity, key] => (String::new(), severity, key),
        _ => panic!("{wanted}"),
    };
    let warning = if severity == "W" { "warning: " } else { "" };
    let rest = line.strip_prefix(&format!("relay.toml{number}: {key}: {warning}"));
    rest.is_some_and(|rest| !rest.starts_with("warning: ") && rest.contains(words) && rest.contains("; "))
}

/// What `relay check` ends with and says to a file.
fn checked(text: &str, readable: bool) -> (Option<i32>, Vec<String>) {
    let folder = folder(text);
    if readable {
        allow(&folder.path().join("relay.toml"), 0o644);
    }
    fs::create_dir(folder.path().join("open")).expect("the folder is ours");
    allow(&folder.path().join("open"), 0o777);
    std::os::unix::fs::symlink("/nowhere/at/all", folder.path().join("nowhere")).expect("the folder is ours");
    for file in fs::read_dir(certificates()).expect("it was made").filter_map(Result::ok) {
        fs::copy(file.path(), folder.path().join(file.file_name())).expect("the folder is ours");
    }
    let before = fs::read_dir(folder.path()).expect("the folder is ours").count();
    let output = program().args(["check", "--config", "relay.toml"]).current_dir(folder.path()).output();
    let output = output.expect("cargo built the relay");
    let after = fs::read_dir(folder.path()).expect("the folder is ours").count();
    assert_eq!(before, after, "it makes nothing");
    let found = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    (output.status.code(), found)
}

fn allow(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// A folder of certificates that something is wrong with, each with its key.
fn certificates() -> &'static Path {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: String, mode| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("the folder is ours");
            allow(&path, mode);
        };
        for (name, host, from, to) in [
            ("expired", "relay.test", 2001, 2002),
            ("future", "relay.test", 2301, 2302),
            ("other", "other.test", 2001, 2302),
            ("open", "relay.test", 2001, 2302),
        ] {
            let key = rcgen::KeyPair::generate().expect("there is enough chance");
            let mut made = rcgen::CertificateParams::new([host.to_owned()]).expect("it is a name");
            made.not_before = rcgen::date_time_ymd(from, 1, 1);
            made.not_after = rcgen::date_time_ymd(to, 1, 1);
            write(&format!("{name}.pem"), made.self_signed(&key).expect("it is whole").pem(), 0o644);
            write(&format!("{name}.key"), key.serialize_pem(), if name == "open" { 0o644 } else { 0o600 });
        }
        // As the command makes them that is often copied.
        let (request, key) = (folder.path().join("request"), folder.path().join("v1.key"));
        let mut openssl = tool("openssl");
        openssl.args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=relay.test", "-keyout"]);
        run(openssl.arg(&key).arg("-out").arg(&request));
        let mut openssl = tool("openssl");
        openssl.args(["x509", "-req", "-days", "2", "-in"]).arg(&request).arg("-signkey").arg(&key);
        run(openssl.arg("-out").arg(folder.path().join("v1.pem")));
        folder
    });
    made.path()
}

#[test]
fn serve_says_the_warnings_once_and_refuses_the_errors() {
    let folder = folder(&whole("relay_domains = [\"relay.test\"]\n[limits]\nrecipients = 0"));
    let output = program().args(["serve", "--config", "relay.toml"]).current_dir(folder.path()).output();
    let output = output.expect("cargo built the relay");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("relay.toml:7: recipients: ") && errors.contains("relay.toml:5: relay_domains: warning: "));
    assert!(!folder.path().join("queue").exists(), "it has started something");
}

/// Each at its most, all of them at once: it starts, takes a message, and ends.
#[test]
fn numbers_at_their_most_are_right_together() {
    let port = support::free_port();
    let text = format!(
        "listener = [{{ address = \"127.0.0.1:{port}\" }}]\n@to_hop\n[delivery]\nmx_port = 65535\nretry = [\"366d\"]\n\
         expire_after = \"366d\"\nwarn_after = \"366d\"\ntimeout = \"1d\"\nconcurrency = 65535\nconcurrency_per_site = 65535\n\
         [limits]\nmessage_size = 9223372036854775807\nreturned_size = 4194304\nrecipients = 10000\nconnections = 65535"
    );
    let folder = folder(&whole(&text));
    let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
    let mut serve = program();
    serve.args(["serve", "--config", "relay.toml"]).current_dir(folder.path()).stderr(log);
    let mut serve = serve.spawn().expect("cargo built the relay");
    support::wait_for("the relay listens", support::PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let reply = support::client::Smtp::ehlo(port).transact(&support::token());
    serve.kill().expect("the child is ours");
    serve.wait().expect("the child is ours");
    let log = fs::read_to_string(folder.path().join("log")).expect("it was made");
    assert_eq!(reply.code, 250, "{log}");
    assert_eq!(log.matches("relay.toml:10: mx_port: warning: ").count(), 1, "{log}");
}

#[test]
fn the_sample_configuration_is_right() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("relay.toml");
    let output = program().args(["check", "--config"]).arg(&sample).output().expect("cargo built the relay");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    // With all that is commented out, too, it has no key that does not exist.
    let text = fs::read_to_string(&sample).expect("it is in the repository");
    let key = |line: &str| line.strip_prefix("# ").is_some_and(|line| line.starts_with('[') || line.contains(" = "));
    let all: Vec<_> =
        text.lines().map(|line| if key(line) { line.replacen("# ", "", 1) } else { line.to_owned() }).collect();
    let (_, found) = checked(&all.join("\n"), false);
    assert!(found.iter().all(|line| !line.contains("no such key") && !line.contains("no TOML")), "{found:#?}");
}

#[test]
fn each_fault_of_the_syntax_is_named() {
    let errors = refused("hostname = relay.test\nqueue = \"queue\nrelay_from = [\"127.0.0.0/8\"\n[[listener]\n");
    for line in [1, 2] {
        assert!(
            errors.lines().any(|text| text.starts_with(&format!("relay.toml:{line}: this is no TOML: "))),
            "{errors}"
        );
    }
    assert!(errors.lines().all(|line| line.contains("; ")), "{errors}");
    let folder = folder("");
    fs::write(folder.path().join("relay.toml"), b"hostname = \"relay.test\"\nqueue = \"\xff\"\n").expect("it is ours");
    let output = program().args(["check", "--config", "relay.toml"]).current_dir(folder.path()).output();
    let errors = String::from_utf8_lossy(&output.expect("cargo built the relay").stderr).into_owned();
    assert!(errors.starts_with("relay.toml:2: there is text that is not UTF-8; "), "{errors}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for command in ["check", "serve", "status"] {
        let output = program()
            .args([command, "--config", "elsewhere.toml"])
            .current_dir(folder.path())
            .output()
            .expect("cargo built it");
        assert!(!output.status.success(), "{command}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("elsewhere.toml"), "{command}: {errors}");
    }
}

/// What `relay check` says to this file, which it must not like.
fn refused(text: &str) -> String {
    let folder = folder(text);
    let output = program()
        .args(["check", "--config", "relay.toml"])
        .current_dir(folder.path())
        .output()
        .expect("cargo built the relay");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}\n{errors}");
    errors
}

fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("relay.toml"), text).expect("the folder is ours");
    allow(&folder.path().join("relay.toml"), 0o600);
    let (cert, key) = shared_certificate();
    fs::copy(cert, folder.path().join("cert.pem")).expect("the folder is ours");
    fs::copy(key, folder.path().join("key.pem")).expect("the folder is ours");
    folder
}

/// One certificate for all: making one takes a moment.
fn shared_certificate() -> (std::path::PathBuf, std::path::PathBuf) {
    static FOLDER: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = FOLDER.lock();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configuration-errors");
    fs::create_dir_all(&folder).expect("cargo made the folder above");
    certificate(&folder)
}
