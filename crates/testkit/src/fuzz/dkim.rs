//! DKIM signatures beside a verifier that follows the RFC word by word.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_auth::{
    dkim::{Canonicalization, KeyRing, SignError, Signature, Signer, SignerOptions, SigningKey},
    wire::Domain,
};

/// RFC 8463 appendix A.2.
const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const DOMAIN: &str = "dkim.test";
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// The signers of the four canonicalizations, the header's in the first bit.
static SIGNERS: LazyLock<[Signer; 4]> = LazyLock::new(|| {
    [0, 1, 2, 3].map(|bits| {
        let form = |bit: u8| if bits & bit == 0 { Canonicalization::Simple } else { Canonicalization::Relaxed };
        let mut options = SignerOptions::default();
        (options.header, options.body) = (form(1), form(2));
        // Within the reach of a fuzzer.
        options.max_header = 2_000;
        let mut keys = KeyRing::new();
        keys.add(SigningKey::new(DOMAIN, "s", SEED).expect("the key of an RFC")).expect("the only one");
        Signer::new(keys, options)
    })
});

/// One octet of settings, two of cuts, then a message. It is signed or refused the same in every
/// cut, and a signature verifies.
///
/// # Panics
/// When a signature depends on the cuts, is no field, or does not verify.
pub fn dkim(input: &[u8]) {
    let Some(([settings, first, second], message)) = input.split_first_chunk() else { return };
    let signer = &SIGNERS[usize::from(settings & 3)];
    let by_from = settings & 4 == 0;
    let sign = |pieces: &mut dyn Iterator<Item = &[u8]>| -> Result<Vec<Signature>, SignError> {
        let domain = Domain::parse(DOMAIN).expect("a name");
        let mut signing = if by_from { signer.begin() } else { signer.begin_for([domain]) };
        pieces.for_each(|piece| signing.update(piece));
        signing.finish(SystemTime::UNIX_EPOCH + NOW)
    };
    let whole = sign(&mut [message].into_iter());
    let cut = |octet: &u8| usize::from(*octet).min(message.len());
    let (first, second) = (cut(first).min(cut(second)), cut(first).max(cut(second)));
    let pieces = [&message[..first], &message[first..second], &message[second..]];
    assert_eq!(sign(&mut pieces.into_iter()), whole);
    assert_eq!(sign(&mut message.chunks(1)), whole);
    for signature in whole.iter().flatten() {
        let field = signature.as_str();
        assert!(field.is_ascii() && field.ends_with("\r\n"), "{field:?}");
        assert!(field.trim_end().split("\r\n").skip(1).all(|line| line.starts_with('\t')), "{field:?}");
        assert!(verifies(field, message), "{field:?}\n{}", message.escape_ascii());
    }
}

/// Verifies the signature of a message (RFC 6376 section 6.1).
fn verifies(field: &str, message: &[u8]) -> bool {
    let text: String = field.split_whitespace().collect();
    let tag = |name: &str| {
        let tags = text.split_once(':').expect("a colon").1;
        tags.split(';').find_map(|tag| tag.strip_prefix(name)?.strip_prefix('=')).expect("a tag").to_owned()
    };
    let (header_is_relaxed, body_is_relaxed) = match tag("c").as_str() {
        "simple/simple" => (false, false),
        "simple/relaxed" => (false, true),
        "relaxed/simple" => (true, false),
        "relaxed/relaxed" => (true, true),
        other => panic!("{other}"),
    };
    let (mut fields, body) = parts(message);
    assert_eq!(tag("bh"), STANDARD.encode(digest(&SHA256, &canonical_body(body, body_is_relaxed))));

    let mut input = Vec::new();
    for name in tag("h").split(':') {
        if let Some(at) = fields.iter().rposition(|field| name_of(field).eq_ignore_ascii_case(name.as_bytes())) {
            input.extend(canonical_field(&fields.remove(at), header_is_relaxed));
            input.extend_from_slice(b"\r\n");
        }
    }
    assert!(!fields.iter().any(|field| name_of(field).eq_ignore_ascii_case(b"From")), "a From field is not signed");
    let (before, _) = field.rsplit_once("b=").expect("it is the last tag");
    input.extend(canonical_field(format!("{before}b=").as_bytes(), header_is_relaxed));
    let found = STANDARD.decode(tag("b")).expect("base64");
    let key = UnparsedPublicKey::new(&ED25519, STANDARD.decode(PUBLIC).expect("base64"));
    key.verify(digest(&SHA256, &input).as_ref(), &found).is_ok()
}

/// The fields without their line ends, and the body.
fn parts(message: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let length = rest.windows(2).position(|two| two == b"\r\n").unwrap_or(rest.len());
        let line = &rest[..length];
        rest = rest.get(length + 2..).unwrap_or_default();
        match line.first() {
            None => break,
            Some(b' ' | b'\t') => {
                let field = fields.last_mut().expect("a first line that is folded is refused");
                field.extend_from_slice(b"\r\n");
                field.extend_from_slice(line);
            }
            Some(_) => fields.push(line.to_vec()),
        }
    }
    (fields, rest)
}

fn name_of(field: &[u8]) -> &[u8] {
    field.split(|octet| *octet == b':').next().unwrap_or_default().trim_ascii_end()
}

fn canonical_field(field: &[u8], is_relaxed: bool) -> Vec<u8> {
    if !is_relaxed {
        return field.to_vec();
    }
    let colon = field.iter().position(|octet| *octet == b':').expect("a field");
    let unfolded: Vec<u8> = field[colon + 1..].iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    let mut canonical = name_of(field).to_ascii_lowercase();
    canonical.push(b':');
    let value = reduced(&unfolded);
    canonical.extend_from_slice(value.strip_prefix(b" ").unwrap_or(&value));
    canonical
}

/// Without blanks at the end, and with one blank for several.
fn reduced(text: &[u8]) -> Vec<u8> {
    let mut reduced: Vec<u8> = Vec::new();
    for octet in text {
        match octet {
            b' ' | b'\t' if reduced.last() == Some(&b' ') => {}
            b' ' | b'\t' => reduced.push(b' '),
            octet => reduced.push(*octet),
        }
    }
    if reduced.last() == Some(&b' ') {
        reduced.pop();
    }
    reduced
}

fn canonical_body(body: &[u8], is_relaxed: bool) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = body;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            lines.push(Vec::new());
            rest = after;
        } else {
            lines.last_mut().expect("there is always a line").push(*first);
            rest = after;
        }
    }
    if is_relaxed {
        lines = lines.iter().map(|line| reduced(line)).collect();
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    let written: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    if written.is_empty() && !is_relaxed { b"\r\n".to_vec() } else { written }
}
