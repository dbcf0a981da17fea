//! The sites that have work, or had some lately.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use posthaste_queue::RoutingKey;

use super::{
    domains::{Domains, Hosts},
    due::Offer,
    places::Standing,
    site::{Leads, Site, Worth},
};
use crate::{DeliveryOptions, HostGroup, NextHop, Route, SiteState, WeightedHost, route, rule::key_parts};

/// The number of sites above which sites without work are forgotten.
const SITES: usize = 1_024;
/// The most sites of each kind. Each may have a waiting task, of about two kilobytes. Deliveries of
/// further sites stay in the queue until a worker leaves. The backlog has three quarters of them:
/// see [`Offer::part_of`].
pub(super) const SITES_AT_MOST: usize = 8_192;

/// The sites of the deliveries that run, for those who ask.
#[derive(Debug, Default)]
pub(crate) struct KnownSites(Mutex<(Arc<Mutex<Sites>>, Arc<Domains>)>);

impl KnownSites {
    /// Begins without a site.
    pub(super) fn begin(&self, domains: Arc<Domains>) -> Arc<Mutex<Sites>> {
        let sites = Arc::default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::clone(&sites), domains);
        sites
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<Arc<Site>> {
        let sites = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).0);
        let sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.all().collect()
    }

    /// The options have changed. Sites of routes for which `stays` is `false` are forgotten.
    pub(crate) fn renew(&self, options: &DeliveryOptions, stays: impl Fn(&Route) -> bool) {
        let (sites, domains) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Which policies count, and the port, may be others.
        domains.forget();
        sites.lock().unwrap_or_else(PoisonError::into_inner).renew(options, stays);
    }

    /// An operator wants mail for these keys to be tried now. What could not be reached counts as
    /// unknown again; which site a key has, the loop alone knows.
    pub(crate) fn try_again<'k>(&self, keys: impl Iterator<Item = &'k RoutingKey>) {
        let (sites, domains) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        keys.for_each(|key| domains.mark_up(key));
        let sites: Vec<_> = sites.lock().unwrap_or_else(PoisonError::into_inner).all().collect();
        sites.iter().for_each(|site| site.mark_up());
    }

    pub(crate) fn states(&self) -> Vec<SiteState> {
        let (sites, domains) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sites: Vec<_> = sites.lock().unwrap_or_else(PoisonError::into_inner).all().collect();
        let counts = domains.counts();
        let state = |site: &Arc<Site>| {
            let mut state = site.what_is_known();
            if let Some(hosts) = site.hosts() {
                state.domains = Some(counts.get(&hosts.names).copied().unwrap_or(0));
            }
            state
        };
        sites.iter().map(state).collect()
    }
}

/// All sites.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    /// By domain and label: those without a route or a mail host.
    by_domain: Kept<RoutingKey>,
    /// By route and the names of its mail hosts: sites whose hosts the DNS names.
    by_hosts: Kept<(Arc<Route>, Arc<str>)>,
    /// By route: sites whose hosts the route names.
    by_route: Kept<Arc<Route>>,
    /// Sites of routes that are gone, whose connections are still to be closed.
    gone: Vec<Arc<Site>>,
}

impl Sites {
    /// The site of a key that is offered so. `None`: there is no room for another site.
    pub(super) fn of(
        &mut self,
        key: &RoutingKey,
        offer: Offer,
        leads: Leads,
        hosts: Option<Arc<Hosts>>,
        make: impl Fn(String, Leads, Option<Arc<Hosts>>) -> Site,
    ) -> Option<Arc<Site>> {
        let most = offer.part_of(SITES_AT_MOST);
        match (&leads, &hosts) {
            (Ok(route), Some(own)) => {
                let key = (Arc::clone(route), Arc::clone(&own.names));
                self.by_hosts.of(&key, most, |_| true, || make(own.first().to_owned(), leads.clone(), hosts.clone()))
            }
            (Ok(route), None) => self.by_route.of(route, most, |_| true, || make(name(route), leads.clone(), None)),
            (Err(_), _) => {
                let is_same = |site: &Site| *site.leads() == leads;
                self.by_domain.of(key, most, is_same, || make(key_parts(key).0.to_owned(), leads.clone(), None))
            }
        }
    }

