//! The examples of RFC 6376 appendix A and RFC 8463 appendix A: what is hashed and signed here is
//! what was signed there.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::signature;
use base64::{Engine as _, engine::general_purpose::STANDARD};
#[cfg(not(feature = "aws-lc-rs"))]
use ring::signature;

use super::{
    Canonicalization, SigningKey,
    body::BodyHash,
    header::{self, Field, fields, write_canonical},
};

const RFC_6376: &str = "\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
        4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
        4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

const RFC_8463: &str = "\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";

const RFC_6376_RSA: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC\
    jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYck\
    cQ2QIDAQAB";
const RFC_8463_RSA: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi\
    Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K\
    4w3QIDAQAB";
/// RFC 8463 appendix A.2.
const RFC_8463_SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const RFC_8463_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// The value of a tag, without blanks.
fn tag(field: &Field<'_>, name: &str) -> String {
    let value: String = String::from_utf8_lossy(field.value).split_whitespace().collect();
    let tags = value.split(';').find_map(|tag| tag.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    tags.unwrap_or_default()
}

/// What the signature of this number signs, and the signature; the body's hash is compared.
fn signed(message: &str, number: usize, form: Canonicalization) -> (Vec<u8>, Vec<u8>) {
    let message = message.replace('\n', "\r\n").into_bytes();
    let end = header::end(b"", &message).expect("the text is right");
    let fields = fields(&message[..end]).expect("the text is right");
    let own = fields[number];

    let mut body = BodyHash::new(form);
    body.update(&message[end..]);
    assert_eq!(STANDARD.encode(body.finish().expect("the text is right")), tag(&own, "bh"));

    // RFC 6376 section 5.4.2.
    let mut left = fields.clone();
    let mut input = Vec::new();
    for name in tag(&own, "h").split(':') {
        if let Some(at) = left.iter().rposition(|field| field.name.eq_ignore_ascii_case(name.as_bytes())) {
            write_canonical(form, left.remove(at), &mut input);
            input.extend_from_slice(b"\r\n");
        }
    }
    // The field itself, with an empty `b=`.
    let value = String::from_utf8(own.value.to_vec()).expect("the text is right");
    let (before, after) = value.split_once(" b=").expect("the text is right");
    let after = after.split_once(';').map_or(String::new(), |(_, after)| format!(";{after}"));
    let own_text = format!("DKIM-Signature:{before} b={after}");
    write_canonical(form, header::fields(own_text.as_bytes()).expect("the text is right")[0], &mut input);
    (input, STANDARD.decode(tag(&own, "b")).expect("the text is right"))
}

fn verify_rsa(public: &str, input: &[u8], found: &[u8]) {
    // Without the algorithm in front.
    let key = STANDARD.decode(public).expect("the text is right").split_off(22);
    let key = signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, key);
    key.verify(input, found).expect("the text is right");
    assert!(key.verify(&[input, b" "].concat(), found).is_err());
}

#[test]
fn what_is_signed_with_rsa_is_as_rfc_6376_has_it() {
    let (input, found) = signed(RFC_6376, 0, Canonicalization::Simple);
    verify_rsa(RFC_6376_RSA, &input, &found);
}

#[test]
fn what_is_signed_with_rsa_is_as_rfc_8463_has_it() {
    let (input, found) = signed(RFC_8463, 1, Canonicalization::Relaxed);
    verify_rsa(RFC_8463_RSA, &input, &found);
}

#[test]
fn an_ed25519_signature_is_that_of_rfc_8463() {
    let (input, found) = signed(RFC_8463, 0, Canonicalization::Relaxed);
    let key = SigningKey::new("football.example.com", "brisbane", RFC_8463_SEED).expect("the text is right");
    assert_eq!(key.key().sign(&input).expect("the text is right"), found);
    assert_eq!(key.record_text(), format!("v=DKIM1; k=ed25519; p={RFC_8463_PUBLIC}"));
}
