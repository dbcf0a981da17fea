//! Where a route leads: by MX, to hosts, nowhere, or to what is no host. From the file to what the
//! relay takes, and to what people read.

use std::net::SocketAddr;

use posthaste::client::{HostName, Protocol};
use posthaste::relay::{HostGroup, NextHop, WeightedHost};
use posthaste::server::{
    Refusal,
    wire::{EnhancedCode, Reply, ReplyCode},
};
use toml::de::DeValue;

use super::{
    findings::{At, Findings, Place},
    table::{Read, Table, kind},
    to::Hop,
    values,
};

#[derive(Debug, Clone)]
pub(super) enum To {
    Mx,
    /// By group.
    Hosts(Vec<Vec<At<Host>>>),
    Refuse(Refusal),
    Discard,
    Hold,
    /// To what is no host.
    Hop(Hop),
}

#[derive(Debug, Clone)]
pub(super) struct Host {
    /// A name, or an address literal.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) weight: u16,
    /// `true`: it speaks LMTP, as all hosts of its route do.
    pub(super) is_lmtp: bool,
}

/// Hosts of one route. Each site with the route may look all of them up and keep their addresses.
const MOST_HOSTS: usize = 100;

impl To {
    pub(super) fn read(table: &mut Table<'_>, findings: &mut Findings) -> Option<At<Self>> {
        match table.is_list("to") {
            true => {
                let groups = table.groups("to", findings, weighted_host)?;
                let hosts = groups.value.iter().map(Vec::len).fold(0, usize::saturating_add);
                if hosts > MOST_HOSTS {
                    findings.error(
                        groups.place,
                        format_args!(
                            "{hosts} hosts, at most {MOST_HOSTS} are taken; write fewer, or one name with the \
                             addresses of several in the DNS"
                        ),
                    );
                    return None;
                }
                let mut all = groups.value.iter().flatten();
                let first = all.next().is_some_and(|host| host.value.is_lmtp);
                if let Some(other) = all.find(|host| host.value.is_lmtp != first) {
                    let text = "hosts that speak LMTP and hosts that speak SMTP are in one list";
                    findings.error(other.place, format_args!("{text}; write a [[route]] for each protocol"));
                    return None;
                }
                Some(At { value: Self::Hosts(groups.value), place: groups.place })
            }
            false => {
                let mut to = table.need("to", findings, Self::word)?;
                if let Self::Hosts(groups) = &mut to.value {
                    groups.iter_mut().flatten().for_each(|host| host.place = to.place);
                }
                Some(to)
            }
        }
    }

    fn word(value: &DeValue<'_>) -> Read<Self> {
        let Some(text) = value.as_str() else { return Err(format!("it is {} and no next hop", kind(value))) };
        match text.split_once(' ') {
            None if text == "mx" => Ok(Self::Mx),
            None if text == "discard" => Ok(Self::Discard),
            None if text == "hold" => Ok(Self::Hold),
            None if text == "refuse" => Err("it has no reply".to_owned()),
            Some(("refuse", reply)) => refusal(reply).map(Self::Refuse),
            _ if text.starts_with("lmtp:") && !text.starts_with("lmtp:unix:") => {
                let value = weighted_host(value)?;
                Ok(Self::Hosts(vec![vec![At { value, place: Place::absent("to") }]]))
            }
            _ => Hop::read(text).map_or_else(|| Err(format!("`{text}` is no next hop")), |hop| hop.map(Self::Hop)),
        }
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Hop(hop) => hop.text(),
            Self::Mx | Self::Hosts(_) | Self::Refuse(_) | Self::Discard | Self::Hold => {
                let is_lmtp =
                    matches!(self, Self::Hosts(groups) if groups.iter().flatten().any(|host| host.value.is_lmtp));
                let protocol = if is_lmtp { Protocol::Lmtp } else { Protocol::Smtp };
                self.next_hop().map_or_else(String::new, |next_hop| text_of(&next_hop, protocol))
            }
        }
    }

    /// `None`: it is no host.
    pub(super) fn next_hop(&self) -> Option<NextHop> {
        let host = |host: &At<Host>| {
            let Host { name, port, weight, is_lmtp: _ } = &host.value;
            let mut host = WeightedHost::new(name.clone(), *port);
            host.weight = *weight;
            host
        };
        Some(match self {
            Self::Mx => NextHop::Mx,
            Self::Hosts(groups) => {
                NextHop::Hosts(groups.iter().map(|hosts| HostGroup(hosts.iter().map(host).collect())).collect())
            }
            Self::Refuse(refusal) => NextHop::Refuse(refusal.clone()),
            Self::Discard => NextHop::Discard,
            Self::Hold => NextHop::Hold,
            Self::Hop(_) => return None,
        })
    }
}

