//! Who is talking, and what the message says on the outside.

use std::net::{IpAddr, SocketAddr};

use posthaste_tokio::{
    Certificate,
    wire::{EhloName, Mail, Rcpt},
};

use crate::Networks;

/// The client on the other side, as far as it has shown itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its network, by which limits count: the first address of the [prefix](Networks) that its address has.
    pub network: IpAddr,
    /// Our address, which it connected to.
    pub local: SocketAddr,
    /// What it calls itself, once it has said so.
    pub hello: Option<EhloName>,
    /// Whether it said EHLO and not HELO.
    pub extended: bool,
    /// Whether TLS is up.
    pub tls: bool,
    /// The certificate that it has shown, if the TLS configuration asks for one; what its verifier took.
    pub certificate: Option<Certificate>,
    /// Who it has logged in as.
    pub identity: Option<String>,
}

impl Peer {
    /// A client that has just connected, in a network of the default size.
    pub const fn new(address: SocketAddr, local: SocketAddr) -> Self {
        let network = Networks { ipv4_prefix: 32, ipv6_prefix: 64 }.of(address.ip());
        Self { address, network, local, hello: None, extended: false, tls: false, certificate: None, identity: None }
    }

    /// What the client calls itself, as far as a log line has room for it: 255 characters at most, and none before EHLO.
    /// Write it with its quotes, as `Debug` does: its characters are the client's choice.
    pub fn hello_text(&self) -> String {
        self.hello.as_ref().map(|name| name.to_string().chars().take(255).collect()).unwrap_or_default()
    }
}

/// The outside of a message: MAIL and the accepted RCPTs, with all their parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL.
    pub mail: Mail,
    /// The RCPTs that were accepted, in their order.
    pub recipients: Vec<Rcpt>,
}
