//! Values with a syntax of their own. An error says what is wrong, and `keys.rs` what to write
//! instead. No error shows the value of a secret.

use std::{
    borrow::Cow,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use jiff::{Span, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};
use posthaste::queue::{MAX_DELAY, MAX_DELIVERIES};
use posthaste::relay::{
    AddFields, DomainPattern, IpNet, MailboxPattern, Rate, SenderRule, SignFor, TagField, Unsignable,
};
use posthaste::server::{
    NameSet, ScramKey,
    session::{sasl::prepare, server::Tolerance},
    wire::{Domain, Mailbox, Secret},
};
use toml::de::DeValue;

use super::{
    file::{Dane, Excess, ListenerTls, Role},
    route::{Mailboxes, RouteTls},
    table::{Read, kind},
};

/// The longest wait for a next hop.
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Read<&'v str> {
    value.as_str().ok_or_else(|| format!("it is {} and no text in quotes", kind(value)))
}

pub(super) fn path(value: &DeValue<'_>) -> Read<PathBuf> {
    match text(value)? {
        "" => Err("it is empty".to_owned()),
        path => Ok(path.into()),
    }
}

/// A host name in the form in which it goes over the wire.
pub(super) fn domain(value: &DeValue<'_>) -> Read<Domain> {
    let domain: Domain = parsed(value)?;
    match domain.as_str().is_ascii() {
        true => Ok(domain),
        false => domain.to_a_labels().map_err(|_| format!("`{domain}` cannot be in the DNS")),
    }
}

pub(super) fn mailbox(value: &DeValue<'_>) -> Read<Mailbox> {
    let mailbox: Mailbox = parsed(value)?;
    let ascii = mailbox.to_a_labels().map_err(|_| format!("the domain of `{mailbox}` cannot be in the DNS"))?;
    match ascii.is_ascii() {
        true => Ok(ascii),
        false => Err(format!("`{mailbox}` is not in ASCII, and some mail could not be sent there")),
    }
}

pub(super) fn address(value: &DeValue<'_>) -> Read<SocketAddr> {
    let address: SocketAddr = parsed(value)?;
    match address.port() {
        0 => Err(format!("`{address}` has no port")),
        _ => Ok(address),
    }
}

pub(super) fn network(value: &DeValue<'_>) -> Read<IpNet> {
    let text = text(value)?;
    match (text.parse::<IpAddr>(), parsed_text(text)) {
        (Ok(address), Err(_)) => {
            let length = if address.is_ipv4() { 32 } else { 128 };
            Err(format!("`{text}` is an address; the network of it alone is `{text}/{length}`"))
        }
        (_, network) => network,
    }
}

pub(super) fn pattern(text: &str) -> Read<DomainPattern> {
    parsed_text(text)
}

/// A mailbox, a domain, or those below one.
pub(super) fn mailbox_pattern(text: &str) -> Read<MailboxPattern> {
    parsed_text(text)
}

/// What is known of mailboxes without a list.
pub(super) fn mailboxes(value: &DeValue<'_>) -> Read<Mailboxes> {
    word(value, &[("unknown", ())]).map(|()| Mailboxes::Unknown)
}

/// A name in EHLO, or those below one.
pub(super) fn hello_pattern(value: &DeValue<'_>) -> Read<String> {
    match name_pattern(value)? {
        mailbox if mailbox.contains('@') => Err(format!("`{mailbox}` is a mailbox and no name")),
        name => Ok(name),
    }
}

/// A mailbox, a domain, or those below one.
pub(super) fn sender_pattern(value: &DeValue<'_>) -> Read<String> {
    name_pattern(value)
}

fn name_pattern(value: &DeValue<'_>) -> Read<String> {
    let text = text(value)?;
    match NameSet::default().push(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is no name")),
    }
}

pub(super) fn account_name(value: &DeValue<'_>) -> Read<String> {
    prepared(text(value)?)
}

pub(super) fn password(value: &DeValue<'_>) -> Read<Secret<String>> {
    prepared(text(value)?).map(Secret::new)
}

/// A name or a password as SASL sends it.
pub(super) fn prepared(text: &str) -> Read<String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    // What no client's side of SASL would send.
    let prepared = prepare(text).map(Cow::into_owned);
    prepared.map_err(|_| "it has characters in it that SASLprep (RFC 4013) does not take".to_owned())
}

pub(super) fn verifier(value: &DeValue<'_>) -> Read<ScramKey> {
    // The text itself has no place in a message.
    text(value)?.parse().map_err(|error| format!("{error}"))
}

pub(super) fn flag(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| format!("it is {}, and neither true nor false", kind(value)))
}

