//! Which domains are one site, how long an answer counts, and what is kept.

use std::net::IpAddr;

use posthaste_client::{
    Answer as Dns, Health, MxRecord, Published, ResolveError,
    delivery::{Budget, Shelf},
};

use posthaste_queue::{Owner, Priority};

use super::*;
use crate::{DeliveryOptions, Diagnostic, Route, deliver::sites::Sites};

/// MX records and their TTL in seconds, or why there are none.
#[derive(Debug, Clone)]
pub(in crate::deliver) struct Zone(
    pub(in crate::deliver) Result<&'static [(u16, &'static str)], ResolveError>,
    Option<u64>,
);

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Dns<MxRecord>, ResolveError> {
        let record =
            |(preference, host): &(u16, &str)| MxRecord { preference: *preference, exchange: (*host).to_owned() };
        let mut answer: Dns<_> = self.0.clone()?.iter().map(record).collect::<Vec<_>>().into();
        answer.ttl = self.1.map(Duration::from_secs);
        Ok(answer)
    }

    async fn addresses(&self, _: &str) -> Result<Dns<IpAddr>, ResolveError> {
        Ok(Dns::default())
    }
}

async fn answer(domain: &str, zone: &Zone) -> Answer {
    let name = Domain::parse(domain).unwrap();
    let mail = MailHosts::of(zone, &name, "relay.test", &Published::default()).await;
    Ok(Arc::new(Hosts::new(key(domain), mail.map_err(|error| unresolved(&error))?, 25)))
}

/// A domain with these hosts.
pub(in crate::deliver) async fn hosts(domain: &str, records: &'static [(u16, &'static str)]) -> Arc<Hosts> {
    answer(domain, &Zone(Ok(records), None)).await.unwrap()
}

fn key(name: &str) -> RoutingKey {
    RoutingKey::new(name).unwrap()
}

fn class(name: &str, owner: &str) -> DueClass {
    DueClass { key: key(name), priority: Priority::default(), owner: Owner::new(owner).unwrap() }
}

fn site_of(sites: &mut Sites, domain: &str, answer: Answer) -> Arc<Site> {
    let route = Arc::new(Route::new(NextHop::Mx));
    let (leads, hosts) = match answer {
        Ok(hosts) => (Ok(route), Some(hosts)),
        Err(why) => (Err(why), None),
    };
    let make = |name, leads, hosts| {
        let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
        Site::new(name, leads, hosts, &DeliveryOptions::default(), shelf, Health::default())
    };
    sites.of(&key(domain), Offer::Hint, leads, hosts, make).unwrap()
}

type Records = Result<&'static [(u16, &'static str)], ResolveError>;

#[tokio::test]
async fn domains_with_the_same_hosts_are_one_site() {
    const ONE: &[(u16, &str)] = &[(10, "mx1.test"), (20, "mx2.test")];
    const MANY: &[(u16, &str)] = &[
        (1, "a.test"),
        (1, "b.test"),
        (1, "c.test"),
        (1, "d.test"),
        (1, "e.test"),
        (1, "f.test"),
        (1, "g.test"),
        (1, "h.test"),
        (1, "i.test"),
        (1, "j.test"),
        (1, "k.test"),
        (1, "l.test"),
    ];
    let silent = || Err(ResolveError::Temporary("no answer".to_owned()));
    let rows: Vec<(&str, Records, Records, bool)> = vec![
        ("equal", Ok(ONE), Ok(ONE), true),
        ("another order", Ok(ONE), Ok(&[(20, "mx2.test"), (10, "mx1.test")]), true),
        ("another case", Ok(ONE), Ok(&[(10, "MX1.test"), (20, "mx2.TEST")]), true),
        ("other preferences", Ok(ONE), Ok(&[(5, "mx2.test"), (5, "mx1.test")]), true),
        ("a host twice", Ok(ONE), Ok(&[(10, "mx1.test"), (20, "mx2.test"), (30, "mx1.test")]), true),
        ("a record that names no host", Ok(ONE), Ok(&[(5, "a..test"), (10, "mx1.test"), (20, "mx2.test")]), true),
        ("a host less", Ok(ONE), Ok(&[(10, "mx1.test")]), false),
        ("a host more", Ok(ONE), Ok(&[(10, "mx1.test"), (20, "mx2.test"), (30, "mx3.test")]), false),
        ("other hosts", Ok(ONE), Ok(&[(10, "mx3.test"), (20, "mx4.test")]), false),
        ("more hosts than are tried at once", Ok(MANY), Ok(MANY), true),
        // Only what this relay may use counts.
        ("this relay is the second host", Ok(&[(10, "mx1.test"), (20, "relay.test")]), Ok(&[(10, "mx1.test")]), true),
        ("this relay is the first host", Ok(&[(10, "relay.test"), (20, "mx1.test")]), Ok(&[(10, "mx1.test")]), false),
        ("no MX records", Ok(&[]), Ok(&[]), false),
        ("no mail", Ok(&[(0, "")]), Ok(&[(0, "")]), false),
        ("no answer", silent(), silent(), false),
        ("no such domain", Err(ResolveError::NoSuchName), Err(ResolveError::NoSuchName), false),
    ];
    for (row, one, other, is_one) in rows {
        let mut sites = Sites::default();
        let mut of = async |domain, records: &Records| {
            let answer = answer(domain, &Zone(records.clone(), None)).await;
            site_of(&mut sites, domain, answer)
        };
        let (first, second, again) =
            (of("one.test", &one).await, of("other.test", &other).await, of("one.test", &one).await);
        assert_eq!(Arc::ptr_eq(&first, &second), is_one, "{row}");
        assert!(Arc::ptr_eq(&first, &again), "{row}");
    }
    let mut sites = Sites::default();
    let mut literal = async |domain| {
        let answer = answer(domain, &Zone(Ok(&[]), None)).await;
        site_of(&mut sites, domain, answer)
    };
    assert!(!Arc::ptr_eq(&literal("[192.0.2.1]").await, &literal("[192.0.2.2]").await));
}

