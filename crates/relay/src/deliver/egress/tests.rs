//! Which source is drawn, and how long mail waits for one.

use posthaste_client::Server;

use super::*;
use crate::{Rate, WarmUp};

const SECOND: Duration = Duration::from_secs(1);

fn rate(count: u32, seconds: u32) -> Option<Rate> {
    Rate::new(count, SECOND * seconds)
}

fn source(name: &str, messages: Option<Rate>) -> Source {
    Source { messages, ..Source::new(name) }
}

fn site<'t>(site: &'t str, limits: &'t SourceLimits) -> To<'t> {
    To { site, limits, targets: &[] }
}

/// The names of the sources that are drawn, and for how many seconds the next message waits.
fn drawn(egress: &Arc<Egress>, pool: &SourcePool, to: &To<'_>) -> (String, Vec<Arc<Seat>>, Result<u64, String>) {
    let (mut random, mut names, mut seats) = (Rng::with_seed(7), String::new(), Vec::new());
    loop {
        match egress.draw(pool, to, &mut random) {
            Ok(seat) => {
                names.push_str(&seat.source.name);
                seats.push(seat);
            }
            Err(NoSource::Full(until)) => {
                let now = Instant::now();
                assert_eq!(egress.waits_until(pool, to, now), Some(until), "a worker waits as long before it claims");
                return (names, seats, Ok((until - now).as_secs()));
            }
            Err(NoSource::PassedOver(why)) => {
                assert_eq!(egress.waits_until(pool, to, Instant::now()), None, "mail is tried again later");
                return (names, seats, Err(why.to_string()));
            }
        }
    }
}

/// The limits of each source, over all sites and at this one; what is drawn at once, and after
/// which time more.
#[tokio::test(start_paused = true)]
async fn a_source_without_room_is_passed_over_until_all_are() {
    let spent = Some(WarmUp::new(SystemTime::now(), [0]));
    for (own, connections, here, wanted, wait) in [
        // Over all sites, a source at a time.
        ([rate(3, 30), rate(2, 10)], None, None, "aaabb", 5),
        ([rate(1, 3_600), rate(1, 10)], None, None, "ab", 10),
        // At most a minute: a source that is passed over may be back by then.
        ([rate(1, 3_600), rate(1, 7_200)], None, None, "ab", 60),
        // At the site, the same for each.
        ([None, None], None, rate(2, 60), "aabb", 30),
        ([None, None], Some(2), None, "aabb", 1),
        ([None, None], Some(0), None, "ab", 1),
        // The tightest counts.
        ([rate(1, 20), None], Some(3), rate(2, 60), "abb", 20),
        ([rate(9, 20), None], Some(1), rate(5, 60), "ab", 1),
    ] {
        let limits = SourceLimits { connections, messages: here };
        let pool = SourcePool::new([(source("a", own[0]), 1), (source("b", own[1]), 0)]);
        let egress = Arc::new(Egress::default());
        let (names, seats, next) = drawn(&egress, &pool, &site("site", &limits));
        assert_eq!((&*names, next), (wanted, Ok(wait)), "{own:?} {limits:?}");
        let states = egress.states(&pool, &site("site", &limits), Instant::now());
        let open: usize = states.iter().map(|state| state.connections).sum();
        assert_eq!(open, seats.len(), "{states:?}");
        // A source that is passed over does not end the wait for another.
        let mut late = source("late", None);
        late.warm_up = spent.clone();
        let pool = SourcePool::new([(source("a", own[0]), 1), (late, 1), (source("b", own[1]), 0)]);
        assert_eq!(drawn(&egress, &pool, &site("site", &limits)).2, Ok(wait));
    }
}

