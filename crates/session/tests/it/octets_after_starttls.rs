//! Octets in clear after STARTTLS, or after its reply, never reach the conversation inside TLS.

use posthaste_session::{ClientSettings, PeerMisbehaved, ServerSettings, Transport, server::CloseReason};
use posthaste_testkit::{
    client::{ClientHarness, Event},
    server::{ServerHarness, Stop},
};

/// Commands, line ends, the start of a handshake, and NUL.
const RESIDUES: [&[u8; 64]; 4] = [
    b"EHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<victim@d.test>",
    b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    &[0x16; 64],
    &[0; 64],
];

/// Octets in one segment with STARTTLS prevent the handshake. Octets in a segment of their own
/// belong to it, and the driver reads them as TLS.
#[test]
fn a_server_ends_on_octets_after_starttls() {
    for (residue, octets) in RESIDUES.into_iter().flat_map(|residue| (1..=64).map(move |octets| (residue, octets))) {
        let stream = [b"STARTTLS\r\n", &residue[..octets]].concat();
        for cut in 0..=stream.len() {
            let settings = ServerSettings::new("mx.test".parse().expect("a domain"));
            let mut server = ServerHarness::new(settings, Transport::StartTls);
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
fn a_client_ends_on_octets_after_the_reply_to_starttls() {
    let replies = b"250-s.test\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 1\r\n250 more, and more";
    let residues = [replies, RESIDUES[1], RESIDUES[2], RESIDUES[3]];
    for (residue, octets) in residues.into_iter().flat_map(|residue| (1..=64).map(move |octets| (residue, octets))) {
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
