//! A report of ours without the message that it returned.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Charset, mime::Part, returned::header};

/// The report with only the header of the message that it returned, for a host that refused the
/// whole. `None`: the octets are no report that returns a message.
pub(crate) fn without_content(report: &[u8]) -> Option<Bytes> {
    let head = report.get(..find(report, b"\r\n\r\n")?)?;
    let boundary = value_of(head, b"boundary=\"")?;
    let between = [b"\r\n--", boundary].concat();
    // The text, the fields, what is returned, and the end.
    let mut starts = Vec::with_capacity(4);
    let mut from = 0;
    while let Some(at) = report.get(from..).and_then(|rest| find(rest, &between)) {
        starts.push(from + at);
        from += at + between.len();
    }
    let [_, _, third, end] = starts[..] else { return None };
    let part = report.get(third + between.len() + b"\r\n".len()..end)?;
    let (about, content) = part.split_at_checked(find(part, b"\r\n\r\n")? + b"\r\n\r\n".len())?;
    let mut out = BytesMut::from(report.get(..third + between.len() + b"\r\n".len())?);
    if find(about, b"quoted-printable").is_some() {
        // It stays encoded: encoding keeps line ends and the empty line.
        out.put_slice(b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
        out.put_slice(header(content));
    } else {
        Part::new("text/rfc822-headers", header(content).to_vec()).write(&mut out, Charset::Ascii);
    }
    out.put_slice(report.get(end..)?);
    Some(out.freeze())
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}

/// The value after a name, up to the quote.
fn value_of<'a>(octets: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = octets.get(find(octets, name)? + name.len()..)?;
    rest.get(..rest.iter().position(|octet| *octet == b'"')?)
}
