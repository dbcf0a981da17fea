//! Signing of a message that comes in pieces.

use std::{fmt, mem, sync::Arc, time::SystemTime};

use posthaste_wire::Domain;

use super::{
    Algorithm, KeyRing, SignError, Signature, SignerOptions, SigningKey, author,
    body::BodyHash,
    fields::SignedFields,
    header::{self, Field, fields, write_canonical},
    signature::Signed,
};

/// Signs messages with the keys of a ring. A clone shares them.
///
/// It reads no clock and no file. To change keys, make another signer. A message that was begun is
/// signed with the keys of its own.
#[derive(Debug, Clone)]
pub struct Signer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: KeyRing,
    options: SignerOptions,
}

/// A message on its way through a signer.
///
/// It holds the header until that ends, at most
/// [`max_header`](super::SignerOptions::max_header) octets, then the canonical form of what is
/// signed of it. Of the body it holds a hash.
#[must_use = "a message is signed by `finish`"]
pub struct Signing {
    signer: Arc<Inner>,
    /// `None`: the From field decides.
    domains: Option<Vec<String>>,
    state: State,
}

enum State {
    Header(Vec<u8>),
    Body(Box<Message>),
    /// There is no key.
    Unsigned,
    Failed(SignError),
}

/// A message whose header was read.
struct Message {
    domains: Vec<String>,
    /// The value of `h=`.
    names: Vec<String>,
    /// The canonical form of these fields.
    header: Vec<u8>,
    body: BodyHash,
}

/// Fields that are signed at most, those that seal a name not counted. Beyond it:
/// [`SignError::TooManyFields`]. Honest messages have some tens.
pub const MAX_SIGNED: usize = 500;

impl Signer {
    /// A signer with these keys.
    pub fn new(keys: KeyRing, options: SignerOptions) -> Self {
        Self(Arc::new(Inner { keys, options }))
    }

    /// The keys.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    /// Begins a message that is signed for the domain of its From field.
    pub fn begin(&self) -> Signing {
        let state = if self.0.keys.is_empty() { State::Unsigned } else { State::Header(Vec::new()) };
        Signing { signer: self.0.clone(), domains: None, state }
    }

    /// Begins a message that is signed for these domains, whatever its From field says. For example
    /// they are those of the author and of the service that sends the message. Each adds at most
    /// two signatures, one for each algorithm. A key signs once, even if it is found for two
    /// domains.
    pub fn begin_for<'d>(&self, domains: impl IntoIterator<Item = Domain<&'d str>>) -> Signing {
        let names = domains.into_iter().filter_map(|domain| Some(domain.to_a_labels().ok()?.as_str().to_owned()));
        let names: Vec<String> = names.filter(|name| self.0.keys.may_sign(name)).collect();
        let state = if names.is_empty() { State::Unsigned } else { State::Header(Vec::new()) };
        Signing { signer: self.0.clone(), domains: Some(names), state }
    }

    /// Signs a whole message: [`begin`](Self::begin), [`update`](Signing::update) and
    /// [`finish`](Signing::finish).
    ///
    /// # Errors
    /// As [`Signing::finish`].
    pub fn sign(&self, message: &[u8], now: SystemTime) -> Result<Vec<Signature>, SignError> {
        let mut signing = self.begin();
        signing.update(message);
        signing.finish(now)
    }
}

