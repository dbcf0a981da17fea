//! What domains publish about the TLS of their mail hosts: DANE and MTA-STS.

use std::{fmt, net::IpAddr};

use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "dane")]
use crate::dane::{self, Dane};
#[cfg(feature = "mta-sts")]
use crate::mta_sts::{Found, HostRule, MtaSts};
#[cfg(feature = "tls-rpt")]
use crate::tls_rpt::{AppliedPolicy, Failure, Recorder, ResultType};
use crate::{Answer, Client, ConnectError, HostTls, MxRecord, Resolver, Tls, mx::MxError};

/// The published policies that mail by MX follows: for [`MxOptions`](crate::MxOptions), and for a
/// relay. By default none.
///
/// DANE comes first. A host that has usable TLSA records needs a certificate that they are about.
/// Otherwise the MTA-STS policy of the domain counts, if there is one. Where it demands nothing, a
/// host whose TLSA records are of no use needs TLS with any certificate. A host about which neither
/// says anything gets the TLS of the options.
///
/// | | feature | needs |
/// |---|---|---|
/// | `with_dane` | `dane` | a resolver that validates DNSSEC, otherwise no host has DANE |
/// | `with_mta_sts` | `mta-sts` | authorities that are trusted |
/// | `with_reports` | `tls-rpt` | |
/// | `with_observer` | `mta-sts`, `tls-rpt` | authorities that are trusted |
#[derive(Clone, Default)]
pub struct Published {
    #[cfg(feature = "dane")]
    dane: bool,
    #[cfg(feature = "mta-sts")]
    mta_sts: Option<(MtaSts, std::sync::Arc<posthaste_tokio::rustls::ClientConfig>)>,
    #[cfg(feature = "tls-rpt")]
    reports: Option<Recorder>,
    #[cfg(all(feature = "mta-sts", feature = "tls-rpt"))]
    observer: Option<posthaste_tokio::tls::Observer>,
}

/// What is known of a domain whose hosts are to be judged.
#[derive(Debug, Default)]
pub(crate) struct OfDomain {
    #[cfg(feature = "dane")]
    dane: Option<Dane>,
    #[cfg(feature = "mta-sts")]
    found: Found,
}

/// The policy of a host, as reports of TLS name it.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    #[cfg(feature = "tls-rpt")]
    applied: Option<AppliedPolicy>,
    /// The policy, if it is only tested.
    #[cfg(all(feature = "mta-sts", feature = "tls-rpt"))]
    tested: Option<std::sync::Arc<crate::mta_sts::Policy>>,
    /// What TLSA records prove by a connection to the host.
    #[cfg(feature = "dane")]
    proof: Option<[u8; 32]>,
}

impl Published {
    /// Follows the TLSA records of hosts (RFC 7672).
    #[cfg(feature = "dane")]
    #[must_use]
    pub fn with_dane(mut self) -> Self {
        self.dane = true;
        self
    }

    /// Follows the MTA-STS policies of domains (RFC 8461). `verified` verifies the certificates of
    /// their hosts, as [`verified_by`](crate::tls::verified_by) makes it.
    #[cfg(feature = "mta-sts")]
    #[must_use]
    pub fn with_mta_sts(
        mut self,
        mta_sts: MtaSts,
        verified: std::sync::Arc<posthaste_tokio::rustls::ClientConfig>,
    ) -> Self {
        self.mta_sts = Some((mta_sts, verified));
        self
    }

    /// Counts for reports how the TLS of each new connection went (RFC 8460).
    #[cfg(feature = "tls-rpt")]
    #[must_use]
    pub fn with_reports(mut self, reports: Recorder) -> Self {
        self.reports = Some(reports);
        self
    }