#[tokio::test(start_paused = true)]
async fn limits_at_a_site_say_nothing_of_others_and_those_over_all_sites_do() {
    let limits = SourceLimits { connections: None, messages: rate(2, 60) };
    let (pool, egress) = (SourcePool::new([(source("a", rate(3, 30)), 1)]), Arc::new(Egress::default()));
    let (one, _, wait) = drawn(&egress, &pool, &site("one", &limits));
    assert_eq!((&*one, wait), ("aa", Ok(30)));
    let (other, _, wait) = drawn(&egress, &pool, &site("other", &limits));
    assert_eq!((&*other, wait), ("a", Ok(10)));
    tokio::time::advance(SECOND * 30).await;
    assert_eq!(
        (&*drawn(&egress, &pool, &site("one", &limits)).0, &*drawn(&egress, &pool, &site("other", &limits)).0),
        ("a", "aa")
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_counts_until_it_is_closed_and_a_message_that_did_not_leave_does_not() {
    let limits = SourceLimits { connections: Some(2), messages: rate(3, 3_600) };
    let (a, egress) = (source("a", rate(9, 60)), Arc::new(Egress::default()));
    let (pool, to) = (SourcePool::new([(a.clone(), 1)]), site("site", &limits));
    let (_, mut seats, wait) = drawn(&egress, &pool, &to);
    assert_eq!((seats.len(), wait), (2, Ok(1)));
    let now = Instant::now();
    assert_eq!(egress.sends_at(&a, &to, now), Some(now), "over a connection that it has");
    assert!(egress.take(&a, &to, false) && !egress.take(&a, &to, false));
    assert_eq!(egress.sends_at(&a, &to, now), Some(now + SECOND * 1_200));
    seats.pop();
    assert_eq!(drawn(&egress, &pool, &to).0, "");
    egress.give_back(&a, "site");
    assert_eq!(drawn(&egress, &pool, &to).0, "a");
    assert_eq!(egress.states(&pool, &to, now)[0].limited, Some(SECOND * 1_200));
}

#[tokio::test(start_paused = true)]
async fn mail_is_tried_again_later_if_all_sources_are_passed_over() {
    let free = SourceLimits::default();
    let (egress, to) = (Arc::new(Egress::default()), site("site", &free));
    let mut foreign = source("foreign", rate(1, 60));
    foreign.v4 = Some([192, 0, 2, 1].into());
    let pool = SourcePool::new([(foreign.clone(), 9), (source("own", rate(2, 60)), 0)]);
    let (names, _, wait) = drawn(&egress, &pool, &to);
    assert_eq!((&*names, wait), ("ownown", Ok(30)));
    assert_eq!(egress.resting()[0].site, None);
    let foreign = SourcePool::new([(foreign, 1)]);
    let why = drawn(&egress, &foreign, &to).2.unwrap_err();
    assert!(why.contains("192.0.2.1 of source foreign"), "{why}");
    egress.look_again();
    assert!(egress.resting().is_empty());
    // It is looked at again, and not taken for there.
    assert!(drawn(&egress, &foreign, &to).2.is_err() && egress.resting().len() == 1);

    let mut new = source("new", None);
    new.warm_up = Some(WarmUp::new(SystemTime::now(), [2]));
    let (names, _, why) = drawn(&egress, &SourcePool::new([(new, 1)]), &to);
    assert!(names == "newnew" && why.unwrap_err().contains("source new has sent the 2 messages of day 1"));

    let (blocked, why) = (source("blocked", None), Diagnostic::own(None, "your address is blocked"));
    assert!(egress.blocked(&blocked, "site", why));
    let pool = SourcePool::new([(blocked.clone(), 1)]);
    assert!(drawn(&egress, &pool, &to).2.unwrap_err().contains("blocked"));
    assert_eq!(egress.sends_at(&blocked, &to, Instant::now()), None, "nor over a connection that it has");
    assert!(egress.draw(&pool, &site("other", &free), &mut Rng::with_seed(7)).is_ok());
    assert!(drawn(&egress, &SourcePool::new([]), &to).2.unwrap_err().contains("no source"));
}

/// The addresses of the sources, and of the servers; who reaches them.
#[tokio::test(start_paused = true)]
async fn only_sources_that_reach_a_server_are_drawn() {
    let target = |address: &str| Target {
        host: "hop.test".into(),
        server: Server::Address(address.parse().unwrap()),
        preference: 0,
        tls: None,
    };
    let mut v4 = source("4", rate(1, 3_600));
    v4.v4 = Some([127, 0, 0, 1].into());
    let mut v6 = source("6", rate(1, 3_600));
    v6.v6 = Some(std::net::Ipv6Addr::UNSPECIFIED);
    let limits = SourceLimits::default();
    for (sources, servers, wanted, why) in [
        (&[&v4, &v6][..], &["192.0.2.1:25"][..], "4", ""),
        (&[&v4, &v6], &["[2001:db8::1]:25"], "6", ""),
        (&[&v4], &["[2001:db8::1]:25", "192.0.2.1:25"], "4", ""),
        (&[&v4], &["[2001:db8::1]:25"], "", "source 4 has no IPv6 address from which it could reach [2001:db8::1]:25"),
        (&[&v6], &["192.0.2.1:25"], "", "source 6 has no IPv4 address from which it could reach 192.0.2.1:25"),
        (&[&v4], &[], "4", ""),
    ] {
        let targets: Vec<_> = servers.iter().map(|server| target(server)).collect();
        let pool = SourcePool::new(sources.iter().map(|source| (Source::clone(source), 1)));
        let to = To { site: "site", limits: &limits, targets: &targets };
        let (names, _, next) = drawn(&Arc::default(), &pool, &to);
        assert_eq!((&*names, next.err().unwrap_or_default().contains(why)), (wanted, true), "{servers:?}");
    }
}