impl Signing {
    /// Takes the next piece of the message, header and body as they come, without dot-stuffing. A
    /// piece may end anywhere, and may be empty.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.state {
            State::Header(held) => {
                let limit = self.signer.options.max_header;
                let end = header::end(held, piece);
                let (rest_of_header, body) = piece.split_at_checked(end.unwrap_or(piece.len())).unwrap_or((piece, &[]));
                if held.len().saturating_add(rest_of_header.len()) > limit {
                    self.state = State::Failed(SignError::HeaderTooLong { limit });
                    return;
                }
                held.extend_from_slice(rest_of_header);
                if end.is_some() {
                    let held = mem::take(held);
                    self.state = self.read(&held);
                    self.update(body);
                }
            }
            State::Body(message) => message.body.update(piece),
            State::Unsigned | State::Failed(_) => {}
        }
    }

    /// Returns `true` if [`finish`](Self::finish) at this time makes a signature with this
    /// algorithm, so that a caller can move RSA to a thread that may block. While the header has
    /// not ended, it is `true` as soon as some key has the algorithm.
    pub fn will_use(&self, algorithm: Algorithm, now: SystemTime) -> bool {
        let keys = &self.signer.keys;
        match &self.state {
            State::Header(_) => keys.has(algorithm),
            State::Body(message) => {
                let mut found = message.domains.iter().flat_map(|domain| keys.find_name(domain, now));
                found.any(|key| key.algorithm() == algorithm)
            }
            State::Unsigned | State::Failed(_) => false,
        }
    }

    /// Ends the message and signs it, as of this time. The signatures belong in front of it, in any
    /// order. There is none without a valid key.
    ///
    /// A signature with RSA takes about a millisecond of a processor, one with Ed25519 some tens of
    /// microseconds.
    ///
    /// # Errors
    /// [`SignError`]: the message should not be signed, or the crypto provider failed. A message
    /// whose author cannot be read is an error too, unless the ring has no key at all.
    pub fn finish(mut self, now: SystemTime) -> Result<Vec<Signature>, SignError> {
        if let State::Header(held) = &mut self.state {
            // A message without an empty line has no body.
            let held = mem::take(held);
            self.state = self.read(&held);
        }
        let message = match self.state {
            State::Body(message) => message,
            State::Failed(error) => return Err(error),
            State::Header(_) | State::Unsigned => return Ok(Vec::new()),
        };
        let body_hash = message.body.finish().map_err(|_| SignError::BareLineEnd { line: None })?;
        let Inner { keys, options } = &*self.signer;
        let signed = Signed { options, names: &message.names, header: &message.header, body_hash, now };
        let mut chosen: Vec<&SigningKey> = Vec::new();
        for key in message.domains.iter().flat_map(|domain| keys.find_name(domain, now)) {
            if !chosen.iter().any(|other| std::ptr::eq(*other, key)) {
                chosen.push(key);
            }
        }
        chosen.into_iter().map(|key| Signature::new(&signed, key)).collect()
    }

    /// Reads the header, which has ended.
    fn read(&self, header: &[u8]) -> State {
        self.message(header).map_or_else(State::Failed, |message| message.map_or(State::Unsigned, State::Body))
    }

    fn message(&self, header: &[u8]) -> Result<Option<Box<Message>>, SignError> {
        let Inner { keys, options } = &*self.signer;
        let fields = fields(header)?;
        let domains = match &self.domains {
            Some(domains) => domains.clone(),
            None => vec![author::domain(&fields)?],
        };
        if !domains.iter().any(|domain| keys.may_sign(domain)) {
            return Ok(None);
        }
        // RFC 6376 section 5.4: From has to be signed, and one alone can be.
        let from = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"From")).count();
        if from != 1 {
            return Err(SignError::FromFields { count: from });
        }
        let (names, header) = choose(&options.fields, &fields, |field, out| {
            write_canonical(options.header, field, out);
            out.extend_from_slice(b"\r\n");
        })?;
        Ok(Some(Box::new(Message { domains, names, header, body: BodyHash::new(options.body) })))
    }
}

/// Without the message.
impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("domains", &self.domains).finish_non_exhaustive()
    }
}

/// The names in `h=`, and the canonical form of the fields that they name.
fn choose(
    signed: &SignedFields,
    fields: &[Field<'_>],
    mut write: impl FnMut(Field<'_>, &mut Vec<u8>),
) -> Result<(Vec<String>, Vec<u8>), SignError> {
    let (mut names, mut header, mut count) = (Vec::new(), Vec::new(), 0_usize);
    for signed in signed.iter() {
        let before = count;
        // RFC 6376 section 5.4.2: from the last field of this name to the first.
        for field in fields.iter().rev().filter(|field| field.name.eq_ignore_ascii_case(signed.name.as_bytes())) {
            count += 1;
            if count > MAX_SIGNED {
                return Err(SignError::TooManyFields { limit: MAX_SIGNED });
            }
            names.push(signed.name.clone());
            write(*field, &mut header);
        }
        // The name once more: no other field of this name may be added.
        if signed.always || count > before {
            names.push(signed.name.clone());
        }
    }
    Ok((names, header))
}
