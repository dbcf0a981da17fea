//! The warm-up of sources: how many messages a new address sends on its first days.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::Source;

const DAY: u64 = 86_400;
/// The most sources whose messages are counted. Beyond it those of past days are forgotten, and a
/// further source sends nothing that day.
const COUNTED: usize = 8_192;

/// How many messages a source may send on its first days. Providers distrust an address that begins
/// with much mail.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use posthaste_relay::{Source, WarmUp};
/// let mut source = Source::new("new");
/// source.warm_up = Some(WarmUp::new(SystemTime::UNIX_EPOCH, [50, 100, 500, 1_000, 5_000]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WarmUp {
    /// When the first day begins. A day has 24 hours. What is sent before counts as of the first
    /// day.
    pub begins: SystemTime,
    /// The most messages of each day. After the last day there is no bound. A message counts once
    /// for each connection over which it is tried, unless no host was ready on that.
    pub days: Vec<u32>,
}

/// The messages of a source on one day of its warm-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCount {
    /// The [name](Source::name) of the source.
    pub source: String,
    /// When its warm-up began.
    pub begins: SystemTime,
    /// The day, from 0 on.
    pub day: u32,
    /// The messages of that day.
    pub messages: u32,
}

impl WarmUp {
    /// Makes a warm-up from the beginning of its first day and the most messages of each day.
    pub fn new(begins: SystemTime, days: impl IntoIterator<Item = u32>) -> Self {
        Self { begins, days: days.into_iter().collect() }
    }

    /// The octets of its days.
    pub(crate) fn octets(&self) -> usize {
        self.days.capacity().saturating_mul(size_of::<u32>())
    }

    /// The day, and the most messages of it. `None`: the warm-up is over.
    fn today(&self, now: SystemTime) -> Option<(u32, u32)> {
        let since = now.duration_since(self.begins).unwrap_or(Duration::ZERO);
        let day = u32::try_from(since.as_secs() / DAY).ok()?;
        let most = self.days.get(usize::try_from(day).ok()?)?;
        Some((day, *most))
    }
}

/// The messages that sources have sent on this day of their warm-up.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<String, Sent>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    begins: SystemTime,
    day: u32,
    messages: u32,
}

impl Ledger {
    /// Returns `true` if the source may send a message, and counts it.
    pub(crate) fn take(&self, source: &Source, now: SystemTime) -> bool {
        let Some((begins, day, most)) = today(source, now) else { return true };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(&source.name) && all.len() >= COUNTED {
            let is_past = |sent: &Sent| {
                now.duration_since(sent.begins).is_ok_and(|since| since.as_secs() / DAY > sent.day.into())
            };
            all.retain(|_, sent| !is_past(sent));
            if all.len() >= COUNTED {
                return false;
            }
        }
        let sent = all.entry(source.name.clone()).or_insert(Sent { begins, day, messages: 0 });
        if (sent.begins, sent.day) != (begins, day) {
            *sent = Sent { begins, day, messages: 0 };
        }
        let may = sent.messages < most;
        sent.messages = sent.messages.saturating_add(may.into());
        may
    }

    /// The message that was counted last did not leave.
    pub(crate) fn give_back(&self, source: &Source) {
        if source.warm_up.is_some()
            && let Some(sent) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&source.name)
        {
            sent.messages = sent.messages.saturating_sub(1);
        }
    }

    /// Why the source may send nothing more today. `None`: it may.
    pub(crate) fn spent(&self, source: &Source, now: SystemTime) -> Option<String> {
        let (begins, day, most) = today(source, now)?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = all.get(&source.name).filter(|sent| (sent.begins, sent.day) == (begins, day));
        let is_spent = sent.map_or(0, |sent| sent.messages) >= most;
        let day = day.saturating_add(1);
        is_spent.then(|| format!("source {} has sent the {most} messages of day {day} of its warm-up", source.name))
    }

    pub(crate) fn counts(&self) -> Vec<SourceCount> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |(source, sent): (&String, &Sent)| {
            let Sent { begins, day, messages } = *sent;
            SourceCount { source: source.clone(), begins, day, messages }
        };
        all.iter().map(count).collect()
    }

    pub(crate) fn restore(&self, counts: impl IntoIterator<Item = SourceCount>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for SourceCount { source, begins, day, messages } in counts.into_iter().take(COUNTED) {
            all.insert(source, Sent { begins, day, messages });
        }
    }
}

/// When the warm-up of a source began, the day, and the most messages of it. `None`: no warm-up.
fn today(source: &Source, now: SystemTime) -> Option<(SystemTime, u32, u32)> {
    let warm_up = source.warm_up.as_ref()?;
    let (day, most) = warm_up.today(now)?;
    Some((warm_up.begins, day, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, begins: SystemTime, days: &[u32]) -> Source {
        let mut source = Source::new(name);
        source.warm_up = Some(WarmUp::new(begins, days.iter().copied()));
        source
    }

    fn sent(ledger: &Ledger, source: &Source, now: SystemTime) -> usize {
        (0..100).take_while(|_| ledger.take(source, now)).count()
    }

    #[test]
    fn each_day_has_its_number_and_after_the_last_there_is_no_bound() {
        let begins = SystemTime::now();
        let (ledger, source) = (Ledger::default(), source("new", begins, &[2, 5, 0, 7]));
        let at = |hours: u64| begins + Duration::from_secs(3_600 * hours);
        for (hours, most) in [(0, 2), (23, 0), (24, 5), (47, 0), (48, 0), (72, 7), (96, 100)] {
            assert_eq!(sent(&ledger, &source, at(hours)), most, "{hours}");
        }
        assert_eq!(sent(&ledger, &source, begins - Duration::from_secs(1)), 2, "before the first day");
    }

    #[test]
    fn a_message_that_did_not_leave_may_be_sent_again() {
        let now = SystemTime::now();
        let (ledger, source) = (Ledger::default(), source("new", now, &[1]));
        assert!(ledger.spent(&source, now).is_none() && ledger.take(&source, now));
        let why = ledger.spent(&source, now).unwrap();
        assert_eq!(why, "source new has sent the 1 messages of day 1 of its warm-up");
        ledger.give_back(&source);
        assert!(ledger.take(&source, now) && !ledger.take(&source, now));
    }

    #[test]
    fn counts_go_on_after_a_restart_and_another_warm_up_begins_anew() {
        let now = SystemTime::now();
        let (ledger, own) = (Ledger::default(), source("new", now, &[3]));
        assert!(ledger.take(&own, now));
        let after = Ledger::default();
        after.restore(ledger.counts());
        assert_eq!(sent(&after, &own, now), 2);
        assert_eq!(sent(&after, &source("new", now - Duration::from_secs(9), &[3]), now), 3);
    }

    #[test]
    fn the_sources_that_are_counted_are_bounded() {
        let now = SystemTime::now();
        let ledger = Ledger::default();
        for number in 0..COUNTED {
            assert!(ledger.take(&source(&number.to_string(), now, &[1]), now));
        }
        let more = source("more", now, &[1, 1]);
        assert!(!ledger.take(&more, now));
        assert!(ledger.take(&more, now + Duration::from_secs(DAY)), "those of yesterday are forgotten");
    }
}