    /// Judges the certificates of hosts under MTA-STS policies in mode `testing`, for the reports.
    /// Without it such a policy is tested only for the hosts that it names and for TLS as such.
    #[cfg(all(feature = "mta-sts", feature = "tls-rpt"))]
    #[must_use]
    pub fn with_observer(mut self, observer: posthaste_tokio::tls::Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Returns `true` if no policy is followed.
    pub fn is_empty(&self) -> bool {
        #[cfg(feature = "dane")]
        if self.dane {
            return false;
        }
        #[cfg(feature = "mta-sts")]
        if self.mta_sts.is_some() {
            return false;
        }
        true
    }

    /// Counts a connection to a host of a domain that has become ready. It counts as failed if it
    /// has no TLS, or is not as a policy demands that is only tested.
    pub fn count_ready<S>(&self, domain: &str, policy: &HostPolicy, client: &Client<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        #[cfg(feature = "tls-rpt")]
        if let (Some(reports), Some(applied), Some(target)) = (&self.reports, &policy.applied, &client.facts.target) {
            match self.fault(policy, &target.host, client) {
                None => reports.succeeded(domain, applied),
                Some((result, reason)) => {
                    let mut failure = Failure::new(result);
                    (failure.mx_host, failure.reason) = (target.host.to_string(), reason);
                    reports.failed(domain, applied, failure);
                }
            }
        }
        let _ = (domain, policy, client);
    }

    /// Counts a connection to a host of a domain that has failed.
    pub fn count_failed(&self, domain: &str, host: &str, policy: &HostPolicy, error: &ConnectError) {
        #[cfg(feature = "tls-rpt")]
        if let (Some(reports), Some(applied)) = (&self.reports, &policy.applied)
            && let Some(failure) = Failure::of(error, host)
        {
            reports.failed(domain, applied, failure);
        }
        let _ = (domain, host, policy, error);
    }

    /// Why a connection that is ready counts as failed, and the reason in words.
    #[cfg(feature = "tls-rpt")]
    fn fault<S>(&self, policy: &HostPolicy, host: &str, client: &Client<S>) -> Option<(ResultType, String)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _ = (policy, host);
        #[cfg(feature = "mta-sts")]
        if policy.tested.as_ref().is_some_and(|tested| !tested.permits(host)) {
            return Some((ResultType::ValidationFailure, "the policy does not name the host".to_owned()));
        }
        if client.is_tls_suspected() {
            return Some((ResultType::ValidationFailure, "TLS broke, and the mail went without it".to_owned()));
        }
        if !client.is_tls() {
            return Some((ResultType::StarttlsNotSupported, String::new()));
        }
        #[cfg(feature = "mta-sts")]
        if let (Some(observer), Some(_)) = (&self.observer, &policy.tested) {
            let Some(name) = crate::client::server_name(host) else {
                return Some((ResultType::ValidationFailure, "no certificate can be for the name".to_owned()));
            };
            let judged = observer.judge(client.certificates(), &name);
            return judged.err().map(|fault| ((&fault).into(), posthaste_tokio::tls::explain(&fault)));
        }
        None
    }

    /// Looks up what the domain asks. `is_again`: hosts were passed over because of an earlier
    /// answer, so this one has to be new.
    pub(crate) async fn of_domain(
        &self,
        resolver: &impl Resolver,
        domain: &str,
        hosts: &Answer<MxRecord>,
        is_again: bool,
    ) -> OfDomain {
        let _ = (resolver, domain, hosts, is_again);
        OfDomain {
            #[cfg(feature = "dane")]
            dane: self.dane.then(|| Dane::of_domain(domain, hosts)),
            #[cfg(feature = "mta-sts")]
            found: match &self.mta_sts {
                Some((mta_sts, _)) if is_again => mta_sts.refresh(resolver, domain).await,
                Some((mta_sts, _)) => self.found(mta_sts, resolver, domain).await,
                None => Found::default(),
            },
        }
    }

    #[cfg(feature = "mta-sts")]
    async fn found(&self, mta_sts: &MtaSts, resolver: &impl Resolver, domain: &str) -> Found {
        let found = mta_sts.policy(resolver, domain).await;
        #[cfg(feature = "tls-rpt")]
        if let (Some(reports), Some(problem)) = (&self.reports, &found.problem) {
            reports.failed(domain, &AppliedPolicy::none(), Failure::of_policy(problem));
        }
        found
    }

    /// The TLS of connections to a host, and the policy behind it. `Ok(None)`: that of the options.
    ///
    /// # Errors
    /// The host must not get the mail now.
    pub(crate) async fn of_host(
        &self,
        resolver: &impl Resolver,
        of: &OfDomain,
        (host, port): (&str, u16),
        addresses: &Answer<IpAddr>,
        usual: &Tls,
    ) -> Result<(Option<HostTls>, HostPolicy), MxError> {
        let _ = (resolver, port, addresses);
        #[cfg(feature = "dane")]
        let dane = match &of.dane {
            Some(dane) => dane.policy(resolver, host, port, addresses).await,
            None => dane::Policy::NoDane(dane::NoDane::NoRecords),
        };
        #[cfg(feature = "dane")]
        if matches!(dane, dane::Policy::Authenticate(_) | dane::Policy::PassOver(_)) {
            return by_dane(&dane, usual);
        }
        let (tls, policy) = self.by_sts(of, host, usual)?;
        // Without a usable record the policy of the domain counts. It may ask for nothing.
        #[cfg(feature = "dane")]
        if tls.is_none() && matches!(dane, dane::Policy::Encrypt) {
            return by_dane(&dane, usual);
        }
        Ok((tls, policy))
    }

