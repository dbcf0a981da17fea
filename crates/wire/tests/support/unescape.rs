//! Octets in text files.

/// `\r \n \t \0 \\ \xHH` in a line of text.
///
/// # Panics
/// At any other escape.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    let hex = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16)).expect("two digits");
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => (hex(rest.next()) << 4 | hex(rest.next())) as u8,
                other => panic!("no such escape: {other:?} in {text:?}"),
            },
            octet => octet,
        });
    }
    octets
}
