//! Who is talking, and what the message says on the outside.

use std::net::SocketAddr;

use posthaste_io::{
    Certificate,
    wire::{EhloName, Mail, Rcpt},
};

/// The client on the other side, as far as it has shown itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
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
    /// A client that has just connected.
    pub const fn new(address: SocketAddr, local: SocketAddr) -> Self {
        Self { address, local, hello: None, extended: false, tls: false, certificate: None, identity: None }
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
