//! The part of a report for people.

use super::{About, Action, Entry, Shape, address, date_of, is_plain, mime::folded, template::Values};
use crate::event::shortened;

/// The most recipients that are named here for each action. The fields name them all.
const MAX_NAMED: usize = 100;
/// The same in a short report.
const FEW_NAMED: usize = 1;

pub(super) fn write(about: &About<'_>, entries: &[Entry], shape: Shape) -> Vec<u8> {
    let most = if shape.is_bare() { FEW_NAMED } else { MAX_NAMED };
    let until = date_of(about.will_retry_until).unwrap_or_else(|| "a later time".to_owned());
    let values = Values { until: &until, ..Values::new(about.own_name, &about.message) };
    let mut parts = vec![about.words.opening(&values)];
    for action in [Action::Failed, Action::Delayed, Action::Relayed, Action::Delivered] {
        let of_this: Vec<_> = entries.iter().filter(|entry| entry.action == action).collect();
        if of_this.is_empty() {
            continue;
        }
        let mut named = String::new();
        for entry in of_this.iter().take(most) {
            line(&mut named, &format!("  {}", address(&entry.rcpt, about.own_name)));
            let diagnostic = &entry.diagnostic;
            let words = shortened(&diagnostic.text, shape.words);
            match (diagnostic.remote_host(), diagnostic.is_reply) {
                _ if shape.is_bare() => {}
                (Some(remote), true) => {
                    let said = about.words.said(&Values { remote, words: &words, ..values });
                    line(&mut named, &format!("    {said}"));
                }
                _ => line(&mut named, &format!("    {words}")),
            }
        }
        if let Some(count @ 1..) = of_this.len().checked_sub(most) {
            line(&mut named, &format!("  {}", about.words.more(&Values { count, ..values })));
        }
        let recipients = named.strip_suffix("\r\n").unwrap_or(&named);
        let is_traced = about.outside.mail.by.is_some_and(|by| by.trace);
        parts.push(about.words.section(action, is_traced, &Values { recipients, ..values }));
    }
    parts.push(about.words.closing(shape.recipients < entries.len(), &values));
    parts.retain(|part| !part.is_empty());
    parts.join("\r\n").into_bytes()
}

/// Writes a line, folded if it is long, with a question mark for every character that is not plain.
fn line(out: &mut String, text: &str) {
    let text: String = text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
    out.push_str(&folded(&text, "    "));
    out.push_str("\r\n");
}