/// A next hop as people read it.
pub(crate) fn text_of(next_hop: &NextHop, protocol: Protocol) -> String {
    let lmtp = if protocol == Protocol::Lmtp { "lmtp:" } else { "" };
    let group = |HostGroup(hosts): &HostGroup| {
        let host = |WeightedHost { name, port, weight, .. }: &WeightedHost| match hosts.len() {
            1 if *port == 0 => format!("{lmtp}{name}"),
            1 => format!("{lmtp}{name}:{port}"),
            _ => format!("{lmtp}{name}:{port} ({weight})"),
        };
        hosts.iter().map(host).collect::<Vec<_>>().join(" or ")
    };
    match next_hop {
        NextHop::Mx => "mx".to_owned(),
        NextHop::Hosts(groups) => groups.iter().map(group).collect::<Vec<_>>().join(", then "),
        NextHop::Refuse(refusal) => format!("refuse {refusal}"),
        NextHop::Discard => "discard".to_owned(),
        NextHop::Hold => "hold".to_owned(),
        NextHop::Agent(agent) => agent.name().to_owned(),
        other => format!("{other:?}"),
    }
}

/// A reply that refuses, such as `550 5.7.1 No such service`.
fn refusal(text: &str) -> Read<Refusal> {
    let wrong = |why: &str| format!("`{text}` {why}");
    let (code, rest) = text.split_once(' ').ok_or_else(|| wrong("is no reply with a code and words"))?;
    let code = code.parse().ok().and_then(ReplyCode::new).ok_or_else(|| wrong("has no code of three digits"))?;
    let (enhanced, words) = match EnhancedCode::split(rest.as_bytes()) {
        Some((enhanced, rest)) => (Some(enhanced), std::str::from_utf8(rest).unwrap_or_default()),
        None => (None, rest),
    };
    if words.trim().is_empty() || words.chars().any(|c| !(' '..='~').contains(&c)) {
        return Err(wrong("has no words in ASCII"));
    }
    if code == ReplyCode::SERVICE_NOT_AVAILABLE {
        return Err(wrong("would end the session of the client"));
    }
    if enhanced.is_some_and(|enhanced| enhanced.severity() != code.severity()) {
        return Err(wrong("has two codes of different kinds"));
    }
    let octets = text.len();
    if octets > LONGEST_REPLY {
        return Err(format!("it has {octets} octets, and a reply has at most {LONGEST_REPLY}"));
    }
    Refusal::try_from(Reply::new(code, enhanced, words.trim_start())).map_err(|_| wrong("does not refuse"))
}

/// Octets of a reply line without CRLF (RFC 5321 section 4.5.3.1.5).
const LONGEST_REPLY: usize = 510;

/// A host and its port, after `lmtp:` if it speaks that, and after a blank its weight.
fn weighted_host(value: &DeValue<'_>) -> Read<Host> {
    let written = values::text(value)?;
    let (host, weight) = values::weighted(written)?;
    if host.starts_with("lmtp:unix:") {
        return Err(format!("`{host}` is a socket of this machine, which stands alone and not in a list"));
    }
    let lmtp = host.strip_prefix("lmtp:");
    let (name, port) = host_and_port(lmtp.unwrap_or(host))?;
    Ok(Host { name, port, weight, is_lmtp: lmtp.is_some() })
}

/// `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; addresses become the literals that mail
/// uses, and names are as the DNS has them, in A-labels.
fn host_and_port(text: &str) -> Read<(String, u16)> {
    let read = || {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = match text.parse::<SocketAddr>() {
            Ok(SocketAddr::V4(_)) => format!("[{host}]"),
            Ok(SocketAddr::V6(address)) => format!("[IPv6:{}]", address.ip()),
            // Letters, digits, hyphens and underscores. The DNS could hold more, but here it is a
            // typing error.
            Err(_) => HostName::parse(host).ok().filter(HostName::is_plain)?.into(),
        };
        Some((host, port))
    };
    read().ok_or_else(|| format!("`{text}` is no host:port"))
}
