//! What a request has: the envelope, its signature, and the content.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::body::{Body, Frame, SizeHint};
use posthaste_client::Content as _;
use posthaste_server::wire::{Rcpt, ReversePath};
use sha2::Sha256;

use crate::agent::{AgentContent, AgentLetter};

/// The envelope of some recipients as JSON in ASCII.
pub(super) fn envelope(letter: &AgentLetter<'_>, group: &[Rcpt]) -> String {
    let from = match &letter.envelope.mail.reverse_path {
        ReversePath::Null => String::new(),
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let to = group.iter().map(|rcpt| rcpt.forward_path.mailbox().map_or_else(String::new, ToString::to_string));
    let mut json = format!("{{\"id\":{},\"from\":{},\"to\":[", quoted(&letter.id.to_string()), quoted(&from));
    for (index, mailbox) in to.enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        json.push_str(&quoted(&mailbox));
    }
    let _ = write!(json, "],\"age\":{}}}", letter.age.as_secs());
    json
}

/// A JSON string (RFC 8259 section 7), with escapes for all that is not printable ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        match char::from_u32(unit.into()) {
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some(c @ ' '..='~') => out.push(c),
            _ => {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.push('"');
    out
}

/// The signature over the time, the envelope and the content, which is read for that.
pub(super) async fn sign(secret: &[u8], letter: &AgentLetter<'_>, envelope: &str) -> io::Result<String> {
    let time = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(io::Error::other)?;
    mac.update(format!("{time}.{envelope}.").as_bytes());
    let mut content = letter.content().await?;
    while let Some(piece) = content.chunk().await? {
        mac.update(&piece);
    }
    let mut field = format!("t={time},v1=");
    mac.finalize().into_bytes().iter().for_each(|octet| {
        let _ = write!(field, "{octet:02x}");
    });
    Ok(field)
}

/// The content as the body of a request.
pub(super) struct Outgoing(pub(super) AgentContent);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(Pin::new(&mut self.0).poll_next(context));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printable_ascii() {
        for (text, json) in [
            ("a@b.test", r#""a@b.test""#),
            ("\"a\\\"b\"@c", r#""\"a\\\"b\"@c""#),
            ("\u{e4}@\u{1f600}", r#""\u00e4@\ud83d\ude00""#),
            ("\r\n\u{7f}", r#""\u000d\u000a\u007f""#),
        ] {
            assert_eq!(quoted(text), json);
        }
    }
}
