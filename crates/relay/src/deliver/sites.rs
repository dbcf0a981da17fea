//! The sites that have work, or had some lately.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use posthaste_queue::RoutingKey;

use super::site::{Leads, Site};
use crate::{HostGroup, NextHop, Route, SiteState, WeightedHost, rule::key_parts};

/// The number of sites above which sites without work are forgotten.
const SITES: usize = 1_024;
/// The most sites of each kind. Each may have a waiting task, of about two kilobytes. Deliveries of
/// further sites stay in the queue until a worker leaves.
pub(super) const SITES_AT_MOST: usize = 8_192;

/// The sites of the deliveries that run, for those who ask.
#[derive(Debug, Default)]
pub(crate) struct KnownSites(Mutex<Arc<Mutex<Sites>>>);

impl KnownSites {
    /// Begins without a site.
    pub(super) fn begin(&self) -> Arc<Mutex<Sites>> {
        let sites = Arc::default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&sites);
        sites
    }

    /// The options have changed. Sites of routes for which `stays` is `false` are forgotten.
    pub(crate) fn renew(&self, limit: usize, stays: impl Fn(&Route) -> bool) {
        let sites = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        sites.lock().unwrap_or_else(PoisonError::into_inner).renew(limit, stays);
    }

    pub(crate) fn states(&self) -> Vec<SiteState> {
        let sites = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let sites: Vec<_> = sites.lock().unwrap_or_else(PoisonError::into_inner).all().collect();
        sites.iter().map(|site| site.what_is_known()).collect()
    }
}

/// All sites.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    /// By domain and label: sites whose hosts DNS names, and mail without a route.
    by_domain: Kept<RoutingKey>,
    /// By route: sites whose hosts the route names.
    by_route: Kept<Arc<Route>>,
    /// Sites of routes that are gone, whose connections are still to be closed.
    gone: Vec<Arc<Site>>,
}

