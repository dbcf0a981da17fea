//! The part of a report for people.

use super::{About, Action, Entry, Shape, address, date_of, mime::folded};
use crate::{event::shortened, record::Outside};

/// The most recipients that are named here for each action. The fields name them all.
const MAX_NAMED: usize = 100;
/// The same in a short report.
const FEW_NAMED: usize = 1;

pub(super) fn write(about: &About<'_>, entries: &[Entry], shape: Shape) -> Vec<u8> {
    let most = if shape.is_bare() { FEW_NAMED } else { MAX_NAMED };
    let mut out = format!("This is {}.\r\n", about.own_name);
    for action in [Action::Failed, Action::Delayed, Action::Relayed, Action::Delivered] {
        let of_this: Vec<_> = entries.iter().filter(|entry| entry.action == action).collect();
        if of_this.is_empty() {
            continue;
        }
        out.push_str(match action {
            Action::Failed => "\r\nYour message could not be delivered to:\r\n\r\n",
            Action::Delayed => "\r\nYour message has not been delivered yet to:\r\n\r\n",
            Action::Relayed => "\r\nYour message was handed on for:\r\n\r\n",
            Action::Delivered => "\r\nYour message was delivered to:\r\n\r\n",
        });
        for entry in of_this.iter().take(most) {
            line(&mut out, &format!("  {}", address(&entry.rcpt, about.own_name)));
            let diagnostic = &entry.diagnostic;
            let words = shortened(&diagnostic.text, shape.words);
            match (diagnostic.remote_host(), diagnostic.is_reply) {
                _ if shape.is_bare() => {}
                (Some(remote), true) => line(&mut out, &format!("    {remote} said: {words}")),
                _ => line(&mut out, &format!("    {words}")),
            }
        }
        if let Some(more @ 1..) = of_this.len().checked_sub(most) {
            let where_to = if shape.recipients < entries.len() { "" } else { ", named in the next part" };
            line(&mut out, &format!("  and {more} more{where_to}"));
        }
        out.push_str(&ending(action, about.outside, about.will_retry_until));
    }
    out.push_str(match shape.recipients < entries.len() {
        true => "\r\nThis report is shortened: not all of them are named.\r\n",
        false => "\r\nRecipients that are not listed are not affected.\r\n",
    });
    out.into_bytes()
}

fn ending(action: Action, of: &Outside, until: i64) -> String {
    match action {
        Action::Failed => "\r\nIt was not delivered to them and will not be tried again.\r\n".to_owned(),
        Action::Delayed => {
            let until = date_of(until).map(|date| format!(" until {date}")).unwrap_or_default();
            format!("\r\nIt is tried again{until}. There is no need to send it once more.\r\n")
        }
        Action::Relayed if of.mail.by.is_some_and(|by| by.trace) => {
            "\r\nThe hosts that took it may tell you more.\r\n".to_owned()
        }
        Action::Delivered => String::new(),
        Action::Relayed => "\r\nThe hosts that took it may not tell you whether it was delivered.\r\n".to_owned(),
    }
}

/// Writes a line, folded if it is long, with a question mark for every control character.
fn line(out: &mut String, text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    out.push_str(&folded(&text, "    "));
    out.push_str("\r\n");
}
