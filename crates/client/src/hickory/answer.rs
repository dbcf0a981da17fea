//! What an answer of the DNS says, with its aliases and its security.

use std::time::Duration;

use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{
        ProtoError,
        op::ResponseCode,
        rr::{Name, RData, Record},
    },
};

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use super::dnssec;
use super::{LOOKUP, text};
use crate::{Alias, Answer, ResolveError};

/// The most aliases from a name to its records. Zones that are in order have one or two.
const MAX_ALIASES: usize = 16;

/// Why there is no answer after the bound of a look-up.
pub(super) const TOO_LATE: &str = "no answer in time";
/// Why an answer is none that is cut off, or no message of the DNS.
const UNREADABLE: &str = "the answer cannot be read";
/// Why an answer is none if its records are for a name that no alias leads to.
pub(super) const CONTRADICTION: &str = "the answers contradict each other";

/// What DNSSEC says of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Secure,
    Insecure,
    /// The records should have good signatures, and it could not be shown that they do.
    #[cfg_attr(not(any(feature = "aws-lc-rs", feature = "ring")), expect(dead_code))]
    Doubtful,
}

/// What proves an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    None,
    /// The signature of each record, which the resolver has verified.
    Records,
    /// The name server has verified it all.
    Whole,
}

/// A reply that says what a name has.
#[derive(Debug)]
pub(super) enum Reply {
    /// Records, and the aliases that led to them. Others may be among them.
    Records(Vec<Record>),
    /// The same from a zone that counts as unsigned.
    Insecure(Vec<Record>),
    /// This name exists and has none; the records prove it. The number is the negative TTL.
    None(Name, Vec<Record>, Option<u32>),
}

