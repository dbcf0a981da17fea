//! What a proxy says about the client that it speaks for: XCLIENT and XFORWARD.

use alloc::{borrow::ToOwned as _, string::String, sync::Arc};
use core::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use posthaste_wire::{EhloName, command::Attributes};

use super::{Ask, ServerNext, ServerSession, replies};
use crate::{
    Tick,
    table::{Exchange, ReplyClass},
};

/// What a trusted proxy says about a client, by XCLIENT or XFORWARD as Postfix defines them.
/// `None`: it has not said so, or does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientFacts {
    /// NAME: the client's host name, as the proxy has looked it up. 255 visible ASCII characters at
    /// most, and none that has a meaning in a header field, such as a parenthesis.
    pub name: Option<String>,
    /// ADDR: the client's address. XCLIENT for a client whose address the proxy does not know has
    /// `0.0.0.0` here.
    pub address: Option<IpAddr>,
    /// PORT: the client's port.
    pub port: Option<u16>,
    /// PROTO: how the client speaks with the proxy. By XCLIENT it is `SMTP`, `ESMTP` or `LMTP`, in
    /// capitals. By XFORWARD it may be another word with the characters of a [name](Self::name).
    pub protocol: Option<String>,
    /// HELO: the client's name from HELO or EHLO.
    pub hello: Option<EhloName>,
    /// LOGIN: the identity that the client has logged in as with the proxy. 255 octets at most, and
    /// no control character. XCLIENT alone has it.
    pub login: Option<String>,
    /// DESTADDR: the address that the client has connected to. XCLIENT alone has it.
    pub local_address: Option<IpAddr>,
    /// DESTPORT: the port that the client has connected to. XCLIENT alone has it.
    pub local_port: Option<u16>,
    /// IDENT: what the proxy calls the message in its log, with the characters of a
    /// [name](Self::name). XFORWARD alone has it.
    pub ident: Option<String>,
    /// SOURCE: `true` for mail that began at the proxy's own host (LOCAL). XFORWARD alone has it.
    pub is_local: Option<bool>,
}

/// The attributes of XCLIENT that are offered.
pub(super) const XCLIENT: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// The attributes of XFORWARD that are offered.
pub(super) const XFORWARD: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";

/// Octets of a value at most.
const MOST: usize = 255;

impl ServerSession {
    /// XCLIENT: the proxy names its client, and the conversation begins with that one.
    pub(super) fn xclient<'i>(
        &mut self,
        now: Tick,
        attributes: Attributes<'_>,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        self.counters.idle = self.counters.idle.saturating_add(1);
        let mut facts = self.client_facts.as_deref().cloned().unwrap_or_default();
        // What a client says itself counts for one conversation.
        (facts.hello, facts.protocol, facts.login) = (None, None, None);
        if !facts.update(attributes, XCLIENT) {
            self.refuse(&replies::BAD_ATTRIBUTE, out);
            return None;
        }
        let facts = Arc::new(facts);
        self.client_facts = Some(Arc::clone(&facts));
        Some(self.ask(now, Exchange::XClient, Ask::XClient(facts)))
    }

    /// XFORWARD: for the log. Each command adds to what the others have said since the last
    /// transaction.
    pub(super) fn xforward<'i>(
        &mut self,
        attributes: Attributes<'_>,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        self.counters.idle = self.counters.idle.saturating_add(1);
        let mut facts = self.forwarded.as_deref().cloned().unwrap_or_default();
        if !facts.update(attributes, XFORWARD) {
            self.refuse(&replies::BAD_ATTRIBUTE, out);
            return None;
        }
        self.forwarded = Some(Arc::new(facts));
        self.advance(Exchange::XForward, ReplyClass::Positive);
        self.say(&replies::OK, out);
        None
    }

    /// Another client speaks from here on.
    pub(super) fn introduce(&mut self) {
        self.client.extended = false;
        self.client.authenticated = self.client_facts.as_ref().is_some_and(|facts| facts.login.is_some());
    }

    /// Returns `true` if the octets may be those of a client that a proxy has named.
    pub(super) fn is_introduced(&self) -> bool {
        self.client_facts.as_ref().is_some_and(|facts| facts.address.is_some())
    }
}

impl ClientFacts {
    /// Adds the facts of a command, which has these attributes. Returns `false` if one of them is
    /// wrong; then some may have changed.
    fn update(&mut self, attributes: Attributes<'_>, offered: &str) -> bool {
        attributes.iter().all(|(name, value)| {
            let value = value.decode();
            let known = offered.split(' ').find(|known| known.eq_ignore_ascii_case(name));
            let text = core::str::from_utf8(&value).ok().filter(|text| !text.is_empty() && text.len() <= MOST);
            known.zip(text).is_some_and(|(name, text)| self.set(name, text, offered == XCLIENT).is_some())
        })
    }

    /// `None`: the value is wrong.
    fn set(&mut self, name: &str, text: &str, xclient: bool) -> Option<()> {
        let is_lacking = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| word.eq_ignore_ascii_case(text));
        let text = Some(text).filter(|_| !is_lacking);
        match name {
            "NAME" => self.name = read(text, word)?,
            // Without an address rules would take the proxy's, which they trust. No network has
            // this one.
            "ADDR" if xclient => self.address = read(text, address)?.or(Some(Ipv4Addr::UNSPECIFIED.into())),
            "ADDR" => self.address = read(text, address)?,
            "PORT" => self.port = read(text, port)?,
            "PROTO" if xclient => self.protocol = read(text, protocol)?,
            "PROTO" => self.protocol = read(text, word)?,
            "HELO" => self.hello = read(text, |text| text.parse().ok())?,
            "LOGIN" => self.login = read(text, |text| (!text.contains(char::is_control)).then(|| text.to_owned()))?,
            "DESTADDR" => self.local_address = read(text, address)?,
            "DESTPORT" => self.local_port = read(text, port)?,
            "IDENT" => self.ident = read(text, word)?,
            "SOURCE" => {
                let is = |source: &str| text.is_some_and(|text| text.eq_ignore_ascii_case(source));
                self.is_local = read(text, |_| (is("LOCAL") || is("REMOTE")).then(|| is("LOCAL")))?;
            }
            _ => return None,
        }
        Some(())
    }
}

/// `None`: the value is wrong. `Some(None)`: there is none.
fn read<T>(text: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        Some(text) => parse(text).map(Some),
        None => Some(None),
    }
}

fn word(text: &str) -> Option<String> {
    // The specials of RFC 5322 that can end or begin something in a header field.
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !b"()<>\"\\,;".contains(&octet);
    text.bytes().all(is_plain).then(|| text.to_owned())
}

fn protocol(text: &str) -> Option<String> {
    ["SMTP", "ESMTP", "LMTP"].into_iter().find(|known| known.eq_ignore_ascii_case(text)).map(str::to_owned)
}

/// Some proxies leave the tag of IPv6 out.
fn address(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPV6:") => v6.parse().ok().map(IpAddr::V6),
        _ => text.parse().ok(),
    }
}

fn port(text: &str) -> Option<u16> {
    Some(text).filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()))?.parse().ok()
}