    /// The standing of the site with these hosts. `None`: there is none.
    pub(super) fn standing(&self, route: &Arc<Route>, names: &Arc<str>) -> Option<Standing> {
        let site = self.by_hosts.sites.get(&(Arc::clone(route), Arc::clone(names)));
        site.map(|site| site.standing())
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Site>> {
        self.by_domain.sites.values().chain(self.by_hosts.sites.values()).chain(self.by_route.sites.values()).cloned()
    }

    /// Each site asks again. Those of routes that are gone end with their running deliveries.
    fn renew(&mut self, options: &DeliveryOptions, stays: impl Fn(&Route) -> bool) {
        self.all().for_each(|site| site.renew(options));
        let stays = |site: &Site| site.leads().as_ref().is_ok_and(|route| stays(route));
        self.gone.extend(self.by_domain.part_with(&stays));
        self.gone.extend(self.by_hosts.part_with(&stays));
        self.gone.extend(self.by_route.part_with(&stays));
    }

    /// The sites whose connections are to be closed, once.
    pub(super) fn gone(&mut self) -> Vec<Arc<Site>> {
        std::mem::take(&mut self.gone)
    }

    /// Forgets sites without work.
    pub(super) fn forget(&mut self) {
        self.by_domain.forget();
        self.by_hosts.forget();
        self.by_route.forget();
    }
}

/// A name for the log.
fn name(route: &Route) -> String {
    match &route.to {
        NextHop::Hosts(groups) => {
            let first = groups.iter().find_map(|HostGroup(hosts)| hosts.first());
            first.map_or_else(String::new, |WeightedHost { name, port, .. }| match route::socket(name) {
                Some(_) => name.clone(),
                None => format!("{name}:{port}"),
            })
        }
        NextHop::Agent(agent) => agent.name().to_owned(),
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
    /// The site of a key, if it is the right one, or a new one while there are fewer than `most`. A
    /// site that is replaced still makes the deliveries that it knows of.
    fn of(
        &mut self,
        key: &K,
        most: usize,
        is_right: impl Fn(&Site) -> bool,
        make: impl FnOnce() -> Site,
    ) -> Option<Arc<Site>> {
        match self.sites.get(key) {
            Some(site) if is_right(site) => return Some(Arc::clone(site)),
            None if self.sites.len() >= most => return None,
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
            self.sites.retain(|_, site| site.worth() > Worth::Nothing);
            // The next only if there is no room for the backlog yet. What has work stays.
            let most = Offer::Again.part_of(SITES_AT_MOST);
            for worth in [Worth::Down, Worth::Taught] {
                if self.sites.len() >= most {
                    self.sites.retain(|_, site| site.worth() > worth);
                }
            }
            self.forget_at = self.sites.len().saturating_mul(2).min(most - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthaste_client::{
        Health, Tls,
        delivery::{Budget, Shelf},
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{
        Diagnostic,
        deliver::{domains::tests::hosts, site::Unreachable, throttle::Signal},
    };

    fn key(name: &str) -> RoutingKey {
        RoutingKey::new(name).unwrap()
    }

    fn make(name: String, leads: Leads, hosts: Option<Arc<Hosts>>) -> Site {
        let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
        Site::new(name, leads, hosts, &DeliveryOptions::default(), shelf, Health::default())
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

    /// A domain with a mail host of this name.
    async fn at(host: String) -> Option<Arc<Hosts>> {
        Some(hosts("d.test", vec![(10, &*host.leak())].leak()).await)
    }

    #[tokio::test]
    async fn equal_routes_share_a_site_if_their_hosts_are_equal() {
        let mut sites = Sites::default();
        let (one, other) = (at("one.test".to_owned()).await, at("other.test".to_owned()).await);
        let mut of = |name: &str, leads: Leads, hosts: &Option<Arc<Hosts>>| {
            sites.of(&key(name), Offer::Again, leads, hosts.clone(), make).unwrap()
        };
        assert!(Arc::ptr_eq(&of("a.test", to_hosts(), &None), &of("b.test", to_hosts(), &None)));
        let mut changed = Route::hosts([("hop.test", 25)]);
        changed.chunking = false;
        assert!(!Arc::ptr_eq(&of("a.test", to_hosts(), &None), &of("a.test", Ok(Arc::new(changed)), &None)));
        assert!(Arc::ptr_eq(&of("a.test", by_mx(), &one), &of("b.test", by_mx(), &one)));
        assert!(!Arc::ptr_eq(&of("a.test", by_mx(), &one), &of("a.test", by_mx(), &other)));
        let mut changed = Route::new(NextHop::Mx);
        changed.tls = Tls::opportunistic().unwrap();
        assert!(!Arc::ptr_eq(&of("a.test", by_mx(), &one), &of("a.test", Ok(Arc::new(changed)), &one)));
        assert_eq!(of("a.test", by_mx(), &one).name(), "one.test");
        assert_eq!(of("a.test", to_hosts(), &None).name(), "hop.test:25");
    }

    #[tokio::test]
    async fn a_domain_whose_route_changes_has_another_site() {
        let mut sites = Sites::default();
        let (one, other) = (at("one.test".to_owned()).await, at("other.test".to_owned()).await);
        let mut of = |(leads, hosts): (Leads, Option<Arc<Hosts>>)| {
            sites.of(&key("a.test"), Offer::Again, leads, hosts, make).unwrap()
        };
        let answers = [
            (by_mx(), one),
            (by_mx(), other),
            (nowhere("no answer", false), None),
            (nowhere("no route", true), None),
            (to_hosts(), None),
        ];
        for (earlier, later) in answers.iter().zip(&answers[1..]) {
            let before = of(earlier.clone());
            let after = of(later.clone());
            assert!(!Arc::ptr_eq(&before, &after) && *after.leads() == later.0, "{earlier:?} {later:?}");
            assert!(Arc::ptr_eq(&after, &of(later.clone())));
        }
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_sites_and_those_without_work_make_room() {
        let mut sites = Sites::default();
        for kind in 0..3 {
            let mut of = async |index: usize, offer: Offer| {
                let (leads, hosts) = match kind {
                    0 => (by_mx(), at(format!("mx{index}.test")).await),
                    1 => (nowhere("no answer", false), None),
                    _ => (Ok(Arc::new(Route::hosts([(index.to_string(), 25)]))), None),
                };
                sites.of(&key(&format!("d{index}.test")), offer, leads, hosts, make).is_some()
            };
            // The last quarter is for new mail.
            for index in 0..SITES_AT_MOST {
                let offer = if index % 2 == 0 { Offer::Look(1) } else { Offer::Again };
                assert_eq!(of(index, offer).await, index < SITES_AT_MOST / 4 * 3);
                assert!(of(index, Offer::Hint).await);
                assert!(of(index, offer).await, "it is there");
            }
            assert!(!of(SITES_AT_MOST, Offer::Hint).await);
            sites.forget();
            let hosts = at("other.test".to_owned()).await;
            assert!(sites.of(&key("other.test"), Offer::Look(1), by_mx(), hosts, make).is_some());
        }
    }

    /// Otherwise mail for other domains would wait until the dead ones are tried again. What a live
    /// site has taught stays as long as there is room without it.
    #[tokio::test]
    async fn sites_that_are_down_make_room_for_others_before_those_that_answer() {
        let mut sites = Sites::default();
        let live = sites.of(&key("live.test"), Offer::Again, by_mx(), at("live.test".to_owned()).await, make).unwrap();
        live.end(Signal::Took, Instant::now(), true);
        for index in 1..Offer::Again.part_of(SITES_AT_MOST) {
            let hosts = at(format!("mx{index}.test")).await;
            let site = sites.of(&key(&format!("d{index}.test")), Offer::Again, by_mx(), hosts, make).unwrap();
            let why = Unreachable { diagnostic: Diagnostic::own(None, "dead"), is_permanent: false };
            site.mark_down(why, Duration::from_secs(60));
        }
        let new = at("new.test".to_owned()).await;
        assert!(sites.of(&key("new.test"), Offer::Again, by_mx(), new.clone(), make).is_none());
        sites.forget();
        assert!(sites.of(&key("new.test"), Offer::Again, by_mx(), new, make).is_some());
        let again = sites.of(&key("live.test"), Offer::Again, by_mx(), at("live.test".to_owned()).await, make).unwrap();
        assert!(Arc::ptr_eq(&live, &again));
    }
}