    /// The same, by MTA-STS alone.
    fn by_sts(&self, of: &OfDomain, host: &str, usual: &Tls) -> Result<(Option<HostTls>, HostPolicy), MxError> {
        let _ = (of, host, usual);
        #[cfg(feature = "mta-sts")]
        if let Some((_, verified)) = &self.mta_sts {
            let policy = HostPolicy::of_sts(&of.found);
            return match of.found.tls(host, usual, verified) {
                Some(tls) if tls == *usual => Ok((None, policy)),
                Some(tls) => Ok((Some(tls.into()), policy)),
                None => Err(MxError::TlsPolicy("the MTA-STS policy of the domain does not name the host".to_owned())),
            };
        }
        Ok((None, HostPolicy::none()))
    }

    /// Returns `true` if the policy of the domain names none of its hosts.
    pub(crate) fn passes_over_all(of: &OfDomain, hosts: &[MxRecord]) -> bool {
        #[cfg(feature = "mta-sts")]
        return hosts.iter().all(|host| of.found.rule(&host.exchange) == HostRule::PassOver);
        #[cfg(not(feature = "mta-sts"))]
        {
            let _ = (of, hosts);
            false
        }
    }

    /// Returns `true` if a new answer may permit hosts that were passed over.
    pub(crate) fn may_change(of: &OfDomain) -> bool {
        #[cfg(feature = "mta-sts")]
        return of.found.policy.is_some();
        #[cfg(not(feature = "mta-sts"))]
        {
            let _ = of;
            false
        }
    }
}

/// What TLSA records demand.
#[cfg(feature = "dane")]
fn by_dane(policy: &dane::Policy, usual: &Tls) -> Result<(Option<HostTls>, HostPolicy), MxError> {
    let tls = policy.tls(usual).map_err(|error| MxError::TlsPolicy(error.to_string()))?;
    Ok((Some(tls), HostPolicy::of_dane(policy)))
}

impl HostPolicy {
    /// Returns equal octets for two policies if a connection that one of them has proved by TLSA
    /// records is proved for the other. Empty: no such records count.
    pub(crate) fn proof(&self) -> &[u8] {
        #[cfg(feature = "dane")]
        if let Some(proof) = &self.proof {
            return proof;
        }
        &[]
    }

    fn none() -> Self {
        Self {
            #[cfg(feature = "tls-rpt")]
            applied: Some(AppliedPolicy::none()),
            #[cfg(all(feature = "mta-sts", feature = "tls-rpt"))]
            tested: None,
            #[cfg(feature = "dane")]
            proof: None,
        }
    }

    #[cfg(feature = "dane")]
    fn of_dane(policy: &dane::Policy) -> Self {
        Self {
            #[cfg(feature = "tls-rpt")]
            applied: Some(AppliedPolicy::tlsa([])),
            #[cfg(all(feature = "mta-sts", feature = "tls-rpt"))]
            tested: None,
            proof: match policy {
                dane::Policy::Authenticate(good) => Some(good.digest()),
                dane::Policy::NoDane(_) | dane::Policy::Encrypt | dane::Policy::PassOver(_) => None,
            },
        }
    }

    #[cfg(feature = "mta-sts")]
    fn of_sts(found: &Found) -> Self {
        let _ = found;
        Self {
            #[cfg(feature = "tls-rpt")]
            applied: Some(found.into()),
            #[cfg(feature = "tls-rpt")]
            tested: found.policy.clone().filter(|_| found.tested().is_some()),
            #[cfg(feature = "dane")]
            proof: None,
        }
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Published");
        #[cfg(feature = "dane")]
        shown.field("dane", &self.dane);
        #[cfg(feature = "mta-sts")]
        shown.field("mta_sts", &self.mta_sts.is_some());
        #[cfg(feature = "tls-rpt")]
        shown.field("reports", &self.reports.is_some());
        shown.finish()
    }
}
