//! The sources that rest: blocked by a site, or without an address that this machine has.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Diagnostic, RestingSource, Source};

/// How long a source rests at a site that has blocked it.
pub(super) const BLOCKED_FOR: Duration = Duration::from_secs(3_600);
/// How long a source is left aside whose address this machine does not have.
const UNBINDABLE_FOR: Duration = Duration::from_secs(60);
/// The most rests. Beyond it a source that a site blocks is asked again with the next mail.
const RESTS: usize = 8_192;

/// A source that rests.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Who {
    name: String,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

/// A source, and the site at which it rests. `None`: everywhere.
type Where = (Who, Option<String>);

/// The sources that rest: until when, and why.
#[derive(Debug, Default)]
pub(super) struct Rests(Mutex<HashMap<Where, (Instant, Diagnostic)>>);

impl Rests {
    /// A site has blocked a source. Returns `true` if it rests there now.
    pub(super) fn blocked(&self, source: &Source, site: &str, why: Diagnostic) -> bool {
        self.note(source, Some(site), BLOCKED_FOR, why)
    }

    /// This machine does not have an address of a source. Returns `true` if it rests now.
    pub(super) fn unbindable(&self, source: &Source, why: Diagnostic) -> bool {
        self.note(source, None, UNBINDABLE_FOR, why)
    }

    /// Sources whose address this machine did not have are looked at again.
    pub(super) fn look_again(&self) {
        self.rests().retain(|(_, site), _| site.is_some());
    }

    /// Why a source is passed over. `None`: it does not rest.
    pub(super) fn why(&self, source: &Source, site: &str) -> Option<Diagnostic> {
        let rests = self.rests();
        if rests.is_empty() {
            return None;
        }
        let now = Instant::now();
        let of = |site: Option<String>| {
            let (until, why) = rests.get(&(who(source), site))?;
            (*until > now).then(|| why.clone())
        };
        of(None).or_else(|| of(Some(site.to_owned())))
    }

    pub(super) fn states(&self) -> Vec<RestingSource> {
        let now = Instant::now();
        let rests = self.rests();
        let current = rests.iter().filter(|(_, (until, _))| *until > now);
        let state = |((who, site), (until, why)): (&Where, &(Instant, Diagnostic))| {
            let (source, site) = (who.name.clone(), site.clone());
            RestingSource { source, site, left: until.saturating_duration_since(now), why: why.clone() }
        };
        current.map(state).collect()
    }

    fn note(&self, source: &Source, site: Option<&str>, time: Duration, why: Diagnostic) -> bool {
        let now = Instant::now();
        let mut rests = self.rests();
        if rests.len() >= RESTS {
            rests.retain(|_, (until, _)| *until > now);
        }
        let has_room = rests.len() < RESTS;
        if has_room {
            rests.insert((who(source), site.map(str::to_owned)), (now + time, why));
        }
        has_room
    }

    fn rests(&self) -> MutexGuard<'_, HashMap<Where, (Instant, Diagnostic)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn who(source: &Source) -> Who {
    Who { name: source.name.clone(), v4: source.v4, v6: source.v6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> Diagnostic {
        Diagnostic::own(None, "blocked")
    }

    #[tokio::test(start_paused = true)]
    async fn the_rests_are_bounded() {
        let rests = Rests::default();
        for index in 0..RESTS {
            assert!(rests.blocked(&Source::new("a"), &index.to_string(), why()));
        }
        assert!(!rests.blocked(&Source::new("a"), "more", why()));
        tokio::time::advance(BLOCKED_FOR).await;
        assert!(rests.blocked(&Source::new("a"), "more", why()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_source_rests_at_that_site_for_an_hour() {
        let rests = Rests::default();
        assert!(rests.blocked(&Source::new("a"), "one", why()));
        let rest = |source: &str, site: &str| rests.why(&Source::new(source), site).is_some();
        assert!(rest("a", "one") && !rest("a", "other") && !rest("b", "one"));
        let [state] = &rests.states()[..] else { panic!() };
        assert_eq!((&*state.source, state.site.as_deref(), state.left), ("a", Some("one"), BLOCKED_FOR));
        rests.look_again();
        assert!(rest("a", "one"), "new options do not end it");
        tokio::time::advance(BLOCKED_FOR).await;
        assert!(!rest("a", "one") && rests.states().is_empty());
    }

    #[test]
    fn a_source_with_another_address_does_not_rest() {
        let rests = Rests::default();
        let mut source = Source::new("a");
        source.v4 = Some([127, 0, 0, 2].into());
        assert!(rests.blocked(&source, "site", why()) && rests.unbindable(&source, why()));
        source.v4 = Some([127, 0, 0, 3].into());
        assert!(rests.why(&source, "site").is_none());
    }
}
