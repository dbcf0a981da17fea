//! A client and a server back to back.

use posthaste_testkit::{
    choices::Choices,
    pair::{Letter, Pair, Setup, Step, Way},
};

#[test]
fn smoke() {
    for seed in 0..200 {
        let mut pair = Pair::new(Setup {
            lmtp: seed % 2 == 0,
            tls: seed % 3 == 0,
            mechanism: None,
            pipelined: seed % 5 > 2,
            open_recipients: 2,
        });
        for way in [
            Way::Data,
            Way::Chunks { octets: 5, binary: false, end_apart: false },
            Way::Chunks { octets: 3, binary: true, end_apart: true },
        ] {
            pair.step(Step::Submit(Letter::new(2, b"abc\r\ndef\r\n", way)));
        }
        pair.finish(&mut Choices::new(seed));
        assert_eq!(pair.server.messages.len(), 3);
    }
}