impl Reply {
    /// The reply to a look-up, waited for as long as [`LOOKUP`].
    pub(super) async fn of(lookup: impl Future<Output = Result<Vec<Record>, NetError>>) -> Result<Self, ResolveError> {
        let error = match tokio::time::timeout(LOOKUP, lookup).await {
            Err(_) => return Err(temporary(TOO_LATE)),
            Ok(Ok(answers)) => return Ok(Self::Records(answers)),
            Ok(Err(error)) => error,
        };
        #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
        if let Some(response) = dnssec::insecure(&error) {
            return match response.response_code {
                ResponseCode::NXDomain => Err(ResolveError::NoSuchName),
                ResponseCode::NoError => Ok(Self::Insecure(response.answers.clone())),
                _ => Err(temporary(&error.to_string())),
            };
        }
        match &error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Err(ResolveError::NoSuchName),
                // A referral to name servers that the resolver did not follow (RFC 2308 section
                // 2.2).
                ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                    Err(temporary("the name server refers to others"))
                }
                ResponseCode::NoError => {
                    let proofs = none.authorities.as_deref().map(<[Record]>::to_vec).unwrap_or_default();
                    Ok(Self::None(none.query.name().clone(), proofs, none.negative_ttl))
                }
                _ => Err(temporary(&error.to_string())),
            },
            // A server or the network may have spoilt it: that says nothing of the domain.
            NetError::Proto(ProtoError::Decode(_)) => Err(temporary(UNREADABLE)),
            _ => Err(temporary(&error.to_string())),
        }
    }

    /// The name whose alias is missing between `name` and the records: the cache of the resolver
    /// leaves out aliases of names that it knows. `None`: none is missing.
    ///
    /// # Errors
    /// [`ResolveError::Unusable`] for too many aliases.
    pub(super) fn gap(&self, name: &Name, is_wanted: impl Fn(&RData) -> bool) -> Result<Option<Name>, ResolveError> {
        let (Self::Records(answers) | Self::Insecure(answers)) = self else { return Ok(None) };
        let end = way(answers, name)?.1;
        let mut wanted = answers.iter().filter(|record| is_wanted(&record.data)).peekable();
        let is_missing = wanted.peek().is_some() && wanted.all(|record| record.name != *end);
        Ok(is_missing.then(|| end.clone()))
    }

    /// Adds the reply to a look-up of the alias that was missing.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] if there is no alias.
    pub(super) fn add(&mut self, alias: Self) -> Result<(), ResolveError> {
        match (self, alias) {
            (Self::Records(all) | Self::Insecure(all), Self::Records(more)) if !more.is_empty() => all.extend(more),
            (this, Self::Insecure(more)) if !more.is_empty() => {
                let (Self::Records(all) | Self::Insecure(all)) = this else { return Ok(()) };
                all.extend(more);
                *this = Self::Insecure(std::mem::take(all));
            }
            _ => return Err(temporary(CONTRADICTION)),
        }
        Ok(())
    }

    /// The records of a name, read by `record`.
    ///
    /// Where something proves answers, only what is on the way from the name counts: the cache adds
    /// to a name the aliases by which it was reached before. Without that rule the owner of an
    /// unsigned alias could take DNSSEC from a host that is not its own.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] for records whose signatures should be good, and are not.
    pub(super) fn answer<T>(
        self,
        name: &Name,
        proof: Proof,
        record: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, ResolveError> {
        let standing = |records: &mut dyn Iterator<Item = &Record>| match proof {
            Proof::None => Standing::Insecure,
            Proof::Records => standing(name, records),
            Proof::Whole => Standing::Secure,
        };
        let (answers, is_unsigned) = match self {
            Self::None(of, proofs, ttl) => {
                let is_secure = of == *name && standing(&mut proofs.iter()) == Standing::Secure;
                return Ok(Answer { is_secure, ttl: ttl.map(seconds), ..Answer::default() });
            }
            Self::Records(answers) => (answers, false),
            Self::Insecure(answers) => (answers, true),
        };
        let (mut way, end) = way(&answers, name)?;
        let is_first_secure = !is_unsigned && standing(&mut way.iter().copied().take(1)) == Standing::Secure;
        let mut records = Vec::new();
        for found in answers.iter().filter(|found| proof == Proof::None || found.name == *end) {
            if let Some(data) = record(&found.data) {
                records.push(data);
                way.push(found);
            }
        }
        let is_secure = match standing(&mut way.iter().copied()) {
            Standing::Doubtful if !is_unsigned => {
                return Err(temporary("the signatures of DNSSEC could not be verified"));
            }
            standing => {
                standing == Standing::Secure
                    && !is_unsigned
                    && (!records.is_empty() || (proof == Proof::Whole && end != name))
            }
        };
        let alias = (end != name).then(|| Alias { canonical_name: text(end), is_secure: is_first_secure });
        // The cache counts the TTL of what it holds down.
        let ttl = way.iter().map(|record| record.ttl).min().map(seconds);
        Ok(Answer { records, is_secure, alias, ttl })
    }
}

/// The aliases from a name on, and the name at their end.
fn way<'r>(answers: &'r [Record], name: &'r Name) -> Result<(Vec<&'r Record>, &'r Name), ResolveError> {
    let (mut way, mut end) = (Vec::new(), name);
    while let Some((alias, target)) = answers.iter().find_map(|record| alias_at(record, end)) {
        if way.len() >= MAX_ALIASES {
            return Err(ResolveError::Unusable("they are too many aliases"));
        }
        way.push(alias);
        end = target;
    }
    Ok((way, end))
}

/// The alias at this name, with its target.
fn alias_at<'r>(record: &'r Record, name: &Name) -> Option<(&'r Record, &'r Name)> {
    match &record.data {
        RData::CNAME(target) if record.name == *name => Some((record, &target.0)),
        _ => None,
    }
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use dnssec::standing;

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn standing(_: &Name, _: &mut dyn Iterator<Item = &Record>) -> Standing {
    Standing::Insecure
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

fn temporary(reason: &str) -> ResolveError {
    ResolveError::Temporary(reason.to_owned())
}
