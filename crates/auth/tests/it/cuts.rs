//! A message is signed the same in every cut.

use posthaste_auth::dkim::{Canonicalization, SignError, Signature, Signer, SignerOptions, SigningKey};
use posthaste_testkit::rows::rows;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{ED25519, at, ring};

const FORMS: [Canonicalization; 2] = [Canonicalization::Simple, Canonicalization::Relaxed];

/// What a message is made of.
const PIECES: &[&str] = &[
    "From: me@dkim.test\r\n",
    "Subject: x\r\n",
    "\r\n",
    "\r\n\r\n",
    " ",
    "\t",
    "a",
    "word",
    ":",
    "\r",
    "\n",
    "To: b@c\r\n d\r\n",
    "\u{e4}",
];

fn signer(header: Canonicalization, body: Canonicalization) -> Signer {
    let mut options = SignerOptions::default();
    (options.header, options.body) = (header, body);
    Signer::new(ring([SigningKey::new("dkim.test", "ed", ED25519).expect("a key")]), options)
}

fn sign(signer: &Signer, pieces: &[&[u8]]) -> Result<Vec<Signature>, SignError> {
    let mut signing = signer.begin();
    pieces.iter().for_each(|piece| signing.update(piece));
    signing.finish(at(1_700_000_000))
}

#[test]
fn every_row_is_signed_the_same_when_it_is_cut_at_any_octet() {
    for row in rows(include_str!("../canonicalization.txt")) {
        for (header, body) in FORMS.into_iter().flat_map(|header| FORMS.map(|body| (header, body))) {
            let signer = signer(header, body);
            let whole = sign(&signer, &[&row.input]);
            assert_eq!(whole.as_ref().map(Vec::len), Ok(1), "{:.100}", row.text);
            // Of a long message, some cuts.
            let step = if row.input.len() <= 400 { 1 } else { row.input.len() / 8 };
            for at in (0..=row.input.len()).step_by(step) {
                let (left, right) = row.input.split_at(at);
                assert_eq!(sign(&signer, &[left, b"", right]), whole, "{at} {:.100}", row.text);
            }
            let octets: Vec<&[u8]> = row.input.chunks(1).collect();
            assert_eq!(sign(&signer, &octets), whole, "{:.100}", row.text);
        }
    }
}

proptest! {
    #[test]
    fn any_message_is_signed_or_refused_the_same_in_any_cuts(
        pieces in vec(select(PIECES), 0..24),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
        with_from in any::<bool>(),
        is_relaxed in any::<[bool; 2]>(),
    ) {
        let message = if with_from { format!("From: me@dkim.test\r\n{}", pieces.concat()) } else { pieces.concat() };
        let [header, body] = is_relaxed.map(|is_relaxed| FORMS[usize::from(is_relaxed)]);
        let signer = signer(header, body);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        cuts.extend([0, message.len()]);
        cuts.sort_unstable();
        let cut: Vec<&[u8]> = cuts.windows(2).map(|two| &message.as_bytes()[two[0]..two[1]]).collect();
        prop_assert_eq!(sign(&signer, &cut), sign(&signer, &[message.as_bytes()]));
    }
}
