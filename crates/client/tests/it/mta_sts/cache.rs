//! A policy is kept until its end, whatever the DNS and the policy host say.

use std::{sync::Arc, time::Duration};

use posthaste_client::{
    ResolveError,
    mta_sts::{FetchError, Found, MAX_POLICY, MtaSts, Problem, RecordError},
};

use super::{Files, POLICY, Zone, pass, seen};

const DAY: u64 = 86_400;

fn aged(max_age: u64) -> String {
    POLICY.replace("604800", &max_age.to_string())
}

fn has(found: &Found, max_age: u64) -> bool {
    seen(found).0 == Some(max_age)
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_fetched_once_and_the_dns_is_asked_every_five_minutes() {
    let (zone, files) = (Zone::with("1"), Files::with(POLICY));
    let sts = MtaSts::new(files.clone());
    for minute in 0..60 {
        let found = sts.clone().policy(&zone, "D.Test.").await;
        assert!(has(&found, 604_800) && found.problem.is_none(), "{found:?}");
        assert_eq!((zone.asked(), files.fetches()), (minute / 5 + 1, 1), "{minute}");
        pass(60).await;
    }
    assert!(zone.asked.lock().unwrap().iter().all(|name| name == "_mta-sts.d.test"));
    assert_eq!(*files.0.hosts.lock().unwrap(), ["mta-sts.d.test"]);
    // Another domain is asked for by itself: a policy says nothing of subdomains.
    sts.policy(&zone, "sub.d.test").await;
    assert_eq!(files.0.hosts.lock().unwrap()[1], "mta-sts.sub.d.test");
}

#[tokio::test(start_paused = true)]
async fn a_new_id_brings_the_new_policy() {
    let (zone, files) = (Zone::with("1"), Files::with(POLICY));
    let sts = MtaSts::new(files.clone());
    sts.policy(&zone, "d.test").await;
    zone.publishes("2");
    files.set(&aged(1_000));
    pass(299).await;
    assert!(has(&sts.policy(&zone, "d.test").await, 604_800));
    pass(1).await;
    assert!(has(&sts.policy(&zone, "d.test").await, 1_000));
    // Before a message is returned, an answer may be a minute old.
    zone.publishes("3");
    files.set(&aged(2_000));
    pass(59).await;
    assert!(has(&sts.refresh(&zone, "d.test").await, 1_000));
    pass(1).await;
    assert!(has(&sts.refresh(&zone, "d.test").await, 2_000));
    assert_eq!((zone.asked(), files.fetches()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_kept_survives_every_failure_until_its_end() {
    let huge = "x".repeat(MAX_POLICY + 1);
    type Failure = (&'static str, fn(&Zone, &Files, &str));
    let failures: [Failure; 9] = [
        ("", |zone, _, _| zone.answers(Err(ResolveError::NoSuchName))),
        ("", |zone, _, _| zone.answers(Ok(Vec::new()))),
        ("SERVFAIL", |zone, _, _| zone.answers(Err(ResolveError::Temporary("SERVFAIL".to_owned())))),
        ("lead nowhere", |zone, _, _| zone.answers(Err(ResolveError::Unusable("a loop")))),
        ("2 TXT records", |zone, _, _| zone.answers(Ok(vec![b"v=STSv1; id=1".to_vec(), b"v=STSv1; id=2".to_vec()]))),
        ("has no id", |zone, _, _| zone.answers(Ok(vec![b"v=STSv1; x=y".to_vec()]))),
        ("no file", |zone, files, _| (zone.publishes("2"), files.fail()).1),
        ("line 1", |zone, files, _| (zone.publishes("2"), files.set("no policy")).1),
        ("65537 bytes", |zone, files, huge| (zone.publishes("2"), files.set(huge)).1),
    ];
    for (words, fail) in failures {
        let (zone, files) = (Zone::with("1"), Files::with(POLICY));
        let sts = MtaSts::new(files.clone());
        sts.policy(&zone, "d.test").await;
        fail(&zone, &files, &huge);
        for _ in 0..2 * 7 - 1 {
            pass(DAY / 2).await;
            let found = sts.policy(&zone, "d.test").await;
            let (age, problem) = seen(&found);
            assert!(
                age == Some(604_800) && problem.contains(words) && problem.is_empty() == words.is_empty(),
                "{words}: {found:?}"
            );
        }
        pass(DAY / 2).await;
        let found = sts.policy(&zone, "d.test").await;
        assert!(found.policy.is_none() && seen(&found).1.contains(words), "{words}: {found:?}");
        // And when all is well again, so is the policy.
        zone.publishes("3");
        files.set(POLICY);
        pass(300).await;
        assert_eq!(seen(&sts.policy(&zone, "d.test").await), (Some(604_800), String::new()), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_failures_leave_a_domain_without_a_policy_as_one_without_mta_sts() {
    for (txt, problem) in [
        (Err(ResolveError::NoSuchName), ""),
        (Ok(Vec::new()), ""),
        (Ok(vec![b"v=STSv1".to_vec()]), ""),
        (Err(ResolveError::Temporary("SERVFAIL".to_owned())), "SERVFAIL"),
        (Ok(vec![b"v=STSv1; id=1".to_vec(), b"v=STSv1; id=1".to_vec()]), "2 TXT records"),
        (Ok(vec![b"v=STSv1; id=\xff".to_vec()]), "field 2"),
    ] {
        let (zone, files) = (Zone::default(), Files::with(POLICY));
        zone.answers(txt);
        let found = MtaSts::new(files.clone()).policy(&zone, "d.test").await;
        assert!(found.policy.is_none() && found.problem.is_some() != problem.is_empty(), "{found:?}");
        assert!(seen(&found).1.contains(problem) && files.fetches() == 0, "{found:?}");
    }
    let zone = Zone::default();
    let several = vec![b"v=STSv1; id=1".to_vec(); 1_000];
    zone.answers(Ok(several));
    let found = MtaSts::new(Files::default()).policy(&zone, "d.test").await;
    assert!(matches!(found.problem.as_deref(), Some(Problem::Record(RecordError::Several(1_000)))));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_failed_is_repeated_after_five_minutes_or_for_a_new_id() {
    let (zone, files) = (Zone::with("1"), Files::default());
    let sts = MtaSts::new(files.clone());
    for minute in 0..20 {
        let found = sts.refresh(&zone, "d.test").await;
        assert!(found.policy.is_none() && seen(&found).1 == "no file", "{found:?}");
        assert_eq!(files.fetches(), minute / 5 + 1, "{minute}");
        pass(60).await;
    }
    zone.publishes("2");
    sts.refresh(&zone, "d.test").await;
    assert_eq!(files.fetches(), 5);
    zone.publishes("3");
    pass(60).await;
    sts.refresh(&zone, "d.test").await;
    assert_eq!(files.fetches(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_fetched_again_each_day_and_its_end_moves() {
    let (zone, files) = (Zone::with("1"), Files::with(POLICY));
    let sts = MtaSts::new(files.clone());
    for day in 0..30 {
        assert!(has(&sts.policy(&zone, "d.test").await, 604_800));
        assert_eq!(files.fetches(), day + 1);
        pass(DAY).await;
    }
    // Mode `none` and a new id take a policy back (RFC 8461 section 8.3).
    zone.publishes("2");
    files.set("version: STSv1\nmode: none\nmax_age: 86400\n");
    let found = sts.policy(&zone, "d.test").await;
    assert!(found.policy.is_some() && found.tested().is_none());
    assert_eq!(found.rule("any.test"), posthaste_client::mta_sts::HostRule::Free);
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_an_age_costs_one_fetch_in_five_minutes() {
    let (zone, files) = (Zone::with("1"), Files::with(&aged(0)));
    let sts = MtaSts::new(files.clone());
    for second in 0..1_500 {
        assert!(has(&sts.policy(&zone, "d.test").await, 0), "{second}");
        assert_eq!(files.fetches(), second / 300 + 1);
        pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_wait_for_one_fetch() {
    let (zone, files) = (Arc::new(Zone::with("1")), Files::with(POLICY));
    files.take(Duration::from_secs(30));
    let sts = MtaSts::new(files.clone());
    let ask = |_| {
        let (sts, zone) = (sts.clone(), Arc::clone(&zone));
        tokio::spawn(async move { sts.policy(&*zone, "d.test").await })
    };
    let callers: Vec<_> = (0..100).map(ask).collect();
    for caller in callers {
        assert!(has(&caller.await.unwrap(), 604_800));
    }
    assert_eq!((zone.asked(), files.fetches()), (1, 1));
    // While a policy counts, one caller asks and no other waits.
    pass(2 * DAY).await;
    let began = tokio::time::Instant::now();
    let slow = ask(0);
    tokio::task::yield_now().await;
    for _ in 0..100 {
        assert!(has(&ask(0).await.unwrap(), 604_800));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(has(&slow.await.unwrap(), 604_800));
    assert_eq!((began.elapsed(), zone.asked(), files.fetches()), (Duration::from_secs(30), 2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_the_question_to_the_next() {
    let (zone, files) = (Zone::with("1"), Files::with(POLICY));
    files.take(Duration::from_secs(30));
    let sts = MtaSts::new(files.clone());
    let gone = tokio::time::timeout(Duration::from_secs(10), sts.policy(&zone, "d.test")).await;
    assert!(gone.is_err());
    assert!(has(&sts.policy(&zone, "d.test").await, 604_800));
    assert_eq!((zone.asked(), files.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_an_applications_own_is_bounded_too() {
    let (zone, files) = (Zone::with("1"), Files::with(POLICY));
    files.take(Duration::from_secs(1_000_000));
    let began = tokio::time::Instant::now();
    let found = MtaSts::new(files).policy(&zone, "d.test").await;
    assert!(matches!(found.problem.as_deref(), Some(Problem::Fetch(FetchError::Timeout))), "{found:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn the_dns_is_asked_at_once_when_a_policy_has_ended_and_then_every_five_minutes() {
    let (zone, files) = (Zone::with("1"), Files::with(&aged(400)));
    let sts = MtaSts::new(files.clone());
    sts.policy(&zone, "d.test").await;
    files.fail();
    pass(200).await;
    sts.refresh(&zone, "d.test").await;
    pass(199).await;
    assert!(has(&sts.policy(&zone, "d.test").await, 400));
    assert_eq!(zone.asked(), 2);
    pass(1).await;
    for second in 0..600 {
        assert!(sts.policy(&zone, "d.test").await.policy.is_none());
        assert_eq!(zone.asked(), 3 + second / 300, "{second}");
        pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_are_bounded_and_each_ends_within_its_minute() {
    let (zone, files) = (Arc::new(Zone::with("1")), Files::with(POLICY));
    files.take(Duration::from_secs(1_000));
    let (sts, began) = (MtaSts::new(files.clone()), tokio::time::Instant::now());
    let ask = |number| {
        let (sts, zone) = (sts.clone(), Arc::clone(&zone));
        tokio::spawn(async move { sts.policy(&*zone, &format!("{number}.test")).await })
    };
    let callers: Vec<_> = (0..1_000).map(ask).collect();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(files.fetches(), 256);
    for caller in callers {
        assert!(caller.await.unwrap().policy.is_none());
    }
    assert_eq!(began.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_domain_with_a_policy_host_is_not_asked_for() {
    let (zone, files) = (Zone::with("1"), Files::with(POLICY));
    let sts = MtaSts::new(files);
    let long = format!("{}.test", ["a".repeat(60).as_str(); 4].join("."));
    for domain in ["", ".", "a..b", "[192.0.2.1]", "[IPv6:::1]", "a/../b.test", "a b.test", "a\r\nb.test", &long] {
        let found = sts.policy(&zone, domain).await;
        assert!(found.policy.is_none() && found.problem.is_none(), "{domain:?}");
    }
    assert_eq!(zone.asked(), 0);
}