fn number(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Read<u64> {
    let number = value.as_integer().ok_or_else(|| format!("it is {} and no number", kind(value)))?;
    let number = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
    match u64::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ if number < i128::from(*range.start()) => Err(format!("{number} is not enough")),
        _ => Err(format!("{number} is too much")),
    }
}

/// What the queue takes of a message.
pub(super) fn recipients(value: &DeValue<'_>) -> Read<u16> {
    let most = u64::try_from(MAX_DELIVERIES).unwrap_or(u64::MAX).min(u16::MAX.into());
    whole(value, 1..=most)
}

pub(super) fn positive(value: &DeValue<'_>) -> Read<u16> {
    whole(value, 1..=u16::MAX.into())
}

fn whole<T: TryFrom<u64, Error: Display>>(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Read<T> {
    T::try_from(number(value, range)?).map_err(|error| error.to_string())
}

/// With less than 8 bits, a few networks would be the whole Internet.
const LEAST_PREFIX: u64 = 8;

pub(super) fn ipv4_prefix(value: &DeValue<'_>) -> Read<u8> {
    whole(value, LEAST_PREFIX..=32)
}

pub(super) fn ipv6_prefix(value: &DeValue<'_>) -> Read<u8> {
    whole(value, LEAST_PREFIX..=128)
}

pub(super) fn octets(value: &DeValue<'_>) -> Read<u32> {
    whole(value, 0..=u32::MAX.into())
}

pub(super) fn count(value: &DeValue<'_>) -> Read<u16> {
    whole(value, 0..=u16::MAX.into())
}

/// A part of what the relay may have.
pub(super) fn percent(value: &DeValue<'_>) -> Read<u8> {
    whole(value, 10..=100)
}

/// Octets of memory. With less than 32 MiB the relay could take no mail at all.
pub(super) fn memory_limit(value: &DeValue<'_>) -> Read<u64> {
    number(value, 33_554_432..=i64::MAX.unsigned_abs())
}

/// Deliveries in the queue.
pub(super) fn depth(value: &DeValue<'_>) -> Read<u64> {
    number(value, 1_000..=i64::MAX.unsigned_abs())
}

/// Recipients of an hour.
pub(super) fn hourly(value: &DeValue<'_>) -> Read<u32> {
    whole(value, 1..=1_000_000)
}

pub(super) fn message_size(value: &DeValue<'_>) -> Read<u64> {
    // RFC 5321 section 4.5.3.1.7.
    number(value, 65_536..=i64::MAX.unsigned_abs())
}

pub(super) fn returned_size(value: &DeValue<'_>) -> Read<u64> {
    number(value, 0..=4_194_304)
}

/// A span of time for which the queue keeps something.
pub(super) fn wait(value: &DeValue<'_>) -> Read<Duration> {
    bounded(text(value)?, MAX_DELAY)
}

pub(super) fn timeout(value: &DeValue<'_>) -> Read<Duration> {
    bounded(text(value)?, DAY)
}

/// How many in a time of a second to a day.
pub(super) fn rate(value: &DeValue<'_>) -> Read<Rate> {
    let text = text(value)?;
    let (count, period) = text.split_once('/').ok_or_else(|| format!("`{text}` has no `/` before the time"))?;
    let count = count.trim();
    let number = count.parse().map_err(|_| format!("`{count}` is no number from 1 to {}", u32::MAX))?;
    let period = bounded(period.trim(), DAY)?;
    Rate::new(number, period).ok_or_else(|| format!("{count} in {} lets nothing through", span(period)))
}

/// How long a greeting waits. Clients wait 5 minutes for it (RFC 5321 section 4.5.3.2.1).
pub(super) fn greeting_delay(value: &DeValue<'_>) -> Read<Duration> {
    bounded(text(value)?, Duration::from_secs(60))
}

/// A span of time, or `never`.
pub(super) fn warning(value: &DeValue<'_>) -> Read<Option<Duration>> {
    match text(value)? {
        "never" => Ok(None),
        text => bounded(text, MAX_DELAY).map(Some),
    }
}

/// A span of time such as `5m`.
fn bounded(text: &str, most: Duration) -> Read<Duration> {
    let written = text.parse::<Span>().map_err(|_| format!("`{text}` is no span of time"))?;
    let duration = written.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default();
    if duration < Duration::from_secs(1) {
        return Err(format!("`{text}` is less than a second"));
    }
    if duration > most {
        return Err(format!("`{text}` is more than {}", span(most)));
    }
    Ok(duration)
}

/// A span of time as it is written in the file.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

/// A word among some.
fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Read<T> {
    let text = text(value)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| format!("`{text}` is not one of the words for it"))
}

