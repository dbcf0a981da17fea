//! What a sender learns of a domain, and what follows for each MX host.

use std::sync::Arc;

use posthaste_tokio::rustls::ClientConfig;
use thiserror::Error;

use super::{FetchError, Mode, Policy, PolicyError, RecordError};
use crate::{Identity, ResolveError, Tls};

/// What is known of a domain's policy.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Found {
    /// The policy that counts. `None`: the domain counts as one without MTA-STS.
    pub policy: Option<Arc<Policy>>,
    /// Why the last look-up or fetch failed. A policy that is kept still counts. `None`: it did not
    /// fail, or the domain publishes no policy.
    pub problem: Option<Arc<Problem>>,
}

/// Why a domain that may have a policy has none, or none that is newer than the one that is kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The DNS gave no answer about the TXT record.
    #[error("the TXT record of `_mta-sts` is not found: {0}")]
    Dns(#[from] ResolveError),
    /// The TXT record names no policy.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The policy cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The policy has a fault.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What a domain's policy asks about one of its MX hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRule {
    /// Nothing: mail goes as without a policy.
    Free,
    /// TLS with a certificate for the host's name, or no mail (RFC 8461 section 4).
    Verify,
    /// No mail: go on with the next host.
    PassOver,
}

impl Found {
    /// What the policy asks about a host that the domain's MX records name.
    pub fn rule(&self, host: &str) -> HostRule {
        match &self.policy {
            Some(policy) if policy.mode() == Mode::Enforce && policy.permits(host) => HostRule::Verify,
            Some(policy) if policy.mode() == Mode::Enforce => HostRule::PassOver,
            Some(_) | None => HostRule::Free,
        }
    }

    /// The TLS for a host that the domain's MX records name. `None`: the host is passed over, and
    /// the mail waits if all hosts are.
    ///
    /// `usual` is the TLS for mail without a policy. It stays unless the policy asks for more.
    /// `verified` verifies certificates of public authorities, as
    /// [`verified_by`](crate::tls::verified_by) makes it. The policy is what proves the host's
    /// name, so REQUIRETLS mail may go there (RFC 8689 section 4.2.1).
    pub fn tls(&self, host: &str, usual: &Tls, verified: &Arc<ClientConfig>) -> Option<Tls> {
        let identity = || Identity::Verified(Arc::clone(verified));
        match (self.rule(host), usual) {
            (HostRule::PassOver, _) => None,
            (HostRule::Free, _)
            | (HostRule::Verify, Tls::Required(Identity::Verified(_)) | Tls::Implicit(Identity::Verified(_))) => {
                Some(usual.clone())
            }
            (HostRule::Verify, Tls::Implicit(Identity::Unverified(_))) => Some(Tls::Implicit(identity())),
            (HostRule::Verify, Tls::Off | Tls::Opportunistic(_) | Tls::Required(Identity::Unverified(_))) => {
                Some(Tls::Required(identity()))
            }
        }
    }

    /// The policy in mode `testing`: failures are recorded and mail goes all the same. `None`:
    /// another mode, or no policy.
    ///
    /// [`Policy::permits`] says if a host would be passed over. An
    /// [`Observer`](crate::tls::Observer) says if the [certificates](crate::Client::certificates)
    /// of a connection would fail. [`Published`](crate::Published) does both for reports.
    pub fn tested(&self) -> Option<&Policy> {
        self.policy.as_deref().filter(|policy| policy.mode() == Mode::Testing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::any_certificate;

    fn found(mode: &str) -> Found {
        let file = format!("version: STSv1\nmode: {mode}\nmx: *.d.test\nmax_age: 1\n");
        Found { policy: Some(Arc::new(Policy::parse(file.as_bytes()).unwrap())), problem: None }
    }

    #[test]
    fn only_a_policy_that_is_enforced_asks_anything_of_a_host() {
        use HostRule::{Free, PassOver, Verify};
        for (found, rules) in [
            (found("enforce"), [Verify, PassOver]),
            (found("testing"), [Free, Free]),
            (found("none"), [Free, Free]),
            (Found::default(), [Free, Free]),
        ] {
            assert_eq!([found.rule("mx.d.test"), found.rule("mx.other.test")], rules, "{found:?}");
        }
        assert!(found("testing").tested().is_some() && found("enforce").tested().is_none());
    }

    #[test]
    fn a_policy_never_weakens_the_usual_tls() {
        let (own, verified) = (any_certificate().unwrap(), any_certificate().unwrap());
        let is_own = |tls: &Tls| match tls {
            Tls::Off => true,
            Tls::Opportunistic(config) => Arc::ptr_eq(config, &own),
            Tls::Required(identity) | Tls::Implicit(identity) => Arc::ptr_eq(identity.config(), &own),
        };
        let usual = [
            Tls::Off,
            Tls::Opportunistic(Arc::clone(&own)),
            Tls::Required(Identity::Unverified(Arc::clone(&own))),
            Tls::Required(Identity::Verified(Arc::clone(&own))),
            Tls::Implicit(Identity::Unverified(Arc::clone(&own))),
            Tls::Implicit(Identity::Verified(Arc::clone(&own))),
        ];
        for usual in usual {
            let tls = found("enforce").tls("mx.d.test", &usual, &verified).unwrap();
            assert!(tls.is_verified(), "{tls:?}");
            assert_eq!(is_own(&tls), usual.is_verified(), "{usual:?}");
            assert_eq!(matches!(tls, Tls::Implicit(_)), matches!(usual, Tls::Implicit(_)), "{usual:?}");
            assert!(found("enforce").tls("mx.other.test", &usual, &verified).is_none(), "{usual:?}");
            let tls = found("testing").tls("mx.other.test", &usual, &verified).unwrap();
            assert!(is_own(&tls) && tls.is_verified() == usual.is_verified(), "{usual:?}");
        }
    }
}
