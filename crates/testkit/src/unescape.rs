//! Octets in text files.

/// The octets of a text with escapes: `\r \n \t \0 \\ \xHH`, `\u{HEX}` for a character
/// in UTF-8, and `\repeat{TEXT*N}` for TEXT written N times.
///
/// # Panics
/// When an escape is malformed.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        octets.extend_from_slice(plain.as_bytes());
        let (octet, behind) = escape.split_at(1);
        rest = match octet {
            // Before `\r`, because it starts with that.
            "r" if escape.starts_with("repeat{") => {
                let (repeated, behind) = braced(&escape["repeat".len()..]);
                let (text, times) = repeated.rsplit_once('*').expect("text and how often");
                push(&mut octets, &unescape(text).repeat(times.parse().expect("a number")), behind)
            }
            "r" => push(&mut octets, b"\r", behind),
            "n" => push(&mut octets, b"\n", behind),
            "t" => push(&mut octets, b"\t", behind),
            "0" => push(&mut octets, b"\0", behind),
            "\\" => push(&mut octets, b"\\", behind),
            "x" => {
                let (digits, behind) = behind.split_at(2);
                push(&mut octets, &[u8::from_str_radix(digits, 16).expect("two digits")], behind)
            }
            "u" => {
                let (digits, behind) = braced(behind);
                let character = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).expect("a character");
                push(&mut octets, character.to_string().as_bytes(), behind)
            }
            other => panic!("no such escape: {other:?} in {text:?}"),
        };
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

fn push<'a>(octets: &mut Vec<u8>, more: &[u8], behind: &'a str) -> &'a str {
    octets.extend_from_slice(more);
    behind
}

/// The text in the braces at the start of a text, with inner braces, and the text after them.
fn braced(text: &str) -> (&str, &str) {
    let mut depth = 0;
    let end = text.find(|character| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        depth == 0
    });
    let end = end.expect("a closing brace");
    (text[..end].strip_prefix('{').expect("an opening brace"), &text[end + 1..])
}
