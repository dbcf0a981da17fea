//! The trace of a message.

use crate::{Body, Context, Envelope, Layer, ReceivedField, Refusal};

/// Puts a Received field in front of each message, as a server must that relays or delivers (RFC
/// 5321 section 4.4). Its content is that of a [`ReceivedField`]. A handler that has an identifier
/// for the message uses that one itself.
///
/// Limits of the wrapped handler and layers, such as that of [`Body::collect`], count the field,
/// which has less than 2 KiB. Those of layers around this one and of the session do not. The SIZE
/// of the envelope grows with the field, so that a handler may pass both on.
///
/// ```
/// use posthaste_server::{handlers, layers::{Headers, Received}};
/// # use posthaste_server::{Service as _, accepted};
/// let service = handlers::message(async |_, _, body| {
///     let content = body.collect(16 << 20).await?;
///     assert!(content.starts_with(b"Received: from "));
///     Ok(accepted!("250 2.0.0 Thrown away"))
/// });
/// // `Headers` limits what the client sends, and does not see the field.
/// let service = service.layer(Received::default()).layer(Headers::default());
/// # posthaste_server::Server::new(service);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Received {
    /// `true`: the field names the recipient, if there is exactly one. Default: `false`, since a
    /// message that is passed on would tell its next readers which address it came to. See
    /// [`ReceivedField::with_recipient`].
    pub recipient: bool,
}

impl Layer for Received {
    async fn message<'b>(
        &mut self,
        cx: &Context,
        envelope: &mut Envelope,
        body: Body<'b>,
    ) -> Result<Body<'b>, Refusal> {
        let mut field = ReceivedField::of(cx, envelope);
        if self.recipient {
            field = field.with_recipient();
        }
        let field = field.to_string();
        envelope.mail.size = envelope.mail.size.map(|size| size.saturating_add(field.len() as u64));
        Ok(crate::received::before(field, body))
    }
}
