//! What becomes of mail that is submitted, and what clients may submit.

use posthaste::relay::{AddFields, MailboxPattern, RelayOptions, SenderRule, SignFor, TagField, Unsignable};

use super::{
    file::File,
    findings::{At, Findings},
    table::Table,
    values,
};

#[derive(Debug, Default)]
pub(super) struct Submission {
    pub(super) add_fields: Option<At<AddFields>>,
    pub(super) sign: Option<At<SignFor>>,
    pub(super) unsignable: Option<At<Unsignable>>,
    pub(super) senders: Option<At<SenderRule>>,
    pub(super) sender_suffices: Option<At<bool>>,
    pub(super) tag_field: Option<At<TagField>>,
}

/// The rights of one account.
#[derive(Debug, Default)]
pub(super) struct Rights {
    pub(super) senders: Option<At<Vec<At<MailboxPattern>>>>,
    pub(super) message_size: Option<At<u64>>,
}

impl Submission {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            add_fields: table.take("add_fields", findings, values::add_fields),
            sign: table.take("sign", findings, values::sign),
            unsignable: table.take("unsignable", findings, values::unsignable),
            senders: table.take("senders", findings, values::sender_rule),
            sender_suffices: table.take("sender_suffices", findings, values::flag),
            tag_field: table.take("tag_field", findings, values::tag_field),
        };
        table.end(findings);
        read
    }

    /// Returns `true` if users without a list may send from any address.
    pub(super) fn allows_any_sender(&self) -> bool {
        self.senders.as_ref().is_none_or(|rule| rule.value == SenderRule::Any)
    }
}

/// Puts what was checked into the options.
pub(super) fn apply(file: &File, relay: &mut RelayOptions) {
    let written = &file.submission;
    let value = |at: &Option<At<bool>>| at.as_ref().is_some_and(|at| at.value);
    relay.add_fields = written.add_fields.as_ref().map(|at| at.value).unwrap_or_default();
    let options = &mut relay.submission;
    options.senders.others = written.senders.as_ref().map(|at| at.value).unwrap_or_default();
    options.sender_suffices = value(&written.sender_suffices);
    options.tag_field = written.tag_field.as_ref().map(|at| at.value.clone());
    for account in &file.accounts {
        let Some(name) = &account.name else { continue };
        if let Some(list) = &account.rights.senders {
            let addresses = list.value.iter().map(|pattern| pattern.value.clone());
            options.senders.push(&name.value, addresses.collect());
        }
        if let Some(size) = &account.rights.message_size {
            relay.policy.user_sizes.insert(name.value.clone(), size.value);
        }
    }
    relay.policy.stranger_size = file.limits.stranger_message_size.as_ref().map(|size| size.value);
}
