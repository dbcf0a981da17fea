//! DNSSEC (RFC 4033 to 4035), validated by hickory.

use std::{fmt, sync::Arc};

use hickory_resolver::{
    TokioResolver,
    config::{ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        dnssec::{self, Proof},
        op::DnsResponse,
        rr::{Name, Record, RecordType},
    },
};

use super::{HickoryResolver, Prover, answer::Standing, not_set_up};
use crate::ResolveError;

/// The keys with which the validation of DNSSEC begins (RFC 4033 section 2).
#[derive(Clone)]
pub struct TrustAnchors(Arc<dnssec::TrustAnchors>);

impl TrustAnchors {
    /// The keys of the root zone that IANA had published when this was built: those of 2017 and
    /// 2024.
    pub fn iana() -> Self {
        Self(Arc::default())
    }

    /// DNSKEY records in the form of a zone file, one a line: `. IN DNSKEY 257 3 8 AwEAA..`. They
    /// may be of any zone.
    ///
    /// # Errors
    /// [`ResolveError::Unusable`] if the text has no such record, or something else.
    pub fn from_dnskeys(text: &str) -> Result<Self, ResolveError> {
        let anchors: dnssec::TrustAnchors =
            text.parse().map_err(|_| ResolveError::Unusable("the trust anchors are no DNSKEY records"))?;
        // An empty text parses. The anchors of other zones are not counted, so the text is.
        if text.trim().is_empty() {
            return Err(ResolveError::Unusable("there is no trust anchor"));
        }
        Ok(Self(Arc::new(anchors)))
    }
}

impl Default for TrustAnchors {
    fn default() -> Self {
        Self::iana()
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchors").finish_non_exhaustive()
    }
}

impl HickoryResolver {
    /// The same resolver, which validates DNSSEC from these anchors on. Needs the cargo feature
    /// `aws-lc-rs` or `ring`. It has a cache of its own.
    ///
    /// Its name servers have to forward signatures (RFC 4035 section 3.2.1). They may be far away:
    /// none of them is believed. Answers with wrong or missing signatures are
    /// [`ResolveError::Temporary`]. The system's file of hosts is not read, because nothing in it
    /// is signed. A first look-up in a zone costs some four more, which the cache keeps.
    ///
    /// hickory 0.26 takes some good answers for wrong: those from a wildcard in a zone with NSEC,
    /// by an alias to a wildcard, or by DNAME. Mail to such hosts waits. A server on this host that
    /// validates has no such gap, see [`trusting`](Self::trusting); prefer that for much mail.
    ///
    /// ```no_run
    /// use posthaste_client::{HickoryResolver, TrustAnchors};
    ///
    /// let resolver = HickoryResolver::system()?.validating(&TrustAnchors::iana())?;
    /// # Ok::<(), posthaste_client::ResolveError>(())
    /// ```
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] if the resolver cannot be set up.
    pub fn validating(self, anchors: &TrustAnchors) -> Result<Self, ResolveError> {
        let mut options = self.resolver.options().clone();
        options.use_hosts_file = ResolveHosts::Never;
        // The proof of an alias is as good as that of the records.
        options.preserve_intermediates = true;
        let config = ResolverConfig::clone(&self.config);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let builder = builder.with_options(options).with_trust_anchor(Arc::clone(&anchors.0));
        let resolver = builder.build().map_err(|error| not_set_up(&error))?;
        Ok(Self { resolver, config: self.config, prover: Prover::Resolver })
    }
}

/// What DNSSEC says of all these records together, which a look-up of `name` has found.
pub(super) fn standing(name: &Name, records: &mut dyn Iterator<Item = &Record>) -> Standing {
    let mut records = records.filter(|record| record.record_type() != RecordType::RRSIG).peekable();
    if records.peek().is_none() {
        return Standing::Insecure;
    }
    let mut all = Standing::Secure;
    for record in records {
        match record.proof {
            Proof::Secure => {}
            Proof::Insecure => all = Standing::Insecure,
            // The resolver answers for this host itself (RFC 6761 section 6.3).
            Proof::Indeterminate if is_local(name) => all = Standing::Insecure,
            // RFC 7672 section 2.1.2 has both as failed look-ups, since they may be an attack. This
            // is "indeterminate" as in RFC 4035 section 4.3: the keys were not to be had.
            Proof::Bogus | Proof::Indeterminate => return Standing::Doubtful,
        }
    }
    all
}

fn is_local(name: &Name) -> bool {
    name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"))
}

/// The response, if an error is that its proof of absence ends in an unsigned zone, or takes more
/// work than is usual (RFC 9276 section 3.2).
pub(super) fn insecure(error: &NetError) -> Option<&DnsResponse> {
    match error {
        NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. }) => Some(response),
        _ => None,
    }
}
