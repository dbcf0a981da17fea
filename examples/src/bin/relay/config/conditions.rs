//! The conditions of a route beside its domains, and its name. From the file to what the relay
//! takes.

use std::{collections::HashMap, path::Path};

use posthaste::relay::{IpNet, Label, MailboxPattern, MailboxSet, Rule};

use super::{
    file::File,
    findings::{At, Findings, Place},
    next_hop::To,
    route::Route,
    table::{Read, Table},
    values, values_of,
};

/// What is written of a route beside where it leads. `None`: missing or wrong.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Where the route stands.
    place: Place,
    name: Option<At<Label>>,
    has_name: bool,
    /// A key of a condition is there, right or wrong.
    is_written: bool,
    recipients: Option<At<Vec<At<MailboxPattern>>>>,
    senders: Option<At<Vec<At<MailboxPattern>>>>,
    identities: Option<At<Vec<At<String>>>>,
    clients: Option<At<Vec<At<IpNet>>>>,
    tags: Option<At<Vec<At<String>>>>,
}

const KEYS: [&str; 5] = ["recipients", "senders", "identities", "clients", "tags"];

impl Conditions {
    /// Takes the keys of a route, and reads the files that they name in the folder.
    pub(super) fn read(table: &mut Table<'_>, folder: &Path, findings: &mut Findings) -> Self {
        let place = table.place();
        let has_name = table.has("name");
        let is_written = KEYS.iter().any(|key| table.has(key));
        let full = |list: Option<At<Vec<_>>>, findings: &mut Findings| {
            list.filter(|list| {
                if list.value.is_empty() {
                    findings.error(list.place, "the list is empty, and no mail fits; write some, or take it out");
                }
                !list.value.is_empty()
            })
        };
        let recipients = table.list_or_file("recipients", folder, findings, values::mailbox_pattern);
        let recipients = full(recipients, findings);
        let senders = table.list_or_file("senders", folder, findings, values::mailbox_pattern);
        let senders = full(senders, findings);
        Self {
            place,
            name: table.take("name", findings, label),
            has_name,
            is_written,
            recipients,
            senders,
            identities: table.full_list("identities", false, findings, values::account_name),
            clients: table.full_list("clients", false, findings, values::network),
            tags: table.full_list("tags", false, findings, tag),
        }
    }

    /// Returns `true` if more than the domain counts.
    pub(super) const fn is_written(&self) -> bool {
        self.is_written
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.value.as_str())
    }

    /// The rule, still without domains. `None`: the domain alone counts.
    pub(super) fn rule(&self, route: posthaste::relay::Route) -> Option<Rule> {
        let name = self.name.as_ref().filter(|_| self.is_written)?;
        let mut rule = Rule::new(name.value.clone(), route);
        let mailboxes = |list: &At<Vec<At<MailboxPattern>>>| values_of(&list.value).into_iter().collect::<MailboxSet>();
        rule.recipients = self.recipients.as_ref().map(mailboxes);
        rule.senders = self.senders.as_ref().map(mailboxes);
        rule.identities = self.identities.as_ref().map(|list| values_of(&list.value).into_iter().collect());
        rule.clients = self.clients.as_ref().map(|list| values_of(&list.value).into_iter().collect());
        rule.tags = self.tags.as_ref().map(|list| values_of(&list.value).into_iter().collect());
        Some(rule)
    }

    /// What counts, for people: `senders (2)`.
    pub(super) fn described(&self) -> Vec<String> {
        let mut described = Vec::new();
        let mut add = |key: &str, values: Option<Vec<String>>| described.extend(values.map(|all| some_of(key, &all)));
        add("recipients", self.recipients.as_ref().map(mailboxes));
        add("senders", self.senders.as_ref().map(mailboxes));
        add("identities", self.identities.as_ref().map(|list| values_of(&list.value)));
        add("clients", self.clients.as_ref().map(|list| list.value.iter().map(|net| net.value.to_string()).collect()));
        add("tags", self.tags.as_ref().map(|list| values_of(&list.value)));
        described
    }
}

