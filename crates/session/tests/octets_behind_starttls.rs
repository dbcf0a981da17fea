//! Octets in clear behind STARTTLS, or behind its reply, never reach the conversation inside TLS.

use posthaste_session::{ClientSettings, PeerMisbehaved, ServerSettings, server::CloseReason};
use posthaste_testkit::{
    client::{ClientHarness, Event},
    server::{ServerHarness, Stop},
};

const RESIDUE: &[u8] = b"EHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<victim@d.test>\r\n";

/// In one segment with STARTTLS there is no handshake. What comes in a segment of its own belongs to the handshake, and
/// the driver reads it there, as TLS.
#[test]
fn at_a_server() {
    for octets in 1..=64 {
        let stream = [b"STARTTLS\r\n", &RESIDUE[..octets]].concat();
        for cut in 0..=stream.len() {
            let mut settings = ServerSettings::new("mx.test");
            settings.offers.starttls = true;
            let mut server = ServerHarness::new(settings, false);
            server.feed(b"EHLO client.test\r\n");
            server.said.clear();
            let stop = server.feed(&stream[..cut]);
            if cut == b"STARTTLS\r\n".len() {
                assert_eq!((stop, server.said.as_slice()), (Stop::Tls, &b"220 2.0.0 Start the TLS handshake\r\n"[..]));
                continue;
            }
            server.feed(&stream[cut..]);
            assert_eq!(server.closed, Some(CloseReason::ResidueBeforeTls), "{octets} octets, cut at {cut}");
            assert_eq!(server.said, b"554 5.5.0 Wait for the reply before sending more\r\n");
        }
    }
}

#[test]
fn at_a_client() {
    let residue = b"250-s\r\n250-AUTH PLAIN\r\n250 SIZE 1\r\n250 more of this, and more of it here\r\n";
    for octets in 1..=64 {
        let stream = [b"220 go\r\n", &residue[..octets]].concat();
        for cut in 0..=stream.len() {
            let mut client = ClientHarness::new(ClientSettings::default());
            client.feed(b"220 s\r\n");
            client.send_line("EHLO c").unwrap();
            client.feed(b"250-s\r\n250 STARTTLS\r\n");
            client.send_line("STARTTLS").unwrap();
            client.feed(&stream[..cut]);
            client.feed(&stream[cut..]);
            let last = client.events.last();
            assert_eq!(last, Some(&Event::Misbehaved(PeerMisbehaved::ResidueBeforeTls)), "{octets}, cut at {cut}");
        }
    }
}
