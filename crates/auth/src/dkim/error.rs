//! Why there is no key, or no signature.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

use super::key::MAX_KEY_FILE;

/// A key that cannot sign.
#[derive(Debug, Error)]
#[error("the DKIM key of {domain:?} with selector {selector:?}{}: {fault}", In(.file))]
#[non_exhaustive]
pub struct KeyError {
    /// The domain, as it was given.
    pub domain: String,
    /// The selector, as it was given.
    pub selector: String,
    /// The file. `None`: the key came as text.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub fault: KeyFault,
}

/// What is wrong with a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The domain is no domain name.
    #[error("the domain is no name of at most 253 octets in the DNS; write it like example.org")]
    Domain,
    /// The selector is no part of a name.
    #[error("the selector is no name of the DNS; write letters, digits, hyphens and dots, like 2026a")]
    Selector,
    /// The record's name would be too long.
    #[error(
        "the name of its record, selector._domainkey.domain, has {octets} octets, the DNS allows 253; shorten the selector"
    )]
    RecordName {
        /// The octets that it has.
        octets: usize,
    },
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    File(io::Error),
    /// The text has more octets than a key.
    #[error("it has more than {MAX_KEY_FILE} octets, which no key has; name the file of the private key alone")]
    TooLong,
    /// There is no private key in the text.
    #[error(
        "there is no private key in it; it takes PEM with `BEGIN PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`, or the 32 \
         octets of an Ed25519 key in base64"
    )]
    NoKey,
    /// It has a key in another form, or several keys: this is what it is, with the remedy.
    #[error("it is {0}; make one that is PEM and has that key alone")]
    OtherForm(String),
    /// Its PEM is broken.
    #[error("its PEM is broken ({0}); copy the file again, or make a new key")]
    NotPem(String),
    /// The key is encrypted.
    #[error("it is encrypted, and there is no password here; decrypt it with `openssl pkey -in FILE -out NEW`")]
    Encrypted,
    /// The key is of another kind.
    #[error(
        "it is neither RSA nor Ed25519; make one with `openssl genpkey -algorithm ed25519`, or with `-algorithm rsa \
         -pkeyopt rsa_keygen_bits:2048`"
    )]
    Kind,
    /// An Ed25519 key is broken, or its two halves do not match.
    #[error(
        "it is no whole Ed25519 key, or its public half is not that of its private half; copy the file again, or make \
         a new key"
    )]
    Ed25519,
    /// An RSA key is short or long, or broken.
    #[error(
        "it is no RSA key of 2,048 to 4,096 bits ({0}); RFC 8301 section 3.2 warns of shorter ones, and verifiers need \
         not know longer ones; make one with `openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048`"
    )]
    Rsa(String),
    /// No crypto provider was built in.
    #[error("no crypto provider was built in; build posthaste-auth with the feature `aws-lc-rs` or `ring`")]
    NoProvider,
    /// The key ends before it begins.
    #[error("it ends at or before the time at which it begins; exchange the two")]
    Window,
    /// The identity is no address below the domain.
    #[error("its identity {0:?} is no address in its domain or below; write it like @news.example.org")]
    Identity(String),
    /// The ring has this domain and selector already.
    #[error("there is another key with this domain and selector; give each key a selector of its own")]
    Twice,
}

/// The name of a field cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FieldNameError {
    /// It is no name.
    #[error("{name:?} is no name of a field: it takes 1 to {limit} printable octets without colon and semicolon")]
    NotAName {
        /// The text.
        name: String,
        /// The octets that it may have.
        limit: usize,
    },
    /// Relays add or change such fields.
    #[error("{name} changes on the way of a message, so a signature of it would break; leave it out")]
    Changes {
        /// The name.
        name: String,
    },
    /// From has to be signed.
    #[error("From is always signed (RFC 6376 section 5.4); leave it out of those that are signed if present")]
    From,
    /// There are too many names.
    #[error("more than {limit} names of fields; leave out those that readers do not see")]
    TooMany {
        /// The names that there may be.
        limit: usize,
    },
}

/// Why a message cannot be signed. It is the message's fault, except for [`Self::Provider`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The header is longer than [`SignerOptions::max_header`](super::SignerOptions::max_header).
    #[error("the header has more than {limit} octets; raise `max_header`, or refuse the message")]
    HeaderTooLong {
        /// The octets that it may have.
        limit: usize,
    },
    /// A line of the header is no field. Some hosts end the header there.
    #[error("line {line} of the header is no field, which readers understand in different ways; refuse the message")]
    NotAField {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A field has a blank before its colon, as RFC 5322 section 4.5 has it. Some readers end the
    /// header there, and some verifiers do not find the field.
    #[error("line {line} of the header has a blank before its colon, where some readers see no field; take it out")]
    BlankBeforeColon {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A CR or an LF is no line end. A host that repairs it breaks the signature.
    #[error("there is a CR or an LF that is no line end, {}; repair it first, or refuse the message", Place(.line))]
    BareLineEnd {
        /// The number of the header's line, from 1. `None`: it is in the body.
        line: Option<usize>,
    },
    /// There is a NUL in the header.
    #[error("there is a NUL in line {line} of the header, where some programs end the line; refuse the message")]
    Nul {
        /// The number of the line, from 1.
        line: usize,
    },
    /// There is not one From field.
    #[error("the message has {count} From fields, and RFC 5322 section 3.6 demands one; refuse the message")]
    FromFields {
        /// The number of them.
        count: usize,
    },
    /// The From field is no list of mailboxes.
    #[error(
        "the From field has no address that can be read in one way only: put a name with other than letters and \
         digits in quotes, and the address in angle brackets; or say with `begin_for` who signs"
    )]
    From,
    /// The From field has mailboxes of several domains.
    #[error("the From field has mailboxes of {first} and of {other}; say with `begin_for` which of them sign")]
    Domains {
        /// The domain of the first mailbox.
        first: String,
        /// The first other one.
        other: String,
    },
    /// There are too many fields of the names that are signed.
    #[error("the header has more than {limit} fields that are to be signed; refuse the message")]
    TooManyFields {
        /// The fields that there may be.
        limit: usize,
    },
    /// The crypto provider failed. It is short of random numbers.
    #[error("the crypto provider could not sign for {domain} with selector {selector}; try again")]
    Provider {
        /// The domain.
        domain: String,
        /// The selector.
        selector: String,
    },
}

struct In<'e>(&'e Option<PathBuf>);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(file) => write!(f, " in {}", file.display()),
            None => Ok(()),
        }
    }
}

struct Place<'e>(&'e Option<usize>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, "in line {line} of the header"),
            None => f.write_str("in the body"),
        }
    }
}
