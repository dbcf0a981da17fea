//! Command lines and SASL responses.

use bytes::BytesMut;
use posthaste_wire::{BodyType, Command, EncodeError, Secret, capability::Keyword, command::MAX_AUTH_LINE};

use super::{ClientSession, Hello, Sent, Ticket};
use crate::{
    ApiMisuse, Tick,
    table::{self, Exchange, Phase},
};

/// The most commands whose replies are still to come. A caller who pipelines more has a reply to read first.
const MAX_UNANSWERED: usize = 1_024;

impl ClientSession {
    /// Writes a command to the output. BDAT is not sent here but by [`begin_chunk`](Self::begin_chunk).
    ///
    /// Behind an accepted XCLIENT send EHLO again: the server is another one.
    ///
    /// # Errors
    /// Nothing is written then.
    ///
    /// - [`ApiMisuse::OutOfOrder`] when the command has no place here: BDAT, BURL, a verb that is known as
    ///   [`Command::Other`], and DATA for content that was announced with BODY=BINARYMIME (RFC 3030 section 3), among
    ///   others.
    /// - [`ApiMisuse::NotYet`] when it has to wait for replies: by the rules of PIPELINING, or because 1,024 are still to
    ///   come.
    /// - [`ApiMisuse::NotOffered`] for BODY=BINARYMIME without CHUNKING and BINARYMIME.
    /// - [`ApiMisuse::OddReplies`] for a second MAIL behind an [`oddity`](Self::oddity).
    /// - [`ApiMisuse::Limit`] beyond MAILMAX or RCPTMAX of the server (RFC 9422).
    /// - [`ApiMisuse::Encode`] when the line must not leave.
    pub fn send(&mut self, now: Tick, command: &Command<'_>, out: &mut BytesMut) -> Result<Ticket, ApiMisuse> {
        let exchange = Exchange::of(command);
        self.may_send(command, exchange)?;
        command.encode(out)?;
        let mut recipient = None;
        match command {
            Command::Mail(mail) => {
                self.transactions = self.transactions.saturating_add(1);
                self.recipients = 0;
                self.body = mail.body;
                self.begin_content();
            }
            Command::Rcpt(_) => {
                recipient = Some(self.recipients);
                self.recipients = self.recipients.saturating_add(1);
            }
            Command::Ehlo(_) => self.hello = Hello::Extended,
            Command::Helo(_) => self.hello = Hello::Plain,
            Command::Lhlo(_) => self.hello = Hello::Local,
            Command::Auth(_) => self.gave_up = false,
            Command::Quit => self.closing = true,
            _ => {}
        }
        Ok(self.expect(now, exchange, recipient))
    }

    /// Answers a SASL challenge with a response in base64, or with nothing to give the exchange up. The reply comes with
    /// the ticket either way; behind a `*` it has to be a refusal, 501 as a rule (RFC 4954 section 4).
    ///
    /// # Errors
    /// [`ApiMisuse::OutOfOrder`] when no challenge is open, [`ApiMisuse::Encode`] when the response has a line break in it
    /// or is longer than 12,286 octets.
    pub fn respond(
        &mut self,
        now: Tick,
        response: Option<Secret<&str>>,
        out: &mut BytesMut,
    ) -> Result<Ticket, ApiMisuse> {
        if self.phase == Phase::Closed {
            return Err(ApiMisuse::Closed);
        }
        if self.phase != Phase::Auth || !self.unanswered.is_empty() {
            return Err(ApiMisuse::OutOfOrder);
        }
        let text = response.map_or("*", Secret::into_inner);
        // The last check before a line leaves, as for a command, with the room that RFC 4954 section 4 gives.
        if text.len().saturating_add(2) > MAX_AUTH_LINE {
            return Err(EncodeError::TooLong { limit: MAX_AUTH_LINE }.into());
        }
        if text.bytes().any(|octet| octet.is_ascii_control()) {
            return Err(EncodeError::ControlCharacter.into());
        }
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.gave_up = text == "*";
        Ok(self.expect(now, Exchange::AuthResponse, None))
    }

    fn may_send(&self, command: &Command<'_>, exchange: Exchange) -> Result<(), ApiMisuse> {
        if self.phase == Phase::Closed || self.closing {
            return Err(ApiMisuse::Closed);
        }
        if self.flow.is_open() || !is_line(command) {
            return Err(ApiMisuse::OutOfOrder);
        }
        if !self.may_follow() || self.unanswered.len() >= MAX_UNANSWERED {
            return Err(ApiMisuse::NotYet);
        }
        if !table::allows(self.ahead, exchange) {
            return Err(ApiMisuse::OutOfOrder);
        }
        let offers = |keyword| self.capabilities.offers(keyword);
        let limits = self.capabilities.limits();
        match command {
            Command::Data if self.body == Some(BodyType::BinaryMime) => Err(ApiMisuse::OutOfOrder),
            Command::Mail(mail)
                if mail.body == Some(BodyType::BinaryMime)
                    && !(offers(Keyword::BinaryMime) && offers(Keyword::Chunking)) =>
            {
                Err(ApiMisuse::NotOffered)
            }
            Command::Mail(_) if self.transactions > 0 && self.odd.is_some() => Err(ApiMisuse::OddReplies),
            Command::Mail(_) if self.transactions_left() == Some(0) => Err(ApiMisuse::Limit),
            Command::Rcpt(_) if limits.rcpt_max.is_some_and(|most| self.recipients >= most.get()) => {
                Err(ApiMisuse::Limit)
            }
            _ => Ok(()),
        }
    }

    /// Whether another command may leave now: nothing is unanswered, or everything is and may be followed
    /// (RFC 2920 section 3.1, RFC 3030 section 4.2).
    fn may_follow(&self) -> bool {
        let followed = |sent: &Sent| {
            matches!(
                sent.exchange,
                Exchange::Mail | Exchange::Rcpt | Exchange::Reset | Exchange::Chunk | Exchange::EndOfData
            )
        };
        self.unanswered.is_empty() || (self.may_pipeline() && self.unanswered.iter().all(followed))
    }
}

/// Whether a command is what it looks like, and a line alone: nothing whose reply would mean something else than that of
/// the exchange it is counted as.
fn is_line(command: &Command<'_>) -> bool {
    match command {
        // Content is counted where it is written; what BURL ends would stay open here.
        Command::Bdat { .. } | Command::Burl { .. } => false,
        Command::Other { verb, .. } => matches!(Command::parse(verb.as_bytes()), Ok(Command::Other { .. })),
        _ => true,
    }
}
