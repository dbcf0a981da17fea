//! Rights of users that have no effect, or leave a user without any address.

use posthaste::server::wire::Mailbox;

use super::takes_submissions;
use crate::config::{
    file::File,
    findings::{At, Findings},
};

pub(super) fn check(file: &File, findings: &mut Findings) {
    without_clients(file, findings);
    senders(file, findings);
    sizes(file, findings);
    let limits = &file.limits;
    if let Some(excess) = &limits.excess
        && limits.of_senders().into_iter().flatten().next().is_none()
    {
        let text = "no limit of a user or a sender is set, and it has no effect";
        let remedy = "write one, such as user_messages_per_hour = 500, or take it out";
        findings.warn(excess.place, format_args!("{text}; {remedy}"));
    }
}

/// Keys for clients that the file does not let in.
fn without_clients(file: &File, findings: &mut Findings) {
    let submits = takes_submissions(file);
    let trusts = file.relay_from.as_ref().is_some_and(|list| !list.value.is_empty());
    let (limits, submission) = (&file.limits, &file.submission);
    let of_users =
        [limits.user_messages_per_hour.as_ref().map(|at| at.place), submission.senders.as_ref().map(|at| at.place)];
    let of_trusted = [
        limits.sender_messages_per_hour.as_ref().map(|at| at.place),
        limits.sender_recipients_per_hour.as_ref().map(|at| at.place),
        submission.tag_field.as_ref().map(|at| at.place),
    ];
    let remedy = "add a [[listener]] with role = \"submission\"";
    for place in of_users.into_iter().flatten().filter(|_| !submits) {
        findings.warn(place, format_args!("no client can log in, and it has no effect; {remedy}, or take it out"));
    }
    for place in of_trusted.into_iter().flatten().filter(|_| !submits && !trusts) {
        let text = "no client can log in or is in relay_from, and it has no effect";
        findings.warn(place, format_args!("{text}; {remedy}, or take it out"));
    }
}

fn senders(file: &File, findings: &mut Findings) {
    let submission = &file.submission;
    let lists = file.accounts.iter().any(|account| account.rights.senders.is_some());
    if submission.allows_any_sender() {
        if let Some(suffices) = submission.sender_suffices.as_ref().filter(|flag| flag.value && !lists) {
            let text = "users may send from any address, and it has no effect";
            findings.warn(suffices.place, format_args!("{text}; say senders = \"own\", or take it out"));
        }
        return;
    }
    for account in &file.accounts {
        let (Some(name), None) = (&account.name, &account.rights.senders) else { continue };
        if name.value.parse::<Mailbox>().is_err() {
            let text = format!("`{}` is no address, and this user may send from none", name.value);
            findings.warn(name.place, format_args!("{text}; add senders = [\"jo@example.org\"] to it"));
        }
    }
}

/// Sizes above that of the listeners.
fn sizes(file: &File, findings: &mut Findings) {
    let Some(all) = &file.limits.message_size else { return };
    let of_users = file.accounts.iter().filter_map(|account| account.rights.message_size.as_ref());
    let is_larger = |size: &&At<u64>| size.value > all.value;
    for size in of_users.chain(&file.limits.stranger_message_size).filter(is_larger) {
        let text = format!("no message has more than limits.message_size, {} octets", all.value);
        findings.warn(size.place, format_args!("{text}; raise that, or write a smaller number here"));
    }
}
