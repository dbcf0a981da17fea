//! Keys that sign nothing, and what is said of signatures without a key.

use posthaste::relay::SignFor;

use super::takes_submissions;
use crate::config::{file::File, findings::Findings};

pub(super) fn check(file: &File, findings: &mut Findings) {
    let submission = &file.submission;
    let places = [submission.sign.as_ref().map(|at| at.place), submission.unsignable.as_ref().map(|at| at.place)];
    for place in places.into_iter().flatten().filter(|_| file.dkim.is_empty()) {
        findings.warn(place, "there is no key, and nothing is signed; write [[dkim]], or take it out");
    }
    let signs_trusted = submission.sign.as_ref().is_some_and(|sign| sign.value == SignFor::Trusted);
    let of_trusted = signs_trusted && file.relay_from.as_ref().is_some_and(|list| !list.value.is_empty());
    if let Some(domain) = file.dkim.first().and_then(|key| key.domain.as_ref())
        && !takes_submissions(file)
        && !of_trusted
    {
        let text = "no client can log in, and of mail only the relay's own reports are signed";
        let remedy = "add a [[listener]] with role = \"submission\", or say sign = \"trusted\" in [submission] for \
                      clients in relay_from";
        findings.warn(domain.place, format_args!("{text}; {remedy}"));
    }
}
