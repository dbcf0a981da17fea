//! Mistakes in the configuration: file, line, key, problem, remedy.

use std::{fmt, io, ops::Range};

/// A mistake, as one line for people.
#[derive(Debug)]
pub(crate) struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConfigError {
    pub(super) fn unreadable(name: &str, error: &io::Error) -> Self {
        Self(format!(
            "{name}: cannot read it: {error}; name a file that is there, or leave --config out for the defaults"
        ))
    }
}

/// The text of the configuration, to find places in. Passwords stand in it: nothing shows it whole.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// What to write for each key; `table.key`, or `key` outside of tables.
const REMEDIES: &[(&str, &str)] = &[
    ("hostname", "write this host's name, such as \"relay.example.org\""),
    ("queue", "write the folder of the queue, such as \"/var/lib/posthaste/queue\""),
    ("relay_from", "write networks, such as [\"192.0.2.0/24\", \"2001:db8::/32\"]"),
    ("relay_domains", "write domains, such as [\"example.org\", \"*.example.org\"]"),
    ("listener.address", "write an address with a port, such as \"127.0.0.1:2525\" or \"[::]:25\""),
    ("listener.role", "write \"mx\" or \"submission\""),
    ("listener.tls", "write \"off\", \"starttls\" or \"implicit\""),
    ("tls.certificate", "write the name of a PEM file with the certificate chain"),
    ("tls.key", "write the name of a PEM file with the private key"),
    ("account.name", "write the name to log in with"),
    ("account.password", "write the password"),
    ("account.verifier", "write what `relay verifier` prints"),
    ("route.domains", "write domains, such as [\"example.org\", \"*.example.org\"], or [\"*\"] for all"),
    ("route.to", "write \"mx\", or a list of hosts with ports, such as [\"smarthost.example.org:25\"]"),
    ("route.tls", "write \"off\", \"opportunistic\", \"required\", \"verified\" or \"unverified\""),
    ("route.chunking", "write true or false"),
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
    ("delivery.retry", "write waits, such as [\"1m\", \"5m\", \"1h\"]"),
    ("delivery.expire_after", "write a span of time, such as \"5d\""),
    ("delivery.warn_after", "write a span of time, such as \"4h\", or \"never\""),
    ("delivery.authorities", "write the name of a PEM file with certificates"),
    ("delivery.timeout", "write a span of time, such as \"5m\""),
    ("delivery.concurrency", "write a number from 1 to 65535"),
    ("delivery.concurrency_per_site", "write a number from 1 to 65535"),
    ("limits.message_size", "write a number of octets from 65536, such as 52428800"),
    ("limits.returned_size", "write a number of octets up to 4194304, such as 1048576"),
    ("limits.hold", "write a span of time of up to a year, such as \"30d\""),
    ("limits.recipients", "write a number from 1 to 65535"),
    ("limits.connections", "write a number from 1 to 65535"),
];

/// Keys whose values no message shows.
const SECRETS: &[&str] = &["account.password", "account.verifier"];

impl Source {
    pub(super) fn new(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), text }
    }

    /// A mistake that was found after reading; the problem brings its remedy along.
    pub(super) fn mistake(&self, span: Range<usize>, problem: &str) -> ConfigError {
        let (line, key, _) = self.place(span.start);
        ConfigError(format!("{}:{line}: {key}: {problem}", self.name))
    }

    /// A mistake that was found while reading.
    pub(super) fn refused(&self, error: &toml::de::Error) -> ConfigError {
        let (line, found, path) = self.place(error.span().map_or(0, |span| span.start));
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let quoted = message.split('`').nth(1).unwrap_or_default();
        let (key, problem, remedy) = if message.starts_with("missing field") {
            let remedy = remedy(&format!("{found}.{quoted}")).unwrap_or("add it");
            (quoted, "it is missing".to_owned(), remedy.to_owned())
        } else if let Some((_, known)) =
            message.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected "))
        {
            (quoted, "there is no such key".to_owned(), format!("write {}", known.replace('`', "")))
        } else {
            let remedy = remedy(&path).unwrap_or("see the commented sample configuration");
            // It would quote what it found.
            let is_secret = SECRETS.contains(&path.as_str()) && message.starts_with("invalid type");
            let problem = if is_secret { "it is no text in quotes".to_owned() } else { message.clone() };
            (found.as_str(), problem, remedy.to_owned())
        };
        ConfigError(format!("{}:{line}: {key}: {problem}; {remedy}", self.name))
    }

    /// The line of an octet, the key that stands there, and its path with the table; for a table's head, the table.
    fn place(&self, offset: usize) -> (usize, String, String) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let number = before.matches('\n').count() + 1;
        let lines: Vec<_> = self.text.lines().take(number).collect();
        // A value may go over several lines: the key stands on the last one that has one.
        let mut key = None;
        for line in lines.iter().rev() {
            let line = line.trim();
            if let Some(table) = line.strip_prefix('[').filter(|_| !line.contains('"') && line.ends_with(']')) {
                let table = table.trim_matches(['[', ']']).trim().to_owned();
                return match key {
                    None => (number, table.clone(), table),
                    Some(key) => (number, String::clone(&key), format!("{table}.{key}")),
                };
            }
            if let (None, Some((name, _))) = (&key, line.split_once('=')) {
                key = Some(name.trim().to_owned());
            }
        }
        let key = key.unwrap_or_default();
        (number, key.clone(), key)
    }
}

fn remedy(path: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(key, _)| *key == path).map(|(_, remedy)| *remedy)
}
