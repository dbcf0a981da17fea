//! `relay check` finds, in one run, all that is wrong or has no effect. `relay serve` refuses the
//! errors and prints the warnings once.

mod support;

use std::fs;
use std::path::Path;

use support::configuration::{allow, folder};
use support::relay::program;
use support::{run, tool};

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
    ("@login", "login = { user = \"me\", password_file = \"password.txt\" }"),
    ("@ed", "{ domain = \"a.test\", selector = \"ed\", key = \"ed25519.pem\" }"),
    ("@rsa", "{ domain = \"a.test\", selector = \"rsa\", key = \"rsa.pem\" }"),
    ("@to_mx", "[[route]]\ndomains = [\"*\"]\nto = \"mx\""),
];

/// The text after the head, from line 5 on, and all that is found in it. A finding is its line, E
/// for an error or W for a warning, its key, and words of its text.
const FOUND: &[(&str, &[&str])] = &[
    ("", &[]),
    // Sources.
    (
        "@to_mx\nsources = [\"a 3\", \"b\"]\n[[source]]\nname = \"a\"\naddresses = [\"127.0.0.2\"]\n[[source]]\nname = \"b\"",
        &[],
    ),
    ("@to_mx\nsources = [\"a\"]", &["8 E sources: there is no source `a`"]),
    (
        "@to_mx\nsources = [\"a\", \"a\"]\n[[source]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]",
        &["8 E sources: `a` stands there already", "11 W addresses: 192.0.2.1 is no address of this machine"],
    ),
    (
        "@to_mx\n[[source]]\nname = \"a\"\naddresses = [\"127.0.0.2\", \"127.0.0.3\"]",
        &["9 W name: no route uses the source", "10 E addresses: a source has one address of each family"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"discard\"\nsources = [\"a\"]\n[[source]]\nname = \"a\"\n[[source]]\nname = \"a\"",
        &["8 W sources: this route makes no connection", "12 E name: a source before is called `a`"],
    ),
    ("@to_mx\nsources = [\"a 0\"]", &["8 E sources: `0` is no weight from 1 to 1000"]),
    // Their limits.
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\nmessages = \"9/1h\"\n[[site]]\nhosts = [\"mx.test\"]\nper_source = { connections = 20, messages = \"9/1m\" }",
        &[],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\nmessages = 9\n[[site]]\nhosts = [\"mx.test\"]\nper_source = { connections = 0, messages = \"9\", connects = 3 }",
        &[
            "11 E messages: it is a number",
            "14 E connections: 0 is not enough; write a number from 1 to 65535",
            "14 E messages: `9` has no `/`",
            "14 E connects: connections, messages",
        ],
    ),
    (
        "[[site]]\nhosts = [\"mx.test\"]\nper_source = {}",
        &["7 W per_source: it limits nothing", "7 W per_source: no route has sources"],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\n[[site]]\nhosts = [\"mx.test\"]\nconnections = 5\nper_source = { connections = 6 }\n[[site]]\nhosts = [\"*\"]\nper_source = { connections = 21 }",
        &[
            "14 W connections: 6 are more than all sources together may have there, 5; raise `connections`",
            "17 W connections: 21 are more than all sources together may have there, 20; raise `connections`",
        ],
    ),
    // Their certificates.
    ("@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"", &[]),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"cert.pem\"\nkey = \"other.key\"",
        &["12 E key: other.key does not fit the certificate in"],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"none.pem\"\nkey = \"none.key\"",
        &["11 E certificate: cannot read none.pem", "12 E key: cannot read none.key"],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"key.pem\"\nkey = \"cert.pem\"",
        &[
            "11 E certificate: key.pem has no certificate in it",
            "12 E key: cert.pem has no private key in it",
            "12 W key: every user",
        ],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"open.pem\"\nkey = \"open.key\"",
        &["12 W key: every user of this host"],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"expired.pem\"\nkey = \"expired.key\"",
        &["11 W certificate: has expired, and next hops that verify certificates will refuse it"],
    ),
    (
        "@to_mx\nsources = [\"a\"]\n[[source]]\nname = \"a\"\ncertificate = \"cert.pem\"",
        &["9 E key: it is missing; write the name of a PEM file"],
    ),
    (
        "@to_mx\nsources = [\"a\"]\ntls = \"off\"\n[[source]]\nname = \"a\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"",
        &["12 W certificate: its routes have no TLS, and it has no effect"],
    ),
    // Hosts of a family that they do not have.
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"[2001:db8::1]:25\", \"192.0.2.1:25\", \"hop.test:25\"]\nsources = [\"a\", \"b\"]\n[[source]]\nname = \"a\"\naddresses = [\"127.0.0.2\"]\n[[source]]\nname = \"b\"\naddresses = [\"127.0.0.3\"]",
        &["7 W to: no source of this route has an IPv6 address, so nothing reaches 2001:db8::1; give one of them"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"[2001:db8::1]:25\", \"192.0.2.1:25\"]\nsources = [\"a\", \"b\"]\n[[source]]\nname = \"a\"\naddresses = [\"127.0.0.2\"]\n[[source]]\nname = \"b\"",
        &[],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"lmtp:192.0.2.1:24\"\nsources = [\"a\"]\n[[source]]\nname = \"a\"\naddresses = [\"::1\"]",
        &["7 W to: no source of this route has an IPv4 address"],
    ),
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
    ("relay_from = []\nrelay_domains = [\"dest.test\"]", &["6 W mailboxes: `dest.test`"]),
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
    // Refusals.
    (
        "[refuse]\nnetworks = [\"192.0.2.0/24\"]\nhello = [\"ylmf-pc\", \"*.dyn.test\", \"[192.0.2.1]\"]\n\
         senders = [\"jo@a.test\", \"a.test\", \"*.a.test\"]",
        &[],
    ),
    (
        "[refuse]\nnetworks = [\"192.0.2.1\"]\nhello = [\"a b\", \"jo@a.test\"]\nsenders = [\"*\", \"jo@\", 5]\nnames = []",
        &[
            "6 E networks: `192.0.2.1` is an address; the network of it alone is `192.0.2.1/32`",
            "7 E hello: `a b` is no name; write names, such as [\"ylmf-pc\"",
            "7 E hello: `jo@a.test` is a mailbox and no name",
            "8 E senders: `*` is no name; write mailboxes and domains",
            "8 E senders: `jo@` is no name",
            "8 E senders: it is a number and no text",
            "9 E names: write one of networks, hello, senders",
        ],
    ),
    (
        "[refuse]\nnetworks = [\"127.0.0.0/8\", \"192.0.2.7/24\",\n\"192.0.2.128/25\"]\nhello = [\"a.test\",\n\"A.test\"]",
        &[
            "4 W relay_from: [refuse] turns all of `127.0.0.0/8` away in line 6",
            "6 W networks: `192.0.2.7/24` is an address within 192.0.2.0/24",
            "7 W networks: is within `192.0.2.7/24` in line 6",
            "9 W hello: `A.test` stands in line 8 already",
        ],
    ),
    // Domains of others.
    ("relay_domains = [\"*\"]", &["5 E relay_domains: strangers send everywhere"]),
    ("relay_domains = [\"*.test\"]", &["5 W relay_domains: top-level", "5 W mailboxes: `*.test`"]),
    ("relay_domains = [\"relay.test\"]", &["5 W relay_domains: this host's name"]),
    ("relay_domains = [\"a.test\", \"A.test\"]", &["5 W relay_domains: already", "5 W mailboxes: add a [[route]]"]),
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
    ("listener = [@mx, @submission]\n@account", &["5 E role: no client can log in without TLS"]),
    (
        "listener = [@mx, { address = \"127.0.0.1:2587\", role = \"submission\", tls = \"off\" }]\n@account\n@tls",
        &["5 E tls: no client can log in without TLS"],
    ),
    (
        "listener = [@mx, { address = \"127.0.0.1:2587\", role = \"submission\", proxies = [\"192.0.2.7/32\"] }]\n@account",
        &[],
    ),
    (
        "listener = [@mx, { address = \"127.0.0.1:2587\", role = \"submission\", proxies = [] }]\n@account",
        &["5 E role: no client can log in without TLS"],
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
    ("listener = [{ address = \"127.0.0.1:2525\", tolerate = [] }]", &[]),
    ("listener = [{ address = \"127.0.0.1:2525\", tolerate = [\"dots\", \"bare_names\"] }]", &[]),
    (
        "listener = [{ address = \"127.0.0.1:2525\", tolerate = [\"dots\", \"lf\"] }]",
        &["5 E tolerate: `lf` is not one"],
    ),
    ("listener = [{ address = \"127.0.0.1:2525\", tolerate = \"all\" }]", &["5 E tolerate: no list; write some of"]),
    (
        "listener = [{ address = \"127.0.0.1:2525\", proxies = [\"192.0.2.7/32\", \"2001:db8::/32\"], xclient = [\"10.0.0.0/8\"],\
         xforward = [] }]",
        &[],
    ),
    (
        "listener = [{ address = \"127.0.0.1:2525\", proxies = [\"::ffff:127.0.0.1/128\"] }]",
        &["5 W proxies: may send everywhere by `127.0.0.0/8` in line 4, and so may clients that it does not name"],
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:2525\"\nproxies = \"192.0.2.7/32\"\nxclient = [\"192.0.2.0/33\"]\nxforward = [\"me\"]",
        &[
            "7 E proxies: no list; write the networks of proxies, such as [\"192.0.2.7/32\"]",
            "8 E xclient: `192.0.2.0/33`",
            "9 E xforward: write the networks of content filters",
        ],
    ),
    (
        "[[listener]]\naddress = \"127.0.0.1:2525\"\nproxies = [\"0.0.0.0/0\"]\nxclient = [\"12.0.0.0/8\", \"13.0.0.0/8\"]\n\
         xforward = [\"192.0.2.7/24\"]",
        &[
            "7 E proxies: lets strangers say that they are any client; write the addresses of your own proxies",
            "8 W xclient: `12.0.0.0/8` is a wide network on the Internet, and all of it may say",
            "8 W xclient: `13.0.0.0/8` is a wide network",
            "8 E xclient: together the networks are `12.0.0.0/7` and let strangers say",
            "9 W xforward: stands for all of that network",
        ],
    ),
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
    ("listener = []\n#relay_from\n#postmaster", &["W listener: it refuses all mail", "1 W hostname: no route leads"]),
    (
        "listener = [@mx]\n#relay_from\n#postmaster",
        &["1 W hostname: no route leads", "5 W listener: it refuses all mail"],
    ),
    // AccountTable.
    (
        "listener = [@mx, @submission]\n@tls\naccount = [{ name = \"IX\", verifier = @4096 },\n{ name = \"\u{2168}\", verifier = @4096 }]",
        &["8 E name: the account in line 7"],
    ),
    ("@account\n@tls", &["5 W name: no client can log in at any listener"]),
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
    // Keys that sign.
    ("dkim = [@ed, @rsa]\nlistener = [@mx, @submission]\n@account\n@tls", &[]),
    ("listener = [@mx, @submission]\n@account\n@tls\ndkim = [@ed]", &["8 W key: a.test has no RSA key"]),
    (
        "dkim = [@rsa,\n{ domain = \"b.test\", selector = \"s\", key = \"open_rsa.key\", ends = 2001-01-01 }]",
        &["5 W domain: no client can log in", "6 W ends: the key signs no more", "6 W key: every user of this host"],
    ),
    ("dkim = [@rsa]\n[submission]\nsign = \"trusted\"", &[]),
    ("[submission]\nsign = \"trusted\"\nunsignable = \"send\"", &["6 W sign: no key", "7 W unsignable: no key"]),
    (
        "dkim = [@rsa,\n@rsa,\n{ domain = \"b.test\", selector = \"s\" }]",
        &["5 W domain: no client can log in", "6 E selector: another key", "7 E key: missing"],
    ),
    (
        "dkim = [{ domain = \"a.test\", selector = \"a\", key = \"two.key\" },\n\
         { domain = \"a.test\", selector = \"b\", key = \"ssh.key\" },\n\
         { domain = \"a.test\", selector = \"c\", key = \"der.key\" }]",
        &[
            "5 E key: it is a file with 2 private keys; make one that is PEM",
            "5 W domain: no client can log in",
            "6 E key: it is in the form of OpenSSH (`ssh-keygen",
            "7 E key: it is DER (`openssl pkey",
        ],
    ),
    // Certificates.
    ("tls = { certificate = \"v1.pem\", key = \"v1.key\" }", &["5 E certificate: version 1"]),
    ("tls = { certificate = \"expired.pem\", key = \"expired.key\" }", &["5 W certificate: has expired"]),
    ("tls = { certificate = \"future.pem\", key = \"future.key\" }", &["5 W certificate: not valid yet"]),
    ("tls = { certificate = \"other.pem\", key = \"other.key\" }", &["5 W certificate: is not for relay.test"]),
    ("tls = { certificate = \"cert.pem\", key = \"other.key\" }", &["5 E key: does not fit"]),
    ("tls = { certificate = \"open.pem\", key = \"open.key\" }", &["5 W key: every user of this host"]),
    ("tls = { certificate = \"none.pem\", key = \"none.key\" }", &["5 E certificate: none.pem", "5 E key: none.key"]),
    ("tls = { certificate = \"cert.pem\", key = \"two.key\" }", &["5 E key: it has 2 private keys; leave only that"]),
    ("tls = { certificate = \"cert.pem\", key = \"ssh.key\" }", &["5 E key: ssh-keygen -p -m PKCS8"]),
    ("tls = { certificate = \"cert.pem\", key = \"der.key\" }", &["5 E key: it is DER; for PEM use"]),
    ("tls = { certificate = \"der.key\", key = \"key.pem\" }", &["5 E certificate: it is DER; for PEM use"]),
    ("tls = { certificate = \"cert.pem\" }", &["5 E key: missing"]),
    // Several certificates: one of them is for this host.
    (
        "[[tls]]\ncertificate = \"other.pem\"\nkey = \"other.key\"\n[[tls]]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"",
        &[],
    ),
    (
        "[[tls]]\ncertificate = \"other.pem\"\nkey = \"other.key\"\n[[tls]]\ncertificate = \"expired2.pem\"\nkey = \"expired2.key\"",
        &["6 W certificate: none of the certificates is for relay.test", "9 W certificate: expired2.pem has expired"],
    ),
    (
        "[[tls]]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n[[tls]]\ncertificate = \"other.pem\"\nkey = \"key.pem\"\n\
         [[tls]]\ncertificate = \"none.pem\"\nkey = \"open.key\"",
        &[
            "10 E key: key.pem does not fit the certificate in other.pem",
            "12 E certificate: cannot read none.pem",
            "13 W key: every user of this host",
        ],
    ),
    // RouteTable.
    ("@to_mx\n[[route]]\ndomains = [\"a.test\"]\nto = \"mx\"", &["9 W domains: in line 6"]),
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
    (
        "#relay_from\n#postmaster\nrelay_domains = [\"dest.test\"]\n[[route]]\ndomains = [\"dest.test\"]\nto = [\"hub.test:25\"]",
        &[
            "1 W hostname: no route leads mail",
            "9 W domains: senders there never hear",
            "9 W mailboxes: unknown mailboxes",
        ],
    ),
    // Conditions, and where routes lead.
    ("[[route]]\nsenders = [\"a.test\"]\nto = \"mx\"\n@to_mx", &["5 E name: missing"]),
    (
        "[[route]]\nname = \"a b\"\nsenders = [\"a.test\"]\nto = \"mx\"\n@to_mx",
        &["6 E name: `a b` is no name of 1 to 32"],
    ),
    (
        "[[route]]\nname = \"a\"\nsenders = [\"a.test\"]\nto = \"mx\"\n[[route]]\nname = \"a\"\nclients = [\"10.0.0.0/8\"]\nto = \"mx\"\n@to_mx",
        &["10 E name: the route in line 6 is named `a` already"],
    ),
    ("[[route]]\nname = \"a\"\nto = \"mx\"\n@to_mx", &["5 E domains: missing"]),
    ("[[route]]\nname = \"a\"\nsenders = []\nto = \"mx\"\n@to_mx", &["7 E senders: the list is empty"]),
    ("[[route]]\nname = \"a\"\nrecipients = [\"a@\"]\nto = \"mx\"\n@to_mx", &["7 E recipients: `a@`"]),
    ("[[route]]\nname = \"a\"\nclients = [\"10.0.0.0/33\"]\nto = \"mx\"\n@to_mx", &["7 E clients: write networks"]),
    ("[[route]]\nname = \"a\"\ntags = [\"\"]\nto = \"mx\"\n@to_mx", &["7 E tags: it is empty"]),
    (
        "[[route]]\nname = \"a\"\nidentities = [\"jo\"]\nto = \"mx\"\n@to_mx",
        &["7 W identities: no account is named `jo`, and the route has none of its mail; add an [[account]]"],
    ),
    (
        "@to_mx\n[[route]]\nname = \"a\"\nsenders = [\"a.test\"]\nto = \"mx\"",
        &["11 W to: no mail takes this route: earlier ones, the first in line 6, have all mail of its domains"],
    ),
    (
        "[[route]]\ndomains = [\"*.a.test\"]\nto = \"mx\"\n[[route]]\nname = \"a\"\nsenders = [\"a.test\"]\ndomains = [\"b.a.test\"]\nto = \"mx\"\n@to_mx",
        &["12 W to: no mail takes this route: earlier ones, the first in line 6"],
    ),
    (
        "[[route]]\nname = \"a\"\nsenders = [\"a.test\"]\nmailboxes = [\"jo@a.test\"]\nto = \"mx\"\n@to_mx",
        &["8 E mailboxes: they are those of domains, and this route has some of their mail alone"],
    ),
    (
        "[[route]]\nname = \"a\"\nsenders = { file = \"boxes.txt\" }\nclients = [\"10.0.0.0/8\"]\nto = \"hold\"\n@to_mx",
        &[],
    ),
    ("[[route]]\ndomains = [\"*\"]\nto = [[\"a.test:25 3\", \"b.test:25\"], \"c.test:25\"]", &[]),
    ("[[route]]\ndomains = [\"*\"]\nto = [[\"a.test:25 0\"]]", &["7 E to: `0` is no weight from 1 to 1000"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [[\"a.test:25\"], []]", &["7 E to: the group is empty"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [[\"a.test:25\", [\"b.test:25\"]]]", &["7 E to: it is a list and no text"]),
    ("[[route]]\ndomains = [\"*\"]\nto = [[\"a.test:25\"], [\"A.test:25\"]]", &["7 W to: already"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"refuse\"", &["7 E to: it has no reply; write \"mx\""]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"refuse 250 2.0.0 OK\"", &["7 E to: does not refuse"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"refuse 421 4.3.2 Later\"", &["7 E to: would end the session"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"refuse 550 4.7.1 No\"", &["7 E to: two codes of different kinds"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"refuse 550 5.7.1\"", &["7 E to: no words"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"refuse 5500 No\"", &["7 E to: no code of three digits"]),
    (
        "[[route]]\ndomains = [\"a.test\"]\nto = \"discard\"\ntls = \"required\"\nchunking = false\n@to_mx",
        &["8 W tls: no host gets mail by this route", "9 W chunking: no host gets mail by this route"],
    ),
    ("relay_domains = [\"a.test\"]\n[[route]]\ndomains = [\"a.test\"]\nto = \"refuse 521 5.3.2 Gone\"\n@to_mx", &[]),
    // Mailboxes of domains that every client may send to.
    (
        "relay_domains = [\"a.test\"]\n[[route]]\ndomains = [\"*.test\"]\nto = [\"hop.test:25\"]\n@to_mx",
        &[
            "7 W mailboxes: every client may send to unknown mailboxes of `a.test`, and reports of failure go to senders that may be forged (backscatter); list the mailboxes in mailboxes = { file = \"...\" }, or say mailboxes = \"unknown\"",
        ],
    ),
    (
        "relay_domains = [\"*.b.test\"]\n[[route]]\ndomains = [\"a.b.test\"]\nto = [\"hop.test:25\"]\n@to_mx\nmailboxes = \"unknown\"",
        &["7 W mailboxes: `a.b.test`"],
    ),
    (
        "relay_domains = [\"a.test\"]\n[[route]]\ndomains = [\"a.test\"]\nto = \"mx\"\nmailboxes = { file = \"boxes.txt\" }\n@to_mx",
        &["boxes.txt:3 W mailboxes: `jo@b.test` is at none of the route's domains, and has no effect; take it out"],
    ),
    (
        "@to_mx\nmailboxes = \"unknown\"",
        &["8 W mailboxes: not every client may send to the route's domains, and it has no effect; take it out"],
    ),
    ("@to_mx\nmailboxes = \"all\"", &["8 E mailboxes: `all` is not one of the words for it; write \"unknown\", or"]),
    ("@to_mx\nmailboxes = [\"jo@a.test\", \"jo@\"]", &["8 E mailboxes: `jo@`: a mailbox such as jo@example.org"]),
    (
        "[[route]]\ndomains = [\"a.test\"]\nto = \"mx\"\nmailboxes = { file = \"empty.txt\" }\n@to_mx",
        &["8 W mailboxes: the list is empty, and only the postmaster gets mail by this route; write its mailboxes"],
    ),
    // Lists in files.
    (
        "relay_domains = { file = \"ours.txt\" }\n[[route]]\ndomains = { file = \"ours.txt\" }\nto = [\"hop.test:25\"]\nmailboxes = \"unknown\"\n@to_mx",
        &[],
    ),
    (
        "[[route]]\ndomains = { file = \"wrong.txt\" }\nto = \"mx\"",
        &[
            "wrong.txt:2 E domains: `a b`: a domain such as example.org, *.example.org or * was expected; write the name of a file with a domain a line",
            "wrong.txt:4 E domains: a line of 1025 octets is no name",
        ],
    ),
    (
        "[[route]]\ndomains = { file = \"many.txt\" }\nto = \"mx\"",
        &[
            "6 E domains: 2 more lines of many.txt are wrong",
            "many.txt:1 E domains: a b",
            "many.txt:2 E domains: a b",
            "many.txt:3 E domains: a b",
            "many.txt:4 E domains: a b",
            "many.txt:5 E domains: a b",
            "many.txt:6 E domains: a b",
            "many.txt:7 E domains: a b",
            "many.txt:8 E domains: a b",
            "many.txt:9 E domains: a b",
            "many.txt:10 E domains: a b",
        ],
    ),
    ("[[route]]\ndomains = { file = \"none.txt\" }\nto = \"mx\"", &["6 E domains: cannot read none.txt"]),
    (
        "[[route]]\ndomains = { file = \"open\" }\nto = \"mx\"",
        &["6 E domains: cannot read open: it is a folder and no file; write the name of a file"],
    ),
    ("[[route]]\ndomains = { file = \"empty.txt\" }\nto = \"mx\"", &["6 E domains: the list is empty"]),
    (
        "[[route]]\ndomains = { files = \"ours.txt\" }\nto = \"mx\"",
        &["6 E file: it is missing; write the name of a file", "6 E files: there is no such key; write one of file"],
    ),
    (
        "[[route]]\ndomains = { file = \"twice.txt\" }\nto = \"mx\"\n@to_mx",
        &["twice.txt:2 W domains: line 1 of twice.txt has `a.test` already"],
    ),
    (
        "relay_domains = { file = \"twice.txt\" }\n@to_mx\nmailboxes = \"unknown\"",
        &["twice.txt:2 W relay_domains: `a.test` stands in line 1 of twice.txt already"],
    ),
    ("relay_domains = { file = \"none.txt\" }", &["5 E relay_domains: cannot read none.txt"]),
    // Next hops that are no SMTP hosts.
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:mail.test:24\"", &[]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:mail.test:24\"\ntls = \"verified\"\nauthorities = \"cert.pem\"", &[]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:mail.test\"", &["7 E to: no host:port"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:unix:run/lmtp\"", &["7 E to: begins with /; write"]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [[\"lmtp:a.test:24 3\", \"lmtp:b.test:24\"], \"lmtp:[192.0.2.1]:24\"]\ntls = \"off\"",
        &["7 E to: `[192.0.2.1]:24` is no host:port; write"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [[\"lmtp:a.test:24 3\", \"lmtp:b.test:24\"], \"lmtp:192.0.2.1:24\"]\n\
         tls = \"verified\"\nauthorities = \"cert.pem\"\nchunking = false\n@login",
        &[],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"lmtp:a.test:24\",\n\"b.test:24\"]",
        &["8 E to: LMTP and hosts that speak SMTP are in one list; write a [[route]] for each protocol"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"lmtp:unix:/nowhere/lmtp\", \"lmtp:a.test:24\"]",
        &["7 E to: is a socket of this machine, which stands alone and not in a list; write"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"lmtp:a.test:24\",\n\"lmtp:A.test:24\"]",
        &["8 W to: stands in line 7 already"],
    ),
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:127.0.0.1:2525\"", &["7 E to: this relay's own listener"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:unix:/nowhere/lmtp\"", &["7 W to: no server at /nowhere/lmtp now"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"lmtp:unix:/etc/passwd\"", &["7 E to: /etc/passwd is no socket"]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"lmtp:unix:/nowhere/lmtp\"\ntls = \"required\"\nchunking = false",
        &["7 W to: no server", "8 W tls: it is for hosts", "9 W chunking: it is for hosts"],
    ),
    ("[[route]]\ndomains = [\"*\"]\nto = \"maildir:/tmp/{domain}/{local}\"", &[]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"maildir:/nowhere/{local}\"", &["7 W to: /nowhere is not usable"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"maildir:/etc/passwd/{local}\"", &["7 E to: /etc/passwd is no folder"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"maildir:mail/{local}\"", &["7 E to: no absolute path"]),
    ("[[route]]\ndomains = [\"*\"]\nto = \"maildir:/tmp/{user}\"", &["7 E to: placeholder"]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"https://app.test/in\"\nauthorities = \"cert.pem\"",
        &["7 E secret_file: missing; write the name of a file"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"https://app.test/in\"\nauthorities = \"cert.pem\"\nsecret_file = \"secret.txt\"",
        &[],
    ),
    ("[[route]]\ndomains = [\"*\"]\nto = \"http://localhost:8080/in\"\nsecret_file = \"secret.txt\"", &[]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"http://app.test/in\"\nsecret_file = \"secret.txt\"",
        &["7 E to: does not begin with https://"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"http://localhost/in\"\nsecret_file = \"open_secret.txt\"",
        &["8 W secret_file: every user of this host"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"http://localhost/in\"\nsecret_file = \"empty.txt\"",
        &["8 E secret_file: a secret of 0 octets"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"http://localhost/in\"\nsecret_file = \"lines.txt\"",
        &["8 E secret_file: lines.txt has more than one line"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"http://localhost/in\"\nsecret_file = \"none.txt\"",
        &["8 E secret_file: cannot read none.txt"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"mx\"\nsecret_file = \"secret.txt\"",
        &["8 W secret_file: only requests to a URL are signed"],
    ),
    // Logins at next hops.
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\n@login",
        &[],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:465\"]\ntls = \"implicit\"\nauthorities = \"cert.pem\"\n@login",
        &[],
    ),
    ("[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:587\"]\ntls = \"unverified\"\n@login", &[]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"192.0.2.1:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\n@login",
        &[],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\n@login",
        &[
            "8 E login: no login is sent without TLS that is required; say tls = \"verified\", or \"implicit\" for port 465",
        ],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"unverified\"\n@login",
        &["9 E login: another host could answer in the host's place and get the login; say tls = \"verified\""],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"192.0.2.1:587\"]\ntls = \"required\"\n@login",
        &["9 E login: another host could answer"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"localhost:587\"]\ntls = \"opportunistic\"\n@login",
        &["9 E login: or \"unverified\" for a host with SCRAM"],
    ),
    (
        "@to_mx\n@login",
        &[
            "8 E login: by MX mail goes to hosts that DNS has named, and they must not get a password; name the host in `to`",
        ],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"mx\"\ntls = \"implicit\"",
        &["8 E tls: by MX no certificate proves who a host is"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"me\" }",
        &["10 E password_file: it is missing; write the name of a file that has the password as its one line"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { password_file = \"password.txt\" }",
        &["10 E user: it is missing; write the name that the host knows"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"\", password = \"x\", password_file = \"none.txt\" }",
        &[
            "10 E user: it is empty",
            "10 E password: there is no such key; write one of user, password_file",
            "10 E password_file: cannot read none.txt",
        ],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = \"me\"",
        &["10 E login: it is text and no table; write { user = \"...\", password_file = \"...\" }"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"me\", password_file = \"empty.txt\" }",
        &["10 E password_file: empty.txt: it is empty; write the name of a file"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"me\", password_file = \"lines.txt\" }",
        &["10 E password_file: lines.txt has more than one line"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"me\", password_file = \"long.txt\" }",
        &["10 E password_file: long.txt has more than 1024 octets"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"me\", password_file = \"open\" }",
        &["10 E password_file: cannot read open: it is a folder and no file; write the name of a file"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"\nlogin = { user = \"me\", password_file = \"open.txt\" }",
        &[
            "10 W password_file: every user of this host may read or change open.txt, with a password in it; take that away with `chmod o=`",
        ],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"verified\"\nauthorities = \"key.pem\"",
        &["9 E authorities: no certificate in it"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\nauthorities = \"cert.pem\"",
        &[
            "8 W authorities: no certificate of this route's hosts is verified, and they have no effect; say tls = \"verified\"",
        ],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:465\"]",
        &["7 W to: hosts start with TLS on port 465 (RFC 8314); say tls = \"implicit\", or use port 587"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:465\"]\ntls = \"verified\"\nauthorities = \"cert.pem\"",
        &["8 W tls: hosts start with TLS on port 465"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"hop.test:587\"]\ntls = \"implicit\"\nauthorities = \"cert.pem\"",
        &["8 W tls: hosts do not start with TLS on port 587; say tls = \"verified\", or use port 465"],
    ),
    // What has no effect.
    ("[dns]\nservers = []", &["6 E servers: empty"]),
    ("[dns]\nservers = [\"127.0.0.1:53\",\n\"127.0.0.1:53\"]", &["7 W servers: already"]),
    (
        "[[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:2526\"]\n[dns]\nservers = [\"127.0.0.1:53\"]",
        &["9 W servers: nothing is looked up"],
    ),
    ("[offers]\nbinarymime = true\nchunking = false", &["6 W binarymime: without chunking"]),
    ("[offers]\nchunking = false", &[]),
    ("[offers]\nfuturerelease = true", &["6 W futurerelease: no client can log in"]),
    ("[offers]\nrequiretls = true", &["6 W requiretls: no route names its hosts"]),
    ("@to_hop\n[offers]\nrequiretls = true\n[delivery]\nauthorities = \"cert.pem\"", &["9 W requiretls: inside TLS"]),
    ("[delivery]\nauthorities = \"cert.pem\"", &["6 W authorities: verified TLS"]),
    ("[delivery]\ndane = \"validate\"\nmta_sts = true\nauthorities = \"cert.pem\"", &[]),
    ("[delivery]\ndane = \"yes\"\nmta_sts = 1", &["6 E dane: validate", "7 E mta_sts: true or false"]),
    (
        "@to_hop\n[delivery]\ndane = \"trust\"\nmta_sts = true\nauthorities = \"cert.pem\"",
        &["9 W dane: no effect", "10 W mta_sts: no effect"],
    ),
    (
        "[dns]\nservers = [\"127.0.0.1:53\",\n\"192.0.2.53:53\"]\n[delivery]\ndane = \"trust\"",
        &["7 E servers: `192.0.2.53:53` is not on this host"],
    ),
    ("[dns]\nservers = [\"127.0.0.2:53\", \"[::1]:53\"]\n[delivery]\ndane = \"trust\"", &[]),
    ("[dns]\nservers = [\"192.0.2.53:53\"]\n[delivery]\ndane = \"validate\"", &[]),
    ("@to_hop\n[dns]\nservers = [\"192.0.2.53:53\"]\n[delivery]\ndane = \"trust\"", &["11 W dane: no effect"]),
    (
        "[offers]\nrequiretls = true\n[delivery]\nmta_sts = true\nauthorities = \"cert.pem\"",
        &["6 W requiretls: inside TLS"],
    ),
    (
        "[delivery]\nauthorities = \"key.pem\"",
        &["6 E authorities: no certificate in it", "6 W authorities: verified TLS"],
    ),
    (
        "@to_hop\n[delivery]\nmx_port = 25\nallow_loopback = true",
        &["9 W mx_port: no effect", "10 W allow_loopback: no effect"],
    ),
    ("[submission]\nadd_fields = \"submission\"", &["6 W add_fields: it changes the mail of no client"]),
    ("[submission]\nadd_fields = \"trusted\"", &[]),
    ("[submission]\nadd_fields = \"always\"", &["6 E add_fields: trusted"]),
    // Times and numbers.
    ("[delivery]\nretry = [\"1ms\",\n\"400d\"]", &["6 E retry: less than a second", "7 E retry: more than 366d"]),
    (
        "[delivery]\nexpire_after = \"1ms\"\nwarn_after = \"367d\"",
        &["6 E expire_after: second", "7 E warn_after: 366 days"],
    ),
    ("[delivery]\nexpire_after = \"30s\"", &["6 W expire_after: before the first wait"]),
    ("[delivery]\nretry = [\"6d\"]", &["6 W retry: before the first wait"]),
    ("[delivery]\nexpire_after = \"2h\"\nwarn_after = \"2h\"", &["7 W warn_after: never told"]),
    ("[delivery]\nwarn_after = \"30s\"", &["6 W warn_after: before the first wait"]),
    ("[delivery]\nexpire_after = \"2h\"", &[]),
    ("[delivery]\ntimeout = \"1ms\"", &["6 E timeout: second"]),
    ("[delivery]\ntimeout = \"2d\"", &["6 E timeout: more than 1d"]),
    ("[delivery]\nconcurrency = 10\nconcurrency_per_site = 11", &["7 W concurrency_per_site: at most 10"]),
    ("[delivery]\nconcurrency = 10", &[]),
    ("[limits]\nmessage_size = 65536\nreturned_size = 65537", &["7 W returned_size: at most 65536"]),
    ("[limits]\nconnections_per_network = 1000\nrecipients_per_hour = 1", &[]),
    (
        "[limits]\nconnections = 50\nconnections_per_network = 51",
        &["7 W connections_per_network: the relay has 50 connections at once in all, so one network never gets more"],
    ),
    (
        "[limits]\nconnections_per_network = 0\nrecipients_per_hour = 0\nuser_recipients_per_hour = 1000001",
        &[
            "6 E connections_per_network: 0 is not enough; write a number from 1 to 65535",
            "7 E recipients_per_hour: 0 is not enough; write a number from 1 to 1000000",
            "8 E user_recipients_per_hour: 1000001 is too much; write a number from 1 to 1000000",
        ],
    ),
    ("[limits]\nuser_recipients_per_hour = 500", &["6 W user_recipients_per_hour: no client can log in"]),
    ("listener = [@mx, @submission]\n@account\n@tls\n[limits]\nuser_recipients_per_hour = 500", &[]),
    // Submitted mail.
    (
        "[limits]\nuser_messages_per_hour = 5\nsender_messages_per_hour = 5\nsender_recipients_per_hour = 5\n\
         excess = \"refuse\"\nheader_size = 4096\nheader_fields = 10\nstranger_message_size = 65536",
        &["6 W user_messages_per_hour: no client can log in"],
    ),
    (
        "#relay_from\n[limits]\nsender_messages_per_hour = 5\n[submission]\nsenders = \"own\"\ntag_field = \"X-Tag\"",
        &[
            "7 W sender_messages_per_hour: no client can log in or is in relay_from",
            "9 W senders: no client can log in",
            "10 W tag_field: no client can log in or is in relay_from",
        ],
    ),
    (
        "[limits]\nexcess = \"later\"\nheader_size = 100\nheader_fields = 0\nstranger_message_size = 1\n\
         sender_messages_per_hour = 0",
        &[
            "6 E excess: `later` is not one of the words for it; write \"defer\" or \"refuse\"",
            "7 E header_size: 100 is not enough; write a number of octets from 4096",
            "8 E header_fields: 0 is not enough",
            "9 E stranger_message_size: 1 is not enough",
            "10 E sender_messages_per_hour: 0 is not enough",
        ],
    ),
    ("[limits]\nexcess = \"defer\"", &["6 W excess: no limit of a user or a sender is set"]),
    (
        "[limits]\nmessage_size = 70000\nstranger_message_size = 80000",
        &["7 W stranger_message_size: limits.message_size, 70000 octets"],
    ),
    (
        "[submission]\nsenders = \"all\"\nsender_suffices = 1\ntag_field = \"Subject\"",
        &[
            "6 E senders: `all` is not one of the words for it; write \"any\" or \"own\"",
            "7 E sender_suffices: it is a number",
            "8 E tag_field: `Subject` is a field that others need",
        ],
    ),
    (
        "[[route]]\nname = \"a\"\ntags = [\"summer\"]\nto = \"mx\"\n@to_mx",
        &["7 W tags: no message can name a campaign, and the route has no mail; write the field that names it"],
    ),
    ("submission = { tag_field = \"X-Tag\" }\n[[route]]\nname = \"a\"\ntags = [\"summer\"]\nto = \"mx\"\n@to_mx", &[]),
    (
        "listener = [{ address = \"127.0.0.1:2525\", proxies = [\"192.0.2.7\"], xclient = [\"2001:db8::1\"] }]",
        &[
            "5 E proxies: the network of it alone is `192.0.2.7/32`; write the networks of proxies",
            "5 E xclient: the network of it alone is `2001:db8::1/128`; write the networks of proxies",
        ],
    ),
    // Files that are none. No pipe is waited for.
    ("tls = { certificate = \"open\", key = \"pipe\" }", &["5 E certificate: it is a folder", "5 E key: it is a pipe"]),
    (
        "reports = { opening = \"pipe\", closing = \"open\" }",
        &["5 E opening: it is a pipe", "5 E closing: it is a folder"],
    ),
    (
        "@to_hop\ntls = \"verified\"\nauthorities = \"pipe\"\nlogin = { user = \"me\", password_file = \"pipe\" }",
        &["9 E authorities: it is a pipe", "10 E password_file: it is a pipe and no file"],
    ),
    (
        "[[route]]\ndomains = [\"*\"]\nto = \"https://app.test/\"\nsecret_file = \"pipe\"",
        &["8 E secret_file: it is a pipe and no file"],
    ),
    (
        "listener = [@mx, @submission]\n@account\n@tls\ndkim = [{ domain = \"a.test\", selector = \"s\", key = \"pipe\" },\n\
         { domain = \"b.test\", selector = \"s\", key = \"open\" }]",
        &["8 E key: it is a pipe", "9 E key: it is a folder"],
    ),
    ("relay_domains = { file = \"pipe\" }", &["5 E relay_domains: it is a pipe and no file"]),
    ("[submission]\ntag_field = \"X Tag\"", &["6 E tag_field: `X Tag` is no name of a field"]),
    ("[submission]\nsender_suffices = true", &["6 W sender_suffices: users may send from any address"]),
    (
        "listener = [@mx, @submission]\n@account\n@tls\nsubmission = { senders = \"own\", sender_suffices = true }",
        &["6 W name: `me` is no address, and this user may send from none"],
    ),
    (
        "listener = [@mx, @submission]\n@tls\nsubmission = { senders = \"own\", tag_field = \"X-Tag\" }\n\
         account = [{ name = \"jo@a.test\", password = \"a long one\" },\n\
         { name = \"me\", password = \"a long one\", senders = [\"jo@a.test\", \"b.test\", \"*.c.test\"], message_size = 70000 },\n\
         { name = \"you\", password = \"a long one\", senders = { file = \"boxes.txt\" } }]",
        &[],
    ),
    (
        "listener = [@mx, @submission]\n@tls\n\
         account = [{ name = \"jo\", password = \"a long one\", senders = [\"jo@\"], message_size = 1 },\n\
         { name = \"me\", password = \"a long one\", senders = { file = \"nowhere.txt\" } }]",
        &[
            "7 E senders: `jo@`: a mailbox such as jo@example.org",
            "7 E message_size: 1 is not enough",
            "8 E senders: cannot read",
        ],
    ),
    // Reports.
    (
        "[reports]\nper_hour = 0\nfailed_subject = \"Nicht \u{fc}berbracht ({message})\"\ndelayed_subject = \"Later\"\n\
         relayed_subject = \"On its way\"\nopening = \"ours.txt\"\nfailed = \"words.txt\"\ndelayed = \"words.txt\"\n\
         relayed = \"words.txt\"\ndelivered = \"words.txt\"\ndelivered_subject = \"Arrived\"\nclosing = \"empty.txt\"\n\
         sender_name = \"Postamt {host_name}\"\nsaid = \"{remote}: {words}\"\nmore = \"und {count}\"\nshortened = \"ours.txt\"",
        &[],
    ),
    (
        "[reports]\nsender_name = \"\"\nsaid = \"{remote} said\"\nmore = \"{count} of {all}\"\nshortened = \"words.txt\"",
        &[
            "6 E sender_name: it is empty; write some words",
            "7 E said: `{words}` stands there 0 times; write it once",
            "8 E more: `{all}` is no placeholder here; write {count}",
            "9 E shortened: `{recipients}` is no placeholder here",
        ],
    ),
    (
        "[reports]\nper_hour = \"many\"\nfailed_subject = \"{host}\"\ndelayed_subject = \"\"\n\
         relayed_subject = \"a\\nb\"\nopening = \"words.txt\"\nfailed = \"ours.txt\"\ndelayed = \"nowhere.txt\"\n\
         closing = \"\"\nsubject = \"x\"",
        &[
            "6 E per_hour: it is text",
            "7 E failed_subject: `{host}` is no placeholder here; write {host_name} or {message}",
            "8 E delayed_subject: it is empty",
            "9 E relayed_subject: it has one line",
            "10 E opening: `{recipients}` is no placeholder here",
            "11 E failed: `{recipients}` stands there 0 times",
            "12 E delayed: cannot read",
            "13 E closing: it is empty",
            "14 E subject: write one of per_hour",
        ],
    ),
    (
        "#relay_from\nlistener = [@submission]\n@account\n@tls\n[limits]\nrecipients_per_hour = 500",
        &["10 W recipients_per_hour: clients have to log in at every listener"],
    ),
    ("listener = [{ address = \"127.0.0.1:2525\", greeting_delay = \"1m\" }]", &[]),
    (
        "[[listener]]\naddress = \"127.0.0.1:2525\"\ngreeting_delay = \"61s\"\n[[listener]]\naddress = \"127.0.0.1:2526\"\n\
         greeting_delay = 2",
        &[
            "7 E greeting_delay: `61s` is more than 1m; write a span of time from a second to a minute",
            "10 E greeting_delay: it is a number and no text",
        ],
    ),
    ("[limits]\nidle_commands = 1", &["6 E idle_commands: disconnected before its first message; write 10 or more"]),
    ("[limits]\nidle_commands = 4", &["6 W idle_commands: a client may need 10"]),
    ("[limits]\nidle_commands = 10", &[]),
    ("[limits]\nrecipients = 99", &["6 W recipients: 100"]),
    ("[limits]\nrecipients = 20000", &["6 E recipients: 1 to 10000"]),
    (
        "[limits]\nmessage_size = 99999999999999999999\nhold = \"400d\"",
        &["6 E message_size: too much", "7 E hold: 366 days"],
    ),
    ("[limits]\nhold = \"1d\"", &["6 W hold: no client can log in"]),
    (
        "listener = [@mx, @submission]\n@account\n@tls\n[limits]\nhold = \"1d\"\n[offers]\nfuturerelease = false",
        &["9 W hold: switched off"],
    ),
    (
        "[overload]\nmemory = 100\nmemory_limit = 67108864\ndescriptors = 10\nqueue_depth = 1000\ncommit_latency = \"1s\"",
        &[],
    ),
    (
        "[overload]\nmemory = 9\nmemory_limit = 33554431\ndescriptors = 101\nqueue_depth = 999\ncommit_latency = 8",
        &[
            "6 E memory: 9 is not enough; write a part in percent from 10 to 100",
            "7 E memory_limit: 33554431 is not enough; write a number of octets from 33554432",
            "8 E descriptors: 101 is too much; write a part in percent from 10 to 100",
            "9 E queue_depth: 999 is not enough; write a number of deliveries from 1000",
            "10 E commit_latency: it is a number and no text",
        ],
    ),
    // How much sources send on their first days.
    (
        "[[source]]\nname = \"a\"\nwarm_up = { begins = 2026-12-31, messages = [50, 100] }\n[[route]]\ndomains = [\"*\"]\nto = \"mx\"\nsources = [\"a\"]",
        &[],
    ),
    (
        "[[source]]\nname = \"a\"\nwarm_up = { begins = \"today\", messages = [], days = 3 }\n[[route]]\ndomains = [\"*\"]\nto = \"mx\"\nsources = [\"a\"]",
        &["7 E begins: no date", "7 E messages: empty", "7 E days: begins, messages"],
    ),
    (
        "[[source]]\nname = \"a\"\nwarm_up = {}\n[[route]]\ndomains = [\"*\"]\nto = \"mx\"\nsources = [\"a\"]",
        &["7 E begins: it is missing", "7 E messages: it is missing"],
    ),
    // How much single next hops get.
    (
        "[[site]]\nhosts = [\"mx.test\", \"*.mx.test\"]\nconnections = 5\nconnects = \"10/1m\"\nmessages = \"100/1h\"\nrecipients = \"1/1d\"",
        &[],
    ),
    ("[[site]]\nhosts = [\"127.0.0.1\", \"::1\", \"[192.0.2.1]\"]\nconnections = 5", &[]),
    ("[[site]]\nconnections = 5", &["5 E hosts: it is missing"]),
    ("[[site]]\nhosts = []\nconnections = 5", &["6 E hosts: empty"]),
    ("[[site]]\nhosts = [\"mx.test\"]", &["5 W site: limits nothing"]),
    (
        "[[site]]\nhosts = [\"a b\"]\nconnections = 0\nconnects = \"10\"\nmessages = \"0/1m\"\nrecipients = \"1/8w\"\nrate = 3",
        &[
            "6 E hosts: a domain such as",
            "7 E connections: 0 is not enough",
            "8 E connects: has no `/`",
            "9 E messages: lets nothing through",
            "10 E recipients: ",
            "11 E rate: hosts, connections, connects, messages, recipients",
        ],
    ),
    (
        "[[site]]\nhosts = [\"mx.test\", \"b.test\"]\nconnections = 5\n[[site]]\nhosts = [\"b.test\"]\nconnections = 201",
        &["9 W hosts: `b.test` stands in an earlier", "10 W connections: more than all deliveries at once"],
    ),
    (
        "[[site]]\nhosts = [\"*\"]\nconnections = 5\n[[site]]\nhosts = [\"b.test\"]\nconnections = 6",
        &["8 W site: an earlier one is for all hosts"],
    ),
    ("[overload]\ninodes = 3", &["6 E inodes: memory, memory_limit, descriptors, queue_depth, commit_latency"]),
    // Kinds of values, and several mistakes at once.
    ("listener = 5", &["5 E listener: [[listener]]"]),
    ("[listener]\naddress = \"127.0.0.1:2525\"", &["5 E listener: [[listener]]"]),
    ("[[tls]]\nkey = \"key.pem\"", &["5 E certificate: missing"]),
    ("tls = [5]", &["5 E tls: not any number of tables; write [tls], or [[tls]]"]),
    ("relay_domains = [\"dest.test\", 5, true]", &["5 E relay_domains: a number", "5 E relay_domains: true"]),
    ("[limits]\nrecipients = 1.5\nconnections = \"many\"", &["6 E recipients: a fraction", "7 E connections: text"]),
    // A mistake causes no further findings.
    ("listener = [@submission]\n@account\ntls = 1\nrelay_from = []", &["7 E tls: no table"]),
    ("listener = [@mx, @submission]\naccount = 1\n@tls", &["6 E account: [[account]]"]),
    ("@account\n@tls\nlistener = [{ address = \"127.0.0.1:2525\", role = \"msa\" }]", &["7 E role: mx"]),
    ("relay_domains = [\"a.test\"]\n[[route]]\ndomains = [\"dest.test\"]\nto = \"mars\"", &["8 E to: mars"]),
    (
        "color = 1\n[offers]\nmusic = true\ndsn = 1\n[[route]]\nto = \"mars\"\ndomans = [\"*\"]\n[limits]\nhold = \"1\"",
        &[
            "5 E color: limits",
            "7 E music: dsn, smtputf8",
            "8 E dsn: true or false",
            "9 E domains: missing",
            "10 E to: mars",
            "11 E domans: tags, to, tls",
            "13 E hold: span",
        ],
    ),
];

#[test]
fn relay_check_finds_everything_at_once_and_nothing_else() {
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

#[test]
fn a_route_has_100_hosts_at_most_in_all_its_groups() {
    let list = |count: u32| (0..count).map(|n| format!("\"h{n}.test:25\"")).collect::<Vec<_>>().join(", ");
    for (to, fits) in [
        (list(100), true),
        (format!("[{}]", list(100)), true),
        (list(101), false),
        (format!("[{}]", list(101)), false),
        (format!("[{}], {}", list(60), list(41)), false),
    ] {
        let (code, found) = checked(&whole(&format!("[[route]]\ndomains = [\"*\"]\nto = [{to}]")), false);
        let wanted: &[&str] = if fits { &[] } else { &["7 E to: 101 hosts, at most 100 are taken"] };
        let right = found.len() == wanted.len() && found.iter().zip(wanted).all(|(line, wanted)| is_as(line, wanted));
        assert!(right && code == Some(if fits { 0 } else { 2 }), "{code:?} {found:#?}");
    }
}

/// A row as a file.
fn whole(text: &str) -> String {
    let has = |key: &str| text.lines().any(|line| line.trim_start_matches('#').split(' ').next() == Some(key));
    let head = HEAD.map(|(key, value)| if has(key) { "\n".to_owned() } else { format!("{key} = {value}\n") });
    SHORT.iter().fold(head.concat() + text, |text, (short, long)| text.replace(short, long))
}

/// Returns `true` if a line is `FILE:LINE: KEY: [warning: ]PROBLEM; REMEDY` as wanted. Without a
/// name the file is relay.toml.
fn is_as(line: &str, wanted: &str) -> bool {
    let (place, words) = wanted.split_once(": ").expect("a row has words");
    let place: Vec<_> = place.split(' ').collect();
    let (at, severity, key) = match place[..] {
        [number, severity, key] if number.contains(':') => (number.to_owned(), severity, key),
        [number, severity, key] => (format!("relay.toml:{number}"), severity, key),
        [severity, key] => ("relay.toml".to_owned(), severity, key),
        _ => panic!("{wanted}"),
    };
    let warning = if severity == "W" { "warning: " } else { "" };
    let rest = line.strip_prefix(&format!("{at}: {key}: {warning}"));
    rest.is_some_and(|rest| !rest.starts_with("warning: ") && rest.contains(words) && rest.contains("; "))
}

/// What `relay check` ends with and says to a file.
fn checked(text: &str, readable: bool) -> (Option<i32>, Vec<String>) {
    let folder = folder(text);
    if readable {
        allow(&folder.path().join("relay.toml"), 0o644);
    }
    fs::create_dir(folder.path().join("open")).expect("the folder is ours");
    let (pipe, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("pipe"), pipe, mode, 0).expect("the folder is ours");
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

/// A folder of certificates that something is wrong with, each with its key, of
/// passwords, and of lists.
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
            ("expired2", "other.test", 2001, 2002),
            ("open", "relay.test", 2001, 2302),
        ] {
            let key = rcgen::KeyPair::generate().expect("there is enough chance");
            let mut made = rcgen::CertificateParams::new([host.to_owned()]).expect("it is a name");
            made.not_before = rcgen::date_time_ymd(from, 1, 1);
            made.not_after = rcgen::date_time_ymd(to, 1, 1);
            write(&format!("{name}.pem"), made.self_signed(&key).expect("it is whole").pem(), 0o644);
            write(&format!("{name}.key"), key.serialize_pem(), if name == "open" { 0o644 } else { 0o600 });
        }
        let rsa = support::configuration::DKIM_KEYS[0].1;
        let key = rcgen::KeyPair::generate().expect("there is enough chance");
        write("two.key", key.serialize_pem().repeat(2), 0o600);
        write("ssh.key", key.serialize_pem().replace(" PRIVATE", " OPENSSH PRIVATE"), 0o600);
        write("der.key", String::new(), 0o600);
        fs::write(folder.path().join("der.key"), key.serialize_der()).expect("the folder is ours");
        write("open_rsa.key", String::from_utf8_lossy(rsa).into_owned(), 0o644);
        write("password.txt", "s3cret pass\n".to_owned(), 0o600);
        write("open.txt", "s3cret pass\n".to_owned(), 0o644);
        write("secret.txt", "a secret of some octets\n".to_owned(), 0o600);
        write("open_secret.txt", "a secret of some octets\n".to_owned(), 0o644);
        write("empty.txt", "\n".to_owned(), 0o600);
        write("lines.txt", "s3cret\npass\n".to_owned(), 0o600);
        write("long.txt", "x".repeat(1_025), 0o600);
        write("ours.txt", "# Ours.\n\na.test\t# one\r\n  *.b.test  \n".to_owned(), 0o644);
        write("boxes.txt", "jo@a.test\na.test\njo@b.test\n*.b.test\n".to_owned(), 0o644);
        write("wrong.txt", format!("a.test\na b\nb.test\n{}", "x".repeat(1_025)), 0o644);
        write("words.txt", "An:\n\n{recipients}\n\nGr\u{fc}\u{df}e {{}}\n".to_owned(), 0o644);
        write("many.txt", "a b\n".repeat(12), 0o644);
        write("twice.txt", "a.test\nA.test\n".to_owned(), 0o644);
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

/// Which servers the system has is up to it.
#[test]
fn trust_in_the_systems_dns_servers_is_an_error_unless_they_are_on_this_host() {
    let system = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = system.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok());
    let servers: Vec<std::net::IpAddr> = servers.collect();
    let are_here = !servers.is_empty() && servers.iter().all(std::net::IpAddr::is_loopback);
    for command in ["check", "serve"] {
        let folder = folder(&whole("[delivery]\ndane = \"trust\""));
        if command == "serve" && are_here {
            continue;
        }
        let output = program().args([command, "--config", "relay.toml"]).current_dir(folder.path()).output();
        let output = output.expect("cargo built the relay");
        let said = String::from_utf8_lossy(&output.stderr);
        let is_named = said.starts_with("relay.toml:6: dane: the system's DNS servers are not on this host: ")
            && said.contains("; name one on this host that validates in [dns] servers, or say \"validate\"");
        assert_eq!((output.status.code(), is_named), (Some(if are_here { 0 } else { 2 }), !are_here), "{said}");
    }
}

#[test]
fn relay_serve_prints_the_warnings_once_and_refuses_the_errors() {
    let folder = folder(&whole("relay_domains = [\"relay.test\"]\n[limits]\nrecipients = 0"));
    let output = program().args(["serve", "--config", "relay.toml"]).current_dir(folder.path()).output();
    let output = output.expect("cargo built the relay");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("relay.toml:7: recipients: ") && errors.contains("relay.toml:5: relay_domains: warning: "));
    assert!(!folder.path().join("queue").exists(), "it has started something");
}

/// All numbers at their maximum: the relay starts, takes a message, and ends.
#[test]
fn all_numbers_at_their_maximum_work_together() {
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

/// What `check` says of a configuration with which the relay would not start.
fn refused(config: &Path) -> String {
    let said = program().args(["check", "--config"]).arg(config).output().expect("cargo built the relay");
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    String::from_utf8_lossy(&said.stderr).into_owned()
}

/// A pipe without a writer is told, and one with a configuration is read.
#[test]
fn a_configuration_may_come_through_a_pipe_and_a_silent_pipe_is_told() {
    let folder = folder("");
    let pipe = folder.path().join("pipe");
    assert!(tool("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
    let check = || refused(&pipe);
    let said = check();
    assert!(said.contains("cannot read it: it is a pipe, and nothing came for 10 seconds"), "{said}");
    let text = "hostname = \"relay.test\"\nqueue = \"queue\"\nno_key = 1\n";
    let (writes, to) = (text.to_owned(), pipe.clone());
    let writer = std::thread::spawn(move || fs::write(to, writes));
    let said = check();
    assert!(said.contains("pipe:3: no_key: "), "{said}");
    writer.join().expect("no panic").expect("the relay reads");
}

#[test]
fn a_queue_without_its_marker_is_told_how_it_gets_it_back() {
    let folder = folder("");
    fs::create_dir_all(folder.path().join("lost/log")).expect("a folder");
    fs::write(folder.path().join("lost.toml"), "hostname = \"relay.test\"\nqueue = \"lost\"\n").expect("a file");
    let said = refused(&folder.path().join("lost.toml"));
    let remedy = "leave its files there and say printf 'posthaste-queue 1\\n' > ";
    assert!(said.contains("is missing, and should mark the folder as a queue; ") && said.contains(remedy), "{said}");
}
