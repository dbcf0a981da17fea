//! Counts of sessions, within bounds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{PolicyType, ResultType};
use crate::{ConnectError, HostName};

/// Counts sessions by domain and policy. Its clones count together.
///
/// It counts 10,000 domains at most, 8 policies for each domain, 100 kinds of failures for each
/// policy, and 32 MiB in all. A failure of a kind beyond that is counted without its details, and a
/// session of a domain or policy beyond that is not counted: a report is no proof. What is counted
/// is lost when the process ends.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    domains: HashMap<Box<str>, Vec<PolicyCounts>>,
    bytes: usize,
}

/// The policy that a session followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedPolicy {
    pub(super) kind: PolicyType,
    pub(super) lines: Vec<String>,
    pub(super) mx: Vec<String>,
}

/// A kind of failure. Sessions that failed in the same way have equal ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Failure {
    /// Why it failed.
    pub result: ResultType,
    /// The sender's address. `None`: not known, or there was no connection.
    pub sending_ip: Option<IpAddr>,
    /// The name of the MX host. Empty: there was no host, as when a policy is not fetched.
    pub mx_host: String,
    /// The name in the host's greeting. Empty: not known.
    pub mx_helo: String,
    /// The host's address. `None`: not known, or there was no connection.
    pub receiving_ip: Option<IpAddr>,
    /// The reason in a few words of our own. Empty: the result says it all.
    pub reason: String,
}

/// What was counted for one domain.
#[derive(Debug)]
pub struct Tally {
    domain: String,
    pub(super) policies: Vec<PolicyCounts>,
}

#[derive(Debug)]
pub(super) struct PolicyCounts {
    pub(super) policy: AppliedPolicy,
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) kinds: HashMap<Failure, u64>,
}

const DOMAINS: usize = 10_000;
const POLICIES: usize = 8;
const KINDS: usize = 100;
const BYTES: usize = 32 << 20;
/// What an entry takes besides its texts, about.
const ENTRY: usize = 256;
/// The most bytes of a text about a failure.
const TEXT: usize = 256;

impl Recorder {
    /// Counts a session whose TLS was as the policy asks. Without a policy: a session with TLS.
    pub fn succeeded(&self, domain: &str, policy: &AppliedPolicy) {
        self.lock().with(domain, policy, |counts, _| counts.successes = counts.successes.saturating_add(1));
    }

    /// Counts a session that failed, or that would have failed if the policy were enforced. Texts
    /// are cut at 256 bytes, and their control characters become spaces.
    pub fn failed(&self, domain: &str, policy: &AppliedPolicy, mut failure: Failure) {
        for text in [&mut failure.mx_host, &mut failure.mx_helo, &mut failure.reason] {
            *text = cut(text);
        }
        self.lock().with(domain, policy, |counts, bytes| {
            counts.failures = counts.failures.saturating_add(1);
            if let Some(count) = counts.kinds.get_mut(&failure) {
                *count = count.saturating_add(1);
                return;
            }
            let size = ENTRY.saturating_add(failure.mx_host.len() + failure.mx_helo.len() + failure.reason.len());
            if counts.kinds.len() < KINDS && bytes.saturating_add(size) <= BYTES {
                *bytes = bytes.saturating_add(size);
                counts.kinds.insert(failure, 1);
            }
        });
    }

    /// Takes what was counted since the last time, in the order of the domains' names.
    pub fn take(&self) -> Vec<Tally> {
        let counts = std::mem::take(&mut *self.lock());
        let tally = |(domain, policies): (Box<str>, _)| Tally { domain: domain.into(), policies };
        let mut tallies: Vec<_> = counts.domains.into_iter().map(tally).collect();
        tallies.sort_unstable_by(|one, other| one.domain.cmp(&other.domain));
        tallies
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Changes the counts of a policy, and the bytes of all. It does not if there are too many.
    fn with(&mut self, domain: &str, policy: &AppliedPolicy, change: impl FnOnce(&mut PolicyCounts, &mut usize)) {
        // Only such a domain can be in the header of a message, and have a record that asks for it.
        let domain = HostName::parse(domain).ok().filter(HostName::is_plain);
        let Some(domain) = domain.map(|domain| domain.as_str().to_ascii_lowercase()) else { return };
        let known = self.domains.get(&*domain).map_or(&[][..], Vec::as_slice);
        let index = known.iter().position(|counts| counts.policy == *policy);
        if index.is_none() {
            let size = ENTRY.saturating_add(domain.len()).saturating_add(policy.size());
            let fits = self.bytes.saturating_add(size) <= BYTES && known.len() < POLICIES;
            if !fits || (known.is_empty() && self.domains.len() >= DOMAINS) {
                return;
            }
            self.bytes = self.bytes.saturating_add(size);
        }
        let policies = self.domains.entry(domain.into()).or_default();
        let index = index.unwrap_or_else(|| {
            policies.push(PolicyCounts { policy: policy.clone(), successes: 0, failures: 0, kinds: HashMap::new() });
            policies.len().saturating_sub(1)
        });
        if let Some(counts) = policies.get_mut(index) {
            change(counts, &mut self.bytes);
        }
    }
}

impl Tally {
    /// The domain, in lower case and A-labels.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Sessions that succeeded.
    pub fn successful_sessions(&self) -> u64 {
        self.policies.iter().fold(0, |sum, counts| sum.saturating_add(counts.successes))
    }

