//! From addresses to a TCP connection.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use crate::ConnectError;

/// The ports of mail.
#[derive(Debug)]
#[non_exhaustive]
pub struct Port;

impl Port {
    /// Between relays (RFC 5321).
    pub const SMTP: u16 = 25;
    /// Submission with STARTTLS (RFC 6409).
    pub const SUBMISSION: u16 = 587;
    /// Submission with TLS from the first octet (RFC 8314).
    pub const SUBMISSIONS: u16 = 465;
}

/// Connects to the first of the addresses that answers, trying each for at most `each`.
///
/// # Errors
/// [`ConnectError::NoAddress`] or [`ConnectError::Tcp`] with what the last address said.
pub async fn connect(addresses: &[IpAddr], port: u16, each: Duration) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::NoAddress;
    for &address in addresses {
        let address = SocketAddr::new(address, port);
        let connected = timeout(each, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
            Ok(stream) => {
                // Commands are small and waited for; Nagle's algorithm would add a delay to each.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = ConnectError::Tcp { address, error },
        }
    }
    Err(last)
}