pub(super) fn role(value: &DeValue<'_>) -> Read<Role> {
    word(value, &[("mx", Role::Mx), ("submission", Role::Submission)])
}

pub(super) fn listener_tls(value: &DeValue<'_>) -> Read<ListenerTls> {
    let words = [("off", ListenerTls::Off), ("starttls", ListenerTls::Starttls), ("implicit", ListenerTls::Implicit)];
    word(value, &words)
}

/// A departure from the grammar that can be tolerated.
pub(super) fn departure(value: &DeValue<'_>) -> Read<&'static str> {
    word(value, &Tolerance::SWITCHES.map(|name| (name, name)))
}

pub(super) fn route_tls(value: &DeValue<'_>) -> Read<RouteTls> {
    let words = [
        ("off", RouteTls::Off),
        ("opportunistic", RouteTls::Opportunistic),
        ("required", RouteTls::Required),
        ("verified", RouteTls::Verified),
        ("unverified", RouteTls::Unverified),
        ("implicit", RouteTls::Implicit),
    ];
    word(value, &words)
}

pub(super) fn dane(value: &DeValue<'_>) -> Read<Dane> {
    word(value, &[("off", Dane::Off), ("trust", Dane::Trust), ("validate", Dane::Validate)])
}

pub(super) fn add_fields(value: &DeValue<'_>) -> Read<AddFields> {
    let words = [("off", AddFields::Never), ("submission", AddFields::Submitted), ("trusted", AddFields::Trusted)];
    word(value, &words)
}

pub(super) fn sign(value: &DeValue<'_>) -> Read<SignFor> {
    word(value, &[("submission", SignFor::Submitted), ("trusted", SignFor::Trusted)])
}

pub(super) fn sender_rule(value: &DeValue<'_>) -> Read<SenderRule> {
    word(value, &[("any", SenderRule::Any), ("own", SenderRule::Own)])
}

pub(super) fn tag_field(value: &DeValue<'_>) -> Read<TagField> {
    text(value)?.parse().map_err(|error| format!("{error}"))
}

pub(super) fn excess(value: &DeValue<'_>) -> Read<Excess> {
    word(value, &[("defer", Excess::Defer), ("refuse", Excess::Refuse)])
}

/// Octets of a header: room for what every message has, at least.
pub(super) fn header_size(value: &DeValue<'_>) -> Read<u32> {
    whole(value, 4_096..=u32::MAX.into())
}

pub(super) fn unsignable(value: &DeValue<'_>) -> Read<Unsignable> {
    word(value, &[("refuse", Unsignable::Refuse), ("send", Unsignable::Send)])
}

/// A moment, or a date for its beginning in UTC. TOML has both without quotes.
pub(super) fn time(value: &DeValue<'_>) -> Read<Timestamp> {
    let written = value.as_datetime().ok_or_else(|| format!("it is {} and no date", kind(value)))?.to_string();
    let moment = written.parse::<Timestamp>().ok();
    let day = || written.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let is_day = !written.contains(['T', ':']);
    moment.or_else(|| if is_day { day() } else { None }).ok_or_else(|| format!("`{written}` has no offset from UTC"))
}

/// What stands before a blank, and the weight after it, which is 1 if there is none.
pub(super) fn weighted(written: &str) -> Read<(&str, u16)> {
    let Some((name, weight)) = written.split_once(' ') else { return Ok((written, 1)) };
    let number = weight.trim().parse().ok().filter(|number| (1..=MOST_WEIGHT).contains(number));
    Ok((name, number.ok_or_else(|| format!("`{weight}` is no weight from 1 to {MOST_WEIGHT}"))?))
}

/// A name without blanks.
pub(super) fn source_name(value: &DeValue<'_>) -> Read<String> {
    let name = text(value)?;
    let is_name = !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_graphic());
    is_name.then(|| name.to_owned()).ok_or_else(|| format!("`{name}` is no name"))
}

/// Messages of a day.
pub(super) fn of_a_day(value: &DeValue<'_>) -> Read<u32> {
    whole(value, 0..=u32::MAX.into())
}

pub(super) fn ip(value: &DeValue<'_>) -> Read<IpAddr> {
    parsed(value)
}

/// More would say nothing more.
const MOST_WEIGHT: u16 = 1_000;

fn parsed<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Read<T> {
    parsed_text(text(value)?)
}

fn parsed_text<T: FromStr<Err: Display>>(text: &str) -> Read<T> {
    text.parse().map_err(|error| format!("`{text}`: {error}"))
}