impl Sites {
    /// The site of a key. `None`: there is no room for another site.
    pub(super) fn of(
        &mut self,
        key: &RoutingKey,
        leads: Leads,
        make: impl Fn(String, Leads) -> Site,
    ) -> Option<Arc<Site>> {
        match &leads {
            Ok(route) if route.to != NextHop::Mx => {
                self.by_route.of(route, |_| true, || make(name(route), leads.clone()))
            }
            _ => {
                let is_same = |site: &Site| *site.leads() == leads;
                self.by_domain.of(key, is_same, || make(key_parts(key).0.to_owned(), leads.clone()))
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Site>> {
        self.by_domain.sites.values().chain(self.by_route.sites.values()).cloned()
    }

    /// Each site asks anew. Those of routes that are gone end with their running deliveries.
    fn renew(&mut self, limit: usize, stays: impl Fn(&Route) -> bool) {
        self.all().for_each(|site| site.renew(limit));
        let stays = |site: &Site| site.leads().as_ref().is_ok_and(|route| stays(route));
        self.gone.extend(self.by_domain.part_with(&stays));
        self.gone.extend(self.by_route.part_with(&stays));
    }

    /// The sites whose connections are to be closed, once.
    pub(super) fn gone(&mut self) -> Vec<Arc<Site>> {
        std::mem::take(&mut self.gone)
    }

    /// Forgets sites without work.
    pub(super) fn forget(&mut self) {
        self.by_domain.forget();
        self.by_route.forget();
    }
}

/// A name for the log.
fn name(route: &Route) -> String {
    match &route.to {
        NextHop::Hosts(groups) => {
            let first = groups.iter().find_map(|HostGroup(hosts)| hosts.first());
            first.map_or_else(String::new, |WeightedHost { name, port, .. }| format!("{name}:{port}"))
        }
        NextHop::Discard => "discard".to_owned(),
        NextHop::Mx | NextHop::Refuse(_) | NextHop::Hold => String::new(),
    }
}

/// Sites, of which those without work are forgotten when there are many.
#[derive(Debug)]
struct Kept<K> {
    sites: HashMap<K, Arc<Site>>,
    /// The number of sites above which the next ones are forgotten.
    forget_at: usize,
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { sites: HashMap::new(), forget_at: 0 }
    }
}

impl<K: Hash + Eq + Clone> Kept<K> {
    /// The site of a key, if it is the right one, or a new one. A site that is replaced still makes
    /// the deliveries that it knows of.
    fn of(&mut self, key: &K, is_right: impl Fn(&Site) -> bool, make: impl FnOnce() -> Site) -> Option<Arc<Site>> {
        match self.sites.get(key) {
            Some(site) if is_right(site) => return Some(Arc::clone(site)),
            None if self.sites.len() >= SITES_AT_MOST => return None,
            _ => {}
        }
        let site = Arc::new(make());
        if let Some(replaced) = self.sites.insert(key.clone(), Arc::clone(&site)) {
            tokio::spawn(async move { replaced.shelf.close().await });
        }
        Some(site)
    }

    /// Forgets the sites that do not stay, and returns them.
    fn part_with(&mut self, stays: &impl Fn(&Site) -> bool) -> impl Iterator<Item = Arc<Site>> {
        self.sites.extract_if(|_, site| !stays(site)).map(|(_, site)| site)
    }

    /// The number of those left sets when to look next, so that each look costs little.
    fn forget(&mut self) {
        if self.sites.len() > self.forget_at.max(SITES) {
            self.sites.retain(|_, site| !site.is_forgettable(false));
            if self.sites.len() >= SITES_AT_MOST {
                self.sites.retain(|_, site| !site.is_forgettable(true));
            }
            self.forget_at = self.sites.len().saturating_mul(2).min(SITES_AT_MOST - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthaste_client::{
        Health,
        delivery::{Budget, Shelf},
    };

    use super::*;
    use crate::{Diagnostic, deliver::site::Unreachable};

    fn key(name: &str) -> RoutingKey {
        RoutingKey::new(name).unwrap()
    }

    fn make(name: String, leads: Leads) -> Site {
        Site::new(name, leads, 1, Shelf::new(Duration::ZERO, Budget::new(0)), Health::default())
    }

    fn to_hosts() -> Leads {
        Ok(Arc::new(Route::hosts([("hop.test", 25)])))
    }

    fn by_mx() -> Leads {
        Ok(Arc::new(Route::new(NextHop::Mx)))
    }

    fn nowhere(text: &str, is_permanent: bool) -> Leads {
        Err(Unreachable { diagnostic: Diagnostic::own(None, text), is_permanent })
    }

    #[test]
    fn equal_routes_to_hosts_share_a_site_and_each_domain_by_mx_has_its_own() {
        let mut sites = Sites::default();
        let mut of = |name: &str, leads: Leads| sites.of(&key(name), leads, make).unwrap();
        assert!(Arc::ptr_eq(&of("a.test", to_hosts()), &of("b.test", to_hosts())));
        let mut other = Route::hosts([("hop.test", 25)]);
        other.chunking = false;
        assert!(!Arc::ptr_eq(&of("a.test", to_hosts()), &of("a.test", Ok(Arc::new(other)))));
        assert!(!Arc::ptr_eq(&of("a.test", by_mx()), &of("b.test", by_mx())));
        assert!(Arc::ptr_eq(&of("a.test", by_mx()), &of("a.test", by_mx())));
    }

    #[tokio::test]
    async fn a_domain_whose_route_changes_has_another_site() {
        let mut sites = Sites::default();
        let mut of = |leads: Leads| sites.of(&key("a.test"), leads, make).unwrap();
        let answers = [by_mx(), nowhere("no answer", false), nowhere("no route", true), to_hosts()];
        for (earlier, later) in answers.iter().zip(&answers[1..]) {
            let before = of(earlier.clone());
            let after = of(later.clone());
            assert!(!Arc::ptr_eq(&before, &after) && *after.leads() == *later, "{earlier:?} {later:?}");
            assert!(Arc::ptr_eq(&after, &of(later.clone())));
        }
    }

    #[test]
    fn there_is_room_for_so_many_sites_and_those_without_work_make_room() {
        let mut sites = Sites::default();
        for leads in [by_mx as fn() -> Leads, || Ok(Arc::new(Route::hosts([(fastrand::u64(..).to_string(), 25)])))] {
            for index in 0..SITES_AT_MOST {
                assert!(sites.of(&key(&format!("d{index}.test")), leads(), make).is_some());
            }
            assert!(sites.of(&key("other.test"), leads(), make).is_none());
            sites.forget();
            assert!(sites.of(&key("other.test"), leads(), make).is_some());
        }
    }

    /// Otherwise mail for other domains would wait until the dead ones are tried again.
    #[test]
    fn sites_that_are_down_make_room_for_others() {
        let mut sites = Sites::default();
        for index in 0..SITES_AT_MOST {
            let site = sites.of(&key(&format!("d{index}.test")), by_mx(), make).unwrap();
            let why = Unreachable { diagnostic: Diagnostic::own(None, "dead"), is_permanent: false };
            site.mark_down(why, Duration::from_secs(60));
        }
        assert!(sites.of(&key("live.test"), by_mx(), make).is_none());
        sites.forget();
        assert!(sites.of(&key("live.test"), by_mx(), make).is_some());
    }
}
