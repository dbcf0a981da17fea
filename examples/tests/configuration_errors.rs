//! A mistake in relay.toml is named with its file, line and key, and with what to do.

mod support;

use std::fs;

use support::configuration::folder;
use support::relay::program;

const GOOD: &str = r#"hostname = "relay.test"
queue = "queue"
relay_from = ["127.0.0.0/8", "::1/128"]
relay_domains = ["dest.example"]
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
allow_private = false
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
mailboxes = "unknown"
[[dkim]]
domain = "dest.example"
selector = "2026a"
key = "ed25519.pem"
begins = 2026-01-31
ends = 2126-01-31T12:00:00+01:00
[[dkim]]
domain = "dest.example"
selector = "rsa"
key = "rsa.pem"
[submission]
sign = "trusted"
unsignable = "send"
"#;

/// What to replace in the good file, with what, the line that is to blame, and the key.
const BROKEN: &[(&str, &str, usize, &str)] = &[
    ("hostname = ", "hostnme = ", 1, "hostnme"),
    ("hostname = \"relay.test\"", "hostname = 5", 1, "hostname"),
    ("hostname = \"relay.test\"", "hostname = \"not a name\"", 1, "hostname"),
    ("[\"127.0.0.0/8\", \"::1/128\"]", "[\"127.0.0.0/33\"]", 3, "relay_from"),
    ("[\"127.0.0.0/8\", \"::1/128\"]", "[\"all hosts\"]", 3, "relay_from"),
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
    ("allow_private = false", "allow_private = \"no\"", 23, "allow_private"),
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
    ("domain = \"dest.example\"", "domain = \"dest example\"", 46, "domain"),
    ("selector = \"2026a\"", "selector = \"2026 a\"", 47, "selector"),
    ("selector = \"2026a\"", "selector = \"rsa\"", 53, "selector"),
    ("key = \"ed25519.pem\"", "key = \"none.pem\"", 48, "key"),
    ("key = \"ed25519.pem\"", "key = \"cert.pem\"", 48, "key"),
    ("key = \"ed25519.pem\"", "key = \"rsa-1024.pem\"", 48, "key"),
    ("begins = 2026-01-31", "begins = \"2026-01-31\"", 49, "begins"),
    ("begins = 2026-01-31", "begins = 2026-01-31T12:00:00", 49, "begins"),
    ("begins = 2026-01-31", "begins = 12:00:00", 49, "begins"),
    ("begins = 2026-01-31", "begins = 2127-01-31", 50, "ends"),
    ("begins = 2026-01-31", "subdomains = \"yes\"", 49, "subdomains"),
    ("sign = \"trusted\"", "sign = \"all\"", 56, "sign"),
    ("unsignable = \"send\"", "unsignable = true", 57, "unsignable"),
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
    let said = String::from_utf8_lossy(&said);
    let (head, rest) = said.split_once("\n\n").expect("there are routes");
    assert_eq!((output.status.code(), head), (Some(0), "relay.toml: no mistake found"));
    let (routes, records) = rest.split_once("\n\n").expect("there are keys");
    assert_eq!(routes, "The routes, in order:\n  domains *.test -> [127.0.0.1]:2600\n  domains * -> mx");
    // As zone files have them, each string in 255 octets at most.
    let records: Vec<_> = records.lines().skip(1).collect();
    let ed25519 = "2026a._domainkey.dest.example. IN TXT \"v=DKIM1; k=ed25519; p=";
    let rsa = "rsa._domainkey.dest.example. IN TXT \"v=DKIM1; k=rsa; p=";
    assert!(records[0].starts_with(ed25519) && records[1].starts_with(rsa) && records.len() == 2, "{said}");
    let strings: Vec<_> = records[1].split('"').filter(|part| part.len() > 1).skip(1).map(str::len).collect();
    assert_eq!(strings, [255, 155], "{said}");
}