    /// Sessions that failed.
    pub fn failed_sessions(&self) -> u64 {
        self.policies.iter().fold(0, |sum, counts| sum.saturating_add(counts.failures))
    }
}

impl AppliedPolicy {
    /// No policy was found, or none could be fetched.
    pub const fn none() -> Self {
        Self { kind: PolicyType::NoPolicyFound, lines: Vec::new(), mx: Vec::new() }
    }

    /// DANE with these TLSA records, each as text (RFC 6698 section 2.2).
    pub fn tlsa(records: impl IntoIterator<Item = String>) -> Self {
        Self { kind: PolicyType::Tlsa, lines: records.into_iter().collect(), mx: Vec::new() }
    }

    /// MTA-STS with this policy.
    #[cfg(feature = "mta-sts")]
    pub fn sts(policy: &crate::mta_sts::Policy) -> Self {
        let mx = policy.mx().iter().map(ToString::to_string).collect();
        Self { kind: PolicyType::Sts, lines: policy.lines().collect(), mx }
    }

    fn size(&self) -> usize {
        self.lines
            .iter()
            .chain(&self.mx)
            .fold(0, |sum: usize, line| sum.saturating_add(line.len() + size_of::<String>()))
    }
}

/// The policy that counts. One of mode `none` counts as none.
#[cfg(feature = "mta-sts")]
impl From<&crate::mta_sts::Found> for AppliedPolicy {
    fn from(found: &crate::mta_sts::Found) -> Self {
        let policy = found.policy.as_deref().filter(|policy| policy.mode() != crate::mta_sts::Mode::None);
        policy.map_or_else(Self::none, Self::sts)
    }
}

impl Failure {
    /// A failure of this kind, without details.
    pub const fn new(result: ResultType) -> Self {
        Self {
            result,
            sending_ip: None,
            mx_host: String::new(),
            mx_helo: String::new(),
            receiving_ip: None,
            reason: String::new(),
        }
    }

    /// The failure of a connection to a host. `None`: TLS was not the reason.
    pub fn of(error: &ConnectError, mx_host: &str) -> Option<Self> {
        let result = ResultType::of(error)?;
        Some(Self { mx_host: mx_host.to_owned(), reason: error.to_string(), ..Self::new(result) })
    }

    /// The failure to learn of a domain's policy.
    #[cfg(feature = "mta-sts")]
    pub fn of_policy(problem: &crate::mta_sts::Problem) -> Self {
        Self { reason: problem.to_string(), ..Self::new(problem.into()) }
    }
}

/// The beginning of a text, on one line.
fn cut(text: &str) -> String {
    let end = (0..=TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(number: usize) -> Failure {
        Failure { mx_host: format!("mx{number}.test"), ..Failure::new(ResultType::ValidationFailure) }
    }

    #[test]
    fn sessions_are_counted_by_domain_policy_and_kind() {
        let recorder = Recorder::default();
        let tlsa = AppliedPolicy::tlsa(["3 1 1 ab".to_owned()]);
        for _ in 0..3 {
            recorder.clone().succeeded("D.Test.", &tlsa);
            recorder.failed("d.test", &tlsa, failure(1));
        }
        recorder.failed("d.test", &AppliedPolicy::none(), failure(1));
        recorder.succeeded("c.test", &AppliedPolicy::none());
        recorder.succeeded("[192.0.2.1]", &AppliedPolicy::none());
        recorder.succeeded("a\r\nb.test", &AppliedPolicy::none());
        let [other, tally] = &recorder.take()[..] else { panic!() };
        assert_eq!((other.domain(), other.successful_sessions()), ("c.test", 1));
        assert_eq!((tally.domain(), tally.successful_sessions(), tally.failed_sessions()), ("d.test", 3, 4));
        let [first, second] = &tally.policies[..] else { panic!() };
        assert_eq!((first.successes, first.failures, first.kinds[&failure(1)]), (3, 3, 3));
        assert_eq!((second.successes, second.failures), (0, 1));
        assert!(recorder.take().is_empty());
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let recorder = Recorder::default();
        for number in 0..2 * KINDS {
            recorder.failed("d.test", &AppliedPolicy::none(), failure(number));
        }
        for number in 0..2 * POLICIES {
            recorder.succeeded("d.test", &AppliedPolicy::tlsa([number.to_string()]));
        }
        for number in 0..2 * DOMAINS {
            recorder.succeeded(&format!("{number}.test"), &AppliedPolicy::none());
        }
        let tallies = recorder.take();
        assert_eq!(tallies.len(), DOMAINS);
        let tally = tallies.iter().find(|tally| tally.domain() == "d.test").unwrap();
        let sizes = (tally.policies.len(), tally.policies[0].kinds.len(), tally.policies[0].failures);
        assert_eq!(sizes, (POLICIES, KINDS, 2 * KINDS as u64));

        let large = AppliedPolicy::tlsa([("x".repeat(60_000))]);
        for number in 0..1_000 {
            recorder.succeeded(&format!("{number}.test"), &large);
        }
        assert!(recorder.lock().bytes <= BYTES && recorder.take().len() < 600);
        assert_eq!(recorder.lock().bytes, 0);
    }

    #[test]
    fn texts_of_a_failure_are_cut_and_harmless() {
        let recorder = Recorder::default();
        let long = Failure { mx_helo: "\u{fc}\r\n".repeat(1_000), ..failure(1) };
        recorder.failed("d.test", &AppliedPolicy::none(), long);
        let tallies = recorder.take();
        let helo = &tallies[0].policies[0].kinds.keys().next().unwrap().mx_helo;
        assert!(helo.len() <= TEXT && helo.starts_with("\u{fc}  \u{fc}") && !helo.contains('\n'));
    }
}