fn mailboxes(list: &At<Vec<At<MailboxPattern>>>) -> Vec<String> {
    let text = |pattern: &At<MailboxPattern>| match &pattern.value {
        MailboxPattern::Mailbox(mailbox) => mailbox.to_string(),
        MailboxPattern::Domain(domain) => domain.to_string(),
    };
    list.value.iter().map(text).collect()
}

/// The first values of a list, for people.
pub(super) fn some_of(key: &str, values: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = values.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match values.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{key} {shown} and {more} more"),
        _ => format!("{key} {shown}"),
    }
}

/// Names that are missing or not the only ones, and conditions that no mail meets.
pub(super) fn check(file: &File, findings: &mut Findings) {
    let mut known: HashMap<&str, Place> = HashMap::new();
    for route in &file.routes {
        let when = &route.when;
        if when.is_written && !when.has_name {
            let text = "it is missing, and mail in the queue could not find this route again";
            let remedy = "write a name of the route's own, such as \"campaigns\"";
            findings.error(Place { key: "name", ..when.place }, format_args!("{text}; {remedy}"));
        }
        if let Some(name) = &when.name {
            if let Some(line) = known.get(name.value.as_str()).map(|place| findings.line(*place)) {
                let text = format!("the route in line {line} is named `{}` already", name.value);
                findings.error(name.place, format_args!("{text}; write another name"));
            } else {
                known.insert(name.value.as_str(), name.place);
            }
        }
        identities(file, when, findings);
        tags(file, when, findings);
        without_effect(route, findings);
    }
}

/// Users that cannot log in.
fn identities(file: &File, when: &Conditions, findings: &mut Findings) {
    if findings.has_error_in(&["account", "name"]) {
        return;
    }
    for identity in when.identities.iter().flat_map(|list| &list.value) {
        let is_it = |name: &At<String>| name.value == identity.value;
        if !file.accounts.iter().filter_map(|account| account.name.as_ref()).any(is_it) {
            let text = format!("no account is named `{}`, and the route has none of its mail", identity.value);
            findings.warn(identity.place, format_args!("{text}; add an [[account]], or take it out"));
        }
    }
}

/// Campaigns that no message can name.
fn tags(file: &File, when: &Conditions, findings: &mut Findings) {
    if let Some(tags) = &when.tags
        && file.submission.tag_field.is_none()
        && !findings.has_error_in(&["submission", "tag_field"])
    {
        let text = "no message can name a campaign, and the route has no mail";
        let remedy = "write the field that names it as `tag_field` in [submission], or take it out";
        findings.warn(tags.place, format_args!("{text}; {remedy}"));
    }
}

/// Keys about hosts, on a route that leads to none. Mailboxes, on a route that is not for all mail
/// of its domains.
fn without_effect(route: &Route, findings: &mut Findings) {
    if let Some(To::Refuse(_) | To::Discard | To::Hold) = route.to.as_ref().map(|to| &to.value) {
        let places = [
            route.tls.as_ref().map(|key| key.place),
            route.authorities.as_ref().map(|key| key.place),
            route.login.as_ref().map(|key| key.place),
            route.chunking.as_ref().map(|key| key.place),
        ];
        for place in places.into_iter().flatten() {
            findings.warn(place, "no host gets mail by this route, and it has no effect; take it out");
        }
    }
    if let Some(mailboxes) = route.mailboxes.as_ref().filter(|_| route.when.is_written) {
        let text = "they are those of domains, and this route has some of their mail alone";
        let remedy = "write them in the route for all other mail of the domains";
        findings.error(mailboxes.place, format_args!("{text}; {remedy}"));
    }
}

fn label(value: &toml::de::DeValue<'_>) -> Read<Label> {
    let text = values::text(value)?;
    text.parse().map_err(|_| format!("`{text}` is no name of 1 to 32 letters, digits, `.`, `-` and `_`"))
}

fn tag(value: &toml::de::DeValue<'_>) -> Read<String> {
    match values::text(value)? {
        "" => Err("it is empty".to_owned()),
        tag => Ok(tag.to_owned()),
    }
}