#[test]
fn relay_check_names_each_mistake_with_line_key_and_remedy() {
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
fn a_missing_key_is_named() {
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

/// What `relay check` says to this file, which it must refuse.
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

const RULES: &str = r#"hostname = "relay.test"
queue = "queue"
relay_from = ["127.0.0.0/8"]
[[account]]
name = "jo"
password = "s3cret pass"
[[route]]
name = "bulk"
identities = ["jo"]
senders = ["news@s.test", "a.test", "b.test", "*.c.test"]
to = [["a.test:2525 3", "192.0.2.1:2525"], "b.test:2525"]
[[route]]
name = "inside"
clients = ["10.0.0.0/8"]
tags = ["summer"]
domains = ["d.test", "*.d.test"]
to = "hold"
[[route]]
name = "no"
recipients = { file = "boxes.txt" }
to = "refuse 550 5.7.1 Not by this relay"
[[route]]
domains = ["l.test"]
to = [["lmtp:a.test:24 3", "lmtp:b.test:24"], "lmtp:c.test:24"]
[[route]]
domains = ["e.test"]
to = "discard"
[[route]]
domains = ["*"]
to = "mx"
[[listener]]
address = "127.0.0.1:2587"
role = "submission"
[tls]
certificate = "cert.pem"
key = "key.pem"
[submission]
tag_field = "X-Campaign"
"#;

#[test]
fn relay_check_shows_the_routes_and_where_a_message_would_go() {
    let folder = folder(RULES);
    fs::write(folder.path().join("boxes.txt"), "gone@d.test\nold.test\n").expect("the folder is ours");
    let check = |more: &[&str]| {
        let output = program().args(["check", "--config", "relay.toml"]).args(more).current_dir(folder.path()).output();
        let output = output.expect("cargo built the relay");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let routes = "
The routes, in order:
  bulk: senders news@s.test, a.test, b.test and 1 more; identities jo -> a.test:2525 (3) or [192.0.2.1]:2525 (1), then b.test:2525
  inside: domains d.test, *.d.test; clients 10.0.0.0/8; tags summer -> hold
  no: recipients gone@d.test, old.test -> refuse 550 5.7.1 Not by this relay
  domains l.test -> lmtp:a.test:24 (3) or lmtp:b.test:24 (1), then lmtp:c.test:24
  domains e.test -> discard
  domains * -> mx
";
    let (code, said) = check(&[]);
    assert!(code == Some(0) && said.ends_with(routes), "{said}");
    for (more, answer) in [
        (&["<>", "x@f.test"][..], "<> to <x@f.test>: mx"),
        (&["news@s.test", "x@f.test"], "<news@s.test> to <x@f.test>: mx"),
        (
            &["news@s.test", "x@F.test", "--identity", "jo"],
            "<news@s.test> to <x@F.test>: bulk: a.test:2525 (3) or [192.0.2.1]:2525 (1), then b.test:2525",
        ),
        (
            &["s@s.test", "x@d.test", "--client", "10.1.2.3", "--tag", "summer"],
            "<s@s.test> to <x@d.test>: inside: hold",
        ),
        (&["s@s.test", "x@d.test", "--client", "10.1.2.3"], "<s@s.test> to <x@d.test>: mx"),
        (&["s@s.test", "gone@d.test"], "<s@s.test> to <gone@d.test>: no: refuse 550 5.7.1 Not by this relay"),
        (&["s@s.test", "x@e.test"], "<s@s.test> to <x@e.test>: discard"),
        (
            &["s@s.test", "x@l.test"],
            "<s@s.test> to <x@l.test>: lmtp:a.test:24 (3) or lmtp:b.test:24 (1), then lmtp:c.test:24",
        ),
    ] {
        let arguments = [&["--route"], more].concat();
        assert_eq!(check(&arguments), (Some(0), format!("{answer}\n")), "{more:?}");
    }
    assert_eq!(check(&["--route", "s s", "x@e.test"]).0, Some(2));
}

const MAILBOXES: &str = r#"hostname = "relay.test"
queue = "queue"
postmaster = "op@known.test"
relay_from = ["127.0.0.0/8"]
relay_domains = ["known.test", "any.test"]
[[route]]
name = "some"
senders = ["news@s.test"]
to = "discard"
[[route]]
domains = ["known.test"]
mailboxes = ["jo@known.test", "op@known.test"]
to = ["a.test:2525"]
[[route]]
domains = ["dirs.test"]
to = "maildir:/tmp/{domain}/{local}"
[[route]]
domains = ["any.test", "relay.test", "localhost"]
mailboxes = "unknown"
to = "mx"
"#;

#[test]
fn the_answer_about_a_route_is_the_reply_of_rcpt_where_that_refuses() {
    let folder = folder(MAILBOXES);
    for (sender, recipient, answer) in [
        ("<>", "jo@known.test", "a.test:2525"),
        ("<>", "JO@Known.test", "a.test:2525"),
        ("<>", "postmaster@known.test", "a.test:2525"),
        ("<>", "gone@known.test", "refuse 550 5.1.1 There is no such mailbox"),
        // The mailboxes are those of the domain, whatever route the mail takes.
        ("news@s.test", "gone@known.test", "refuse 550 5.1.1 There is no such mailbox"),
        ("news@s.test", "jo@known.test", "some: discard"),
        ("<>", "gone@any.test", "mx"),
        ("<>", "postmaster@relay.test", "a.test:2525"),
        ("<>", "postmaster", "a.test:2525"),
        ("<>", "jo@relay.test", "refuse 550 5.1.1 There is no such mailbox here"),
        ("<>", "jo@else.test", "refuse 550 5.1.1 There is no route to that recipient"),
        ("<>", "jo@localhost", "refuse 550 5.1.2 That domain is not in the public DNS"),
        ("<>", "jo@dirs.test", "maildir:/tmp/{domain}/{local}"),
        ("<>", "\"../jo\"@dirs.test", "refuse 550 5.1.1 That mailbox cannot exist here: it is no name of a folder"),
    ] {
        let mut check = program();
        check.args(["check", "--config", "relay.toml", "--route", sender, recipient]);
        let output = check.current_dir(folder.path()).output().expect("cargo built the relay");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.trim_end().ends_with(&format!(": {answer}")), "{sender} {recipient} {said}");
        assert_eq!(output.status.code(), Some(0));
    }
}
