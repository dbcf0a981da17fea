//! The report of a day (RFC 8460 sections 4.4 and 5.1).

use std::{
    cmp::Reverse,
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use posthaste_tokio::wire::{Domain, Mailbox};
use serde_json::{Map, Value, json};

use super::{
    Failure, PolicyType, Tally,
    recorder::{AppliedPolicy, PolicyCounts},
};
use crate::mx::ascii_name;

/// The media type of a report.
pub const JSON: &str = "application/tlsrpt+json";
/// The media type of a report that is compressed.
pub const GZIP: &str = "application/tlsrpt+gzip";

/// Who reports.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Submitter {
    /// The name of the organization.
    pub organization: String,
    /// The domain of the sending host. Its DKIM key signs the message.
    pub domain: Domain,
    /// The mailbox of those who are responsible, in ASCII. Messages are from it.
    pub contact: Mailbox,
}

/// The time that a report covers, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// What a domain is told.
#[derive(Debug)]
pub struct Report {
    pub(super) domain: String,
    pub(super) submitter: String,
    pub(super) contact: Mailbox,
    period: Period,
    id: String,
    json: Vec<u8>,
}

const DAY: i64 = 86_400;

impl Submitter {
    /// An organization, its sending host and its mailbox.
    pub const fn new(organization: String, domain: Domain, contact: Mailbox) -> Self {
        Self { organization, domain, contact }
    }
}

impl Period {
    /// The day in UTC that this time is in, without the second after it: the period that RFC 8460
    /// section 4.1 recommends.
    pub fn day_of(time: SystemTime) -> Self {
        let start = seconds(time).div_euclid(DAY).saturating_mul(DAY);
        Self { start, end: start.saturating_add(DAY - 1) }
    }

    /// Another period, such as that of a program that just started.
    pub fn new(start: SystemTime, end: SystemTime) -> Self {
        Self { start: seconds(start), end: seconds(end) }
    }
}

impl Report {
    /// Makes a report of what was counted. Its id has 64 random bits.
    pub fn new(tally: Tally, submitter: &Submitter, period: Period) -> Self {
        let (domain, name) = (tally.domain().to_owned(), ascii_name(submitter.domain.as_str()));
        let id = format!("{}.{:016x}@{name}", period.start, fastrand::u64(..));
        let policies: Vec<_> = tally.policies.iter().map(|counts| policy(&domain, counts)).collect();
        let json = json!({
            "organization-name": submitter.organization,
            "date-range": { "start-datetime": date_time(period.start), "end-datetime": date_time(period.end) },
            "contact-info": submitter.contact.as_str(),
            "report-id": id,
            "policies": policies,
        });
        let (contact, json) = (submitter.contact.clone(), json.to_string().into_bytes());
        Self { domain, submitter: name, contact, period, id, json }
    }

    /// The domain that it is about.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The id, which is also that of messages: without angle brackets.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The JSON, of media type [`JSON`].
    pub fn to_json(&self) -> &[u8] {
        &self.json
    }

    /// The JSON compressed, of media type [`GZIP`].
    pub fn to_gzip(&self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing into memory does not fail.
        let written = encoder.write_all(&self.json).and_then(|()| encoder.finish());
        written.unwrap_or_default()
    }

    /// The name of a file with the report compressed (section 5.1).
    pub fn file_name(&self) -> String {
        let Period { start, end } = self.period;
        format!("{}!{}!{start}!{end}.json.gz", self.submitter, self.domain)
    }
}

fn policy(domain: &str, counts: &PolicyCounts) -> Value {
    let AppliedPolicy { kind, lines, mx } = &counts.policy;
    let summary = json!({
        "total-successful-session-count": counts.successes,
        "total-failure-session-count": counts.failures,
    });
    let mut policy = members([("policy-type", kind.as_str().into()), ("policy-domain", domain.into())]);
    // There is no more to say of no policy, and no pattern of hosts in DANE.
    if *kind != PolicyType::NoPolicyFound {
        policy.insert("policy-string".to_owned(), json!(lines));
    }
    if *kind == PolicyType::Sts {
        policy.insert("mx-host".to_owned(), json!(mx));
    }
    let mut all = members([("policy", Value::Object(policy)), ("summary", summary)]);
    let mut kinds: Vec<_> = counts.kinds.iter().collect();
    // The most frequent first, and then in one order for each report.
    kinds.sort_by_cached_key(|(failure, count)| (Reverse(**count), format!("{failure:?}")));
    if !kinds.is_empty() {
        let details = kinds.into_iter().map(|(failure, count)| detail(failure, *count)).collect();
        all.insert("failure-details".to_owned(), Value::Array(details));
    }
    Value::Object(all)
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A kind of failure. Members without a value are left out.
fn detail(failure: &Failure, count: u64) -> Value {
    let Failure { result, sending_ip, mx_host, mx_helo, receiving_ip, reason } = failure;
    let (sending_ip, receiving_ip) = (sending_ip.map(|ip| ip.to_string()), receiving_ip.map(|ip| ip.to_string()));
    let texts = [
        ("result-type", result.as_str()),
        ("sending-mta-ip", sending_ip.as_deref().unwrap_or_default()),
        ("receiving-mx-hostname", mx_host),
        ("receiving-mx-helo", mx_helo),
        ("receiving-ip", receiving_ip.as_deref().unwrap_or_default()),
        ("failure-reason-code", reason),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut detail: Map<_, _> = texts.map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
    detail.insert("failed-session-count".to_owned(), count.into());
    Value::Object(detail)
}

fn seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// RFC 3339 section 5.6.
fn date_time(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}
