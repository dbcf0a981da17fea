//! Messages and findings as lines, for people and for programs.

use std::time::Duration;

use posthaste_queue::log::inspect::{Finding, Place};
use posthaste_queue::{DeliverySummary, Summary};
use serde_json::{Value, json};

pub(crate) const HEADING: &str = "ID                AGE     SIZE  OWNER         HELD  DELIVERIES";

pub(crate) fn line(message: &Summary, key: Option<&str>) -> String {
    let owner = if message.owner.as_str().is_empty() { "-".to_owned() } else { plain(message.owner.as_str()) };
    let held = if message.held { "held" } else { "" };
    let wanted = |each: &&DeliverySummary| key.is_none_or(|key| each.key.as_str() == key);
    let mut deliveries: Vec<_> = message.deliveries.iter().filter(wanted).take(SHOWN).map(delivery).collect();
    let more = message.deliveries.len().saturating_sub(deliveries.len());
    if more > 0 {
        deliveries.push(format!("{more} more"));
    }
    let (age, size) = (time(message.age), octets(message.body_len));
    format!("{}  {age:>6}  {size:>7}  {owner:<12}  {held:<4}  {}", message.id, deliveries.join(", "))
}

fn delivery(each: &DeliverySummary) -> String {
    let due = if each.due_in.is_zero() { "due".to_owned() } else { format!("due in {}", time(each.due_in)) };
    let tried = if each.attempts == 0 { String::new() } else { format!("tried {}x, ", each.attempts) };
    format!("{} ({tried}{due})", plain(each.key.as_str()))
}

/// All of a message, a line for each item.
pub(crate) fn whole(message: &Summary, place: &Place) -> String {
    let held = if message.held { "yes: it is not delivered until it is released" } else { "no" };
    let mut text = format!(
        "message   {}\nowner     {}\npriority  {}\nage       {}\nheld      {held}\nsize      {} bytes, CRC-32 {:08x}\n",
        message.id,
        plain(message.owner.as_str()),
        message.priority.0,
        time(message.age),
        message.body_len,
        place.crc,
    );
    text += &format!("record    in {}\nbody      {} at {}\n", place.segment.display(), place.body.display(), place.at);
    text += &format!("envelope  {}\n", message.envelope.escape_ascii());
    for each in &message.deliveries {
        text += &format!("delivery  {}: {}\n    state {}\n", each.delivery, delivery(each), each.state.escape_ascii());
    }
    text
}

pub(crate) fn json(message: &Summary) -> Value {
    let deliveries = message.deliveries.iter().map(|each| {
        json!({
            "delivery": each.delivery,
            "key": each.key.as_str(),
            "attempts": each.attempts,
            "due_in_seconds": each.due_in.as_secs(),
        })
    });
    json!({
        "id": message.id.to_string(),
        "age_seconds": message.age.as_secs(),
        "size": message.body_len,
        "owner": message.owner.as_str(),
        "priority": message.priority.0,
        "held": message.held,
        "deliveries": deliveries.collect::<Vec<_>>(),
    })
}

pub(crate) fn whole_json(message: &Summary, place: &Place) -> Value {
    let mut whole = json(message);
    whole["envelope"] = message.envelope.escape_ascii().to_string().into();
    for (at, each) in message.deliveries.iter().enumerate() {
        whole["deliveries"][at]["state"] = each.state.escape_ascii().to_string().into();
    }
    whole["segment"] = place.segment.display().to_string().into();
    whole["body"] = json!({ "file": place.body.display().to_string(), "at": place.at, "crc32": place.crc });
    whole
}

pub(crate) fn finding(finding: &Finding, how: &str) -> String {
    let name = if finding.is_settled { "settled" } else { finding.trouble.name() };
    let remedy =
        if finding.is_settled { String::new() } else { format!("\n          {how}: {}", finding.trouble.remedy()) };
    format!("{name:<9} {finding}{remedy}")
}

pub(crate) fn finding_json(finding: &Finding) -> Value {
    json!({
        "trouble": finding.trouble.name(),
        "file": finding.path.display().to_string(),
        "from": finding.place.as_ref().map(|place| place.start),
        "to": finding.place.as_ref().map(|place| place.end),
        "message": finding.message.map(|id| id.to_string()),
        "what": finding.what,
        "remedy": finding.trouble.remedy(),
        "settled": finding.is_settled,
    })
}

/// The two largest units that are not zero.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

pub(crate) fn octets(octets: u64) -> String {
    let units = [(30, 'G'), (20, 'M'), (10, 'K')];
    match units.into_iter().find(|(bits, _)| octets >> bits > 0) {
        Some((bits, unit)) => {
            let tenths = (octets >> (bits - 10)).saturating_mul(10) >> 10;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
        None => octets.to_string(),
    }
}

/// Without control characters, which could move a terminal's cursor: strangers choose the names.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

/// Deliveries of a message shown in one line.
const SHOWN: usize = 3;
