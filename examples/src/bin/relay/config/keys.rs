//! Every key, and what to write for it.

/// `table.key`, or `key` outside of tables. Tables stand under their own names.
const KEYS: &[(&str, &str)] = &[
    ("hostname", "write this host's name, such as \"relay.example.org\""),
    ("postmaster", "write a mailbox at another domain, such as \"someone@example.org\""),
    ("queue", "write the folder of the queue, such as \"/var/lib/posthaste/queue\""),
    ("relay_from", "write networks, such as [\"192.0.2.0/24\", \"2001:db8::/32\"]"),
    ("relay_domains", "write domains, such as [\"example.org\", \"*.example.org\"], or { file = \"...\" }"),
    ("listener", "write [[listener]]"),
    ("refuse", "write [refuse]"),
    ("tls", "write [tls], or [[tls]] for each of several certificates"),
    ("account", "write [[account]]"),
    ("route", "write [[route]]"),
    ("dkim", "write [[dkim]]"),
    ("submission", "write [submission]"),
    ("dns", "write [dns]"),
    ("offers", "write [offers]"),
    ("delivery", "write [delivery]"),
    ("limits", "write [limits]"),
    ("overload", "write [overload]"),
    ("listener.address", "write an address with a port, such as \"127.0.0.1:2525\" or \"[::]:25\""),
    ("listener.role", "write \"mx\" or \"submission\""),
    ("listener.tls", "write \"off\", \"starttls\" or \"implicit\""),
    (
        "listener.tolerate",
        "write some of [\"dots\", \"underscores\", \"blanks\", \"hello\", \"bare_paths\", \"bare_names\", \"final_dots\"]",
    ),
    ("listener.greeting_delay", "write a span of time from a second to a minute, such as \"2s\""),
    ("listener.proxies", "write the networks of proxies, such as [\"192.0.2.7/32\"]"),
    ("listener.xclient", "write the networks of proxies, such as [\"192.0.2.7/32\"]"),
    ("listener.xforward", "write the networks of content filters, such as [\"192.0.2.7/32\"]"),
    ("refuse.networks", "write networks, such as [\"192.0.2.0/24\", \"2001:db8::/32\"]"),
    ("refuse.hello", "write names, such as [\"ylmf-pc\", \"*.dyn.example.net\"]"),
    (
        "refuse.senders",
        "write mailboxes and domains, such as [\"someone@example.org\", \"example.com\", \"*.example.com\"]",
    ),
    ("tls.certificate", "write the name of a PEM file with the certificate chain"),
    ("tls.key", "write the name of a PEM file with the private key"),
    ("account.name", "write the name to log in with"),
    ("account.password", "write the password"),
    ("account.verifier", "write what `relay verifier` prints"),
    (
        "route.domains",
        "write domains, such as [\"example.org\", \"*.example.org\"], [\"*\"] for all, or { file = \"...\" }",
    ),
    ("route.to", "write \"mx\", or a list of hosts with ports, such as [\"smarthost.example.org:25\"]"),
    ("route.tls", "write \"off\", \"opportunistic\", \"required\", \"verified\", \"unverified\" or \"implicit\""),
    ("route.authorities", "write the name of a PEM file with certificates"),
    ("route.login", "write { user = \"...\", password_file = \"...\" }"),
    (
        "route.recipients",
        "write \"unknown\", or mailboxes and domains, such as [\"someone@example.org\"], or { file = \"...\" }",
    ),
    ("route.chunking", "write true or false"),
    ("relay_domains.file", "write the name of a file with a domain a line, such as example.org or *.example.org"),
    ("domains.file", "write the name of a file with a domain a line, such as example.org or *.example.org"),
    ("recipients.file", "write the name of a file with a mailbox or a domain a line, such as someone@example.org"),
    ("login.user", "write the name that the host knows"),
    ("login.password_file", "write the name of a file that has the password as its one line"),
    ("dkim.domain", "write the domain whose mail it signs, such as \"example.org\""),
    ("dkim.selector", "write the name under which it is published, such as \"2026a\""),
    ("dkim.key", "write the name of a PEM file with the private key"),
    ("dkim.begins", "write a date or a moment without quotes, such as 2026-12-31 or 2026-12-31T12:00:00Z"),
    ("dkim.ends", "write a date or a moment without quotes, such as 2026-12-31 or 2026-12-31T12:00:00Z"),
    ("dkim.subdomains", "write true or false"),
    ("submission.add_fields", "write \"submission\", \"trusted\" or \"off\""),
    ("submission.sign", "write \"submission\" or \"trusted\""),
    ("submission.unsignable", "write \"refuse\" or \"send\""),
    ("dns.servers", "write addresses with ports, such as [\"127.0.0.1:53\"]"),
    ("offers.dsn", "write true or false"),
    ("offers.smtputf8", "write true or false"),
    ("offers.chunking", "write true or false"),
    ("offers.binarymime", "write true or false"),
    ("offers.deliverby", "write true or false"),
    ("offers.futurerelease", "write true or false"),
    ("offers.mt_priority", "write true or false"),
    ("offers.rrvs", "write true or false"),
    ("offers.requiretls", "write true or false"),
    ("delivery.mx_port", "write a port from 1 to 65535"),
    ("delivery.allow_loopback", "write true or false"),
    ("delivery.retry", "write waits from a second to 366 days, such as [\"1m\", \"5m\", \"1h\"]"),
    ("delivery.expire_after", "write a span of time from a second to 366 days, such as \"5d\""),
    ("delivery.warn_after", "write a span of time from a second to 366 days, such as \"4h\", or \"never\""),
    ("delivery.authorities", "write the name of a PEM file with certificates"),
    ("delivery.dane", "write \"off\", \"trust\" or \"validate\""),
    ("delivery.mta_sts", "write true or false"),
    ("delivery.timeout", "write a span of time from a second to a day, such as \"5m\""),
    ("delivery.concurrency", "write a number from 1 to 65535"),
    ("delivery.concurrency_per_site", "write a number from 1 to 65535"),
    ("limits.message_size", "write a number of octets from 65536, such as 52428800"),
    ("limits.returned_size", "write a number of octets up to 4194304, such as 1048576"),
    ("limits.hold", "write a span of time from a second to 366 days, such as \"30d\""),
    ("limits.recipients", "write a number from 1 to 10000"),
    ("limits.connections", "write a number from 1 to 65535"),
    ("limits.connections_per_network", "write a number from 1 to 65535"),
    ("limits.ipv4_prefix", "write a number of bits from 8 to 32, such as 32"),
    ("limits.ipv6_prefix", "write a number of bits from 8 to 128, such as 64"),
    ("limits.envelope_memory", "write a number of octets, such as 33554432"),
    ("limits.idle_commands", "write a number from 1 to 65535"),
    ("limits.message_within", "write a span of time from a second to a day, such as \"20m\""),
    ("limits.minimum_rate", "write a number of octets a second, such as 100, or 0 for none"),
    ("limits.recipients_per_hour", "write a number from 1 to 1000000, such as 500"),
    ("limits.user_recipients_per_hour", "write a number from 1 to 1000000, such as 500"),
    ("limits.failed_logins", "write a number up to 65535"),
    ("limits.login_pace", "write a span of time from a second to a day, such as \"2s\""),
    ("overload.memory", "write a part in percent from 10 to 100, such as 90"),
    ("overload.memory_limit", "write a number of octets from 33554432, such as 268435456"),
    ("overload.descriptors", "write a part in percent from 10 to 100, such as 93"),
    ("overload.queue_depth", "write a number of deliveries from 1000, such as 8000000"),
    ("overload.commit_latency", "write a span of time from a second to a day, such as \"8s\""),
];

/// What to write for a key of a table; the file itself is the table "".
pub(super) fn remedy(table: &str, key: &str) -> &'static str {
    let found = KEYS.iter().find(|(path, _)| split(path) == (table, key));
    found.map_or("see the commented sample configuration", |(_, remedy)| remedy)
}

/// The keys of a table, as a list for people.
pub(super) fn known(table: &str) -> String {
    let keys: Vec<_> = KEYS.iter().map(|(path, _)| split(path)).filter(|(of, _)| *of == table).collect();
    keys.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(", ")
}

fn split(path: &'static str) -> (&'static str, &'static str) {
    path.split_once('.').unwrap_or(("", path))
}