#[tokio::test]
async fn a_million_domains_of_one_provider_are_one_site() {
    let mut sites = Sites::default();
    let provider = hosts("d.test", &[(10, "mx1.test"), (20, "mx2.test")]).await;
    for _ in 0..1_000 {
        // Each domain has an answer of its own.
        let own = hosts("d.test", &[(10, "mx1.test"), (20, "mx2.test")]).await;
        assert!(!Arc::ptr_eq(&provider, &own));
        site_of(&mut sites, &format!("d{}.test", fastrand::u64(..)), Ok(own));
    }
    assert_eq!(sites.all().count(), 1);
}

/// Two domains of a site may prefer different hosts.
#[tokio::test]
async fn each_domain_has_an_order_of_the_hosts_of_its_own() {
    let one = hosts("one.test", &[(10, "a.test"), (20, "b.test")]).await;
    let other = hosts("other.test", &[(7, "B.test"), (7, "c.test"), (9, "a.test")]).await;
    let target = |host: &str| Target::new(host, "192.0.2.1:25".parse::<std::net::SocketAddr>().unwrap(), 0);
    for (of, order, best) in
        [(&one, ["a.test", "b.test"], [true, false]), (&other, ["b.test", "a.test"], [false, true])]
    {
        let mut targets = vec![target("b.test"), target("a.test")];
        of.rank(&mut targets);
        let names: Vec<_> = targets.iter().map(|target| &*target.host).collect();
        assert_eq!(names, order);
        assert_eq!([of.is_best("A.test"), of.is_best("b.test")], best);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_as_long_as_the_dns_says_within_bounds() {
    const ONE: &[(u16, &str)] = &[(10, "mx1.test")];
    let failure = ResolveError::Temporary("no answer".to_owned());
    for (records, ttl, seconds) in [
        (Ok(ONE), None, 60),
        (Ok(ONE), Some(0), 30),
        (Ok(ONE), Some(31), 31),
        (Ok(ONE), Some(3_599), 3_599),
        (Ok(ONE), Some(604_800), 3_600),
        (Ok(&[][..]), Some(300), 300),
        (Err(failure), None, 7),
        (Ok(&[(0, "")]), Some(300), 7),
    ] {
        let (domains, key, class) = (Domains::default(), key("d.test"), class("d.test", "one"));
        assert!(matches!(domains.look(&class, Offer::Hint), Look::Ask(None)));
        assert!(matches!(domains.look(&class, Offer::Hint), Look::Wait));
        let answer = answer("d.test", &Zone(records, ttl)).await;
        domains.answer(key.clone(), answer.clone(), Duration::from_secs(7));
        tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
        assert!(
            matches!(domains.look(&class, Offer::Hint), Look::Known(_)) && domains.known(&key).is_some(),
            "{ttl:?}"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(domains.known(&key).is_none(), "{ttl:?}");
        let Look::Ask(Some(before)) = domains.look(&class, Offer::Hint) else { panic!("{ttl:?}") };
        assert_eq!(before.is_ok(), answer.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn questions_and_answers_have_bounds_and_the_older_half_is_forgotten() {
    let domains = Domains::default();
    let name = |index: usize| key(&format!("d{index}.test"));
    let class = |index: usize| class(&format!("d{index}.test"), "one");
    let part = WAITING / 4 * 3;
    (0..part).for_each(|index| assert!(matches!(domains.look(&class(index), Offer::Look(1)), Look::Ask(None))));
    assert!(matches!(domains.look(&class(part), Offer::Look(1)), Look::Wait), "the rest is for new mail");
    (part..WAITING).for_each(|index| assert!(matches!(domains.look(&class(index), Offer::Hint), Look::Ask(None))));
    assert!(matches!(domains.look(&class(WAITING), Offer::Hint), Look::Wait));
    let hosts = hosts("d.test", &[(10, "mx1.test")]).await;
    for index in 0..2 * ANSWERS {
        domains.answer(name(index), Ok(Arc::clone(&hosts)), Duration::ZERO);
    }
    assert!(domains.state().asked.is_empty());
    for index in 0..2 * ANSWERS {
        let is_kept = domains.known(&name(index)).is_some();
        assert!(is_kept || index < 2 * ANSWERS - ANSWERS / 2, "{index}");
    }
    let kept = domains.counts()[&hosts.names];
    assert!((ANSWERS / 2..=ANSWERS).contains(&kept), "{kept}");
    // An answer that comes again takes the place of the one before.
    domains.answer(name(2 * ANSWERS - 1), Ok(Arc::clone(&hosts)), Duration::ZERO);
    assert_eq!(domains.counts()[&hosts.names], kept);
}

#[tokio::test(start_paused = true)]
async fn the_hosts_of_answers_have_a_bound_in_octets() {
    let label = "a".repeat(60);
    let name = |index: usize| format!("{label}.{label}.{label}.{index}.test");
    let records: Vec<_> = (0..32).map(|index| (1, &*name(index).leak())).collect();
    let (domains, hosts) = (Domains::default(), hosts("d.test", records.leak()).await);
    for index in 0..5_000 {
        domains.answer(key(&format!("d{index}.test")), Ok(Arc::clone(&hosts)), Duration::ZERO);
        let state = domains.state();
        for answers in [&state.newer, &state.older] {
            assert_eq!(answers.octets, answers.known.len() * hosts.octets());
            assert!(answers.octets <= OCTETS / 2);
        }
    }
    assert!(domains.counts()[&hosts.names] > 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_domain_whose_policy_stops_its_mail_is_down_alone_and_for_its_time() {
    let (domains, records): (_, &[_]) = (Domains::default(), &[(10, "mx1.test")]);
    for name in ["one.test", "other.test"] {
        domains.answer(key(name), Ok(hosts(name, records).await), Duration::ZERO);
    }
    let why = Unreachable { diagnostic: Diagnostic::own(None, "no TLS"), is_permanent: false };
    domains.mark_down(&key("one.test"), why.clone(), Duration::from_secs(5));
    domains.mark_down(&key("unknown.test"), why.clone(), Duration::from_secs(5));
    assert_eq!(domains.down(&key("one.test")), Some(why));
    assert!(domains.known(&key("one.test")).is_some_and(|answer| answer.is_ok()));
    assert_eq!((domains.down(&key("other.test")), domains.down(&key("unknown.test"))), (None, None));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(domains.down(&key("one.test")), None);
}

/// Otherwise each answer would cost a look at all due classes.
#[tokio::test(start_paused = true)]
async fn an_answer_brings_the_classes_that_wait_for_it_and_seldom_a_look() {
    let domains = Domains::default();
    let hosts = hosts("d0.test", &[(10, "mx1.test")]).await;
    let (one, other) = (class("d0.test", "one"), class("d0.test", "other"));
    for (class, asks) in [(&one, true), (&other, false), (&one, false)] {
        assert_eq!(matches!(domains.look(class, Offer::Hint), Look::Ask(_)), asks);
    }
    let answer = |name: &str| domains.answer(key(name), Ok(Arc::clone(&hosts)), Duration::ZERO);
    assert_eq!(answer("d0.test"), (vec![(one, Offer::Hint), (other, Offer::Hint)], false));
    // More classes than are kept: first those of a look, then those with new mail. One is both.
    for (owners, offer) in [(0..=CLASSES, Offer::Look(7)), (CLASSES - 3..=CLASSES + 3, Offer::Hint)] {
        owners.for_each(|owner| drop(domains.look(&class("d1.test", &owner.to_string()), offer)));
    }
    let (classes, has_missed) = answer("d1.test");
    let offers: Vec<_> = classes.iter().map(|(_, offer)| *offer).collect();
    assert_eq!((offers, has_missed), ([vec![Offer::Again; 5], vec![Offer::Hint; 3]].concat(), true));
    // More domains than are asked for.
    let look = |index: usize| drop(domains.look(&class(&format!("d{index}.test"), "one"), Offer::Hint));
    (2..=WAITING + 2).for_each(look);
    let looks: Vec<_> = (2..WAITING + 2).filter(|index| answer(&format!("d{index}.test")).1).collect();
    assert_eq!(looks, [WAITING / 2 + 1]);
}

#[tokio::test(start_paused = true)]
async fn mail_of_all_labels_has_one_answer() {
    let domains = Domains::default();
    let labelled = crate::rule::routing_key("d.test", Some(&"campaigns".parse().unwrap())).unwrap();
    let labelled = DueClass { key: labelled, ..class("d.test", "one") };
    assert!(matches!(domains.look(&labelled, Offer::Hint), Look::Ask(None)));
    assert!(matches!(domains.look(&class("d.test", "one"), Offer::Look(1)), Look::Wait));
    let hosts = hosts("d.test", &[(10, "mx1.test")]).await;
    let (classes, _) = domains.answer(bare(&labelled.key).into_owned(), Ok(hosts), Duration::ZERO);
    assert_eq!(classes, [(labelled.clone(), Offer::Hint), (class("d.test", "one"), Offer::Again)]);
    assert!(
        matches!(domains.look(&labelled, Offer::Hint), Look::Known(Ok(_))) && domains.known(&key("d.test")).is_some()
    );
}
