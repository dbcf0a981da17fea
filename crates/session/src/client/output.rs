//! Command lines and SASL responses.

use bytes::BytesMut;
use posthaste_wire::{BodyType, Command, EncodeError, Secret, capability::Keyword, command::MAX_AUTH_LINE};

use super::{ClientSession, Hello, Sent, Ticket};
use crate::{
    ApiMisuse, Tick,
    table::{self, Exchange, Phase},
};

/// The most commands with outstanding replies. A caller that pipelines more has to read replies
/// first.
pub(super) const MAX_UNANSWERED: usize = 1_024;

impl ClientSession {
    /// Writes a command to the output. Send BDAT with [`begin_chunk`](Self::begin_chunk).
    ///
    /// After an accepted XCLIENT the conversation is where it was after the greeting, so EHLO is
    /// next: the server treats it as another client's.
    ///
    /// # Errors
    /// Nothing is written.
    ///
    /// - [`ApiMisuse::OutOfOrder`]: the command is out of order here. So are BDAT, BURL, a known
    ///   verb in [`Command::Other`], and DATA for BODY=BINARYMIME (RFC 3030 section 3).
    /// - [`ApiMisuse::NotYet`]: replies must come first, by the rules of PIPELINING or because
    ///   1,024 are outstanding.
    /// - [`ApiMisuse::NotOffered`]: BODY=BINARYMIME without CHUNKING and BINARYMIME.
    /// - [`ApiMisuse::OddReplies`]: a second MAIL after an [`oddity`](Self::oddity).
    /// - [`ApiMisuse::Limit`]: beyond MAILMAX or RCPTMAX of the server (RFC 9422).
    /// - [`ApiMisuse::Encode`]: the line must not be sent.
    /// - [`ApiMisuse::Closed`]: the session is over, or QUIT was sent.
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

    /// Answers a SASL challenge with a response in base64. `None` cancels the exchange. The reply
    /// comes with the ticket in both cases; after a cancellation it must be a refusal, usually 501
    /// (RFC 4954 section 4).
    ///
    /// # Errors
    /// - [`ApiMisuse::OutOfOrder`]: no challenge is open.
    /// - [`ApiMisuse::Encode`]: the response has a control character or more than 12,286 octets.
    /// - [`ApiMisuse::Closed`]: the session is over.
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
        // The last check before a line is sent, with the room that RFC 4954 section 4 gives.
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

    /// Returns `true` if another command may be sent now. Either no reply is outstanding, or other
    /// commands may follow all outstanding ones (RFC 2920 section 3.1, RFC 3030 section 4.2).
    pub(super) fn may_follow(&self) -> bool {
        let followed = |sent: &Sent| {
            matches!(
                sent.exchange,
                Exchange::Mail | Exchange::Rcpt | Exchange::Reset | Exchange::Chunk | Exchange::EndOfData
            )
        };
        self.unanswered.is_empty() || (self.may_pipeline() && self.unanswered.iter().all(followed))
    }
}

/// Returns `true` if a command is one line and its reply means what that of its exchange does.
fn is_line(command: &Command<'_>) -> bool {
    match command {
        // [`begin_chunk`](ClientSession::begin_chunk) counts content. BURL would leave it open
        // here.
        Command::Bdat { .. } | Command::Burl { .. } => false,
        Command::Other { verb, .. } => matches!(Command::parse(verb.as_bytes()), Ok(Command::Other { .. })),
        _ => true,
    }
}
