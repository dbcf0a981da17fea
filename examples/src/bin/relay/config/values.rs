//! Values that have a form of their own. Each refusal says what is wrong; what to write instead stands with the keys, in
//! `error.rs`.

use std::{borrow::Cow, fmt::Display, net::SocketAddr, str::FromStr, time::Duration};

use jiff::{Span, SpanRelativeTo};
use posthaste_client::HostName;
use posthaste_queue::MAX_DELAY;
use posthaste_relay::{DomainPattern, IpNet};
use posthaste_server::{
    ScramKey,
    session::sasl::prepare,
    wire::{Domain, Secret},
};
use serde::{Deserialize, Deserializer, de::Error};
use toml::Spanned;

use super::file::{Role, RouteTls, To};

pub(super) fn mx() -> Spanned<Role> {
    Spanned::new(0..0, Role::Mx)
}

pub(super) fn opportunistic() -> Spanned<RouteTls> {
    Spanned::new(0..0, RouteTls::Opportunistic)
}

pub(super) const fn yes() -> bool {
    true
}

pub(super) fn domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Domain>, D::Error> {
    parsed(deserializer).map(Some)
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parsed(deserializer)
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    all_parsed(deserializer)
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    all_parsed(deserializer)
}

pub(super) fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DomainPattern>, D::Error> {
    all_parsed(deserializer)
}

pub(super) fn account_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    prepared(&text).map_err(D::Error::custom)
}

pub(super) fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret<String>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    prepared(&text).map(|text| Some(Secret::new(text))).map_err(D::Error::custom)
}

fn prepared(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    // What no client's side of SASL would send.
    prepare(text).map(Cow::into_owned).map_err(|_| "it has characters in it that SASLprep (RFC 4013) does not take")
}

pub(super) fn verifier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ScramKey>, D::Error> {
    // The text itself has no place in a message.
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => Err(D::Error::custom("0 is not enough")),
        number => Ok(Some(number)),
    }
}

pub(super) fn message_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    // RFC 5321 section 4.5.3.1.7.
    match u64::deserialize(deserializer)? {
        octets @ 65_536.. => Ok(Some(octets)),
        octets => Err(D::Error::custom(format_args!("{octets} octets are too few"))),
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed::<Wait, D>(deserializer).map(|wait| Some(wait.0))
}

/// A span of time, or `never`.
pub(super) fn warning<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Duration>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "never" {
        return Ok(Some(None));
    }
    let wait: Wait = text.parse().map_err(|error| D::Error::custom(format_args!("`{text}`: {error}")))?;
    Ok(Some(Some(wait.0)))
}

pub(super) fn hold<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let wait: Wait = parsed(deserializer)?;
    if wait.0 > MAX_DELAY {
        let days = MAX_DELAY.as_secs() / 86_400;
        return Err(D::Error::custom(format_args!("nothing is held for more than {days} days")));
    }
    Ok(Some(wait.0))
}

pub(super) fn returned_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(deserializer)? {
        octets @ ..=4_194_304 => Ok(Some(octets)),
        octets => Err(D::Error::custom(format_args!("{octets} octets are too many"))),
    }
}

pub(super) fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Duration>>, D::Error> {
    let waits = all_parsed::<Wait, D>(deserializer)?;
    if waits.is_empty() {
        return Err(D::Error::custom("the list is empty"));
    }
    Ok(Some(waits.into_iter().map(|wait| wait.0).collect()))
}

pub(super) fn to<'de, D: Deserializer<'de>>(deserializer: D) -> Result<To, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        One(String),
        Many(Vec<String>),
    }
    match Text::deserialize(deserializer)? {
        Text::One(word) if word == "mx" => Ok(To::Mx),
        Text::One(word) => Err(D::Error::custom(format_args!("`{word}` is no next hop"))),
        Text::Many(hosts) if hosts.is_empty() => Err(D::Error::custom("the list is empty")),
        Text::Many(hosts) => {
            let hosts = hosts.iter().map(|host| {
                host_and_port(host).ok_or_else(|| D::Error::custom(format_args!("`{host}` is no host:port")))
            });
            hosts.collect::<Result<_, _>>().map(To::Hosts)
        }
    }
}

/// `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; addresses become the literals that mail uses, and names are as the
/// DNS has them, in A-labels.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(_)) => format!("[{host}]"),
        Ok(SocketAddr::V6(address)) => format!("[IPv6:{}]", address.ip()),
        // Letters, digits, hyphens and underscores: what else the DNS could hold is a slip of the pen here.
        Err(_) => HostName::parse(host).ok().filter(HostName::is_plain)?.into(),
    };
    Some((host, port))
}

/// A span of time such as `5m`.
struct Wait(Duration);

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.parse::<Span>().map_err(|_| "it is no span of time".to_owned())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
        let duration = duration.and_then(|duration| Duration::try_from(duration).ok()).filter(|wait| !wait.is_zero());
        duration.map(Wait).ok_or_else(|| "it is not above zero".to_owned())
    }
}

fn parsed<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format_args!("`{text}`: {error}")))
}

fn all_parsed<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed =
        texts.iter().map(|text| text.parse().map_err(|error| D::Error::custom(format_args!("`{text}`: {error}"))));
    parsed.collect()
}
