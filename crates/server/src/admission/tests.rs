use std::{net::Ipv4Addr, task::Poll};

use super::{
    idle::{CANDIDATES, KNOWN_IDLE, STRANGER_IDLE},
    *,
};

fn admission(all: usize) -> Arc<Admission> {
    Arc::new(Admission::new(&ServerOptions { connections: all, ..ServerOptions::default() }))
}

fn address(n: usize) -> IpAddr {
    // Each in a network and a prefix of its own.
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + (u32::try_from(n).unwrap() << 8)))
}

async fn has_lost(seat: &Seat) -> bool {
    tokio::select! {
        biased;
        () = seat.lost() => true,
        () = std::future::ready(()) => false,
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_stranger_that_is_idle_for_the_longest_time_leaves_first() {
    let admission = admission(4);
    let mut seats = Vec::new();
    for n in 0..4 {
        seats.push(admission.seat(Some(address(n))).unwrap());
        pass(Duration::from_secs(1)).await;
    }
    // The first works, the second has worked: the third is idle for the longest time.
    seats[0].work().await;
    seats[1].work().await;
    seats[1].wait();
    let order = [2, 3, 1];
    for (n, number) in order.into_iter().enumerate() {
        pass(STRANGER_IDLE).await;
        // Only the first newcomers find a seat: each idle client leaves once.
        seats.push(admission.seat(Some(address(10 + n))).unwrap());
        for (other, seat) in seats.iter().enumerate().take(4) {
            assert_eq!(has_lost(seat).await, order[..=n].contains(&other), "{other} after {number}");
        }
        // It does not become idle itself meanwhile.
        seats[4 + n].work().await;
        // Who has lost its seat and leaves makes no more room.
        let leaver = std::mem::replace(&mut seats[number], Seat::free());
        assert_eq!(admission.seats().leaving, 1);
        drop(leaver);
        let counted = admission.seats();
        assert_eq!((counted.leaving, counted.taken.len()), (0, 4));
        drop(counted);
        seats[number].place.state.store(LEAVING, Relaxed);
    }
    pass(Duration::from_secs(3_600)).await;
    assert!(admission.seat(Some(address(20))).is_none(), "all are busy");
}

#[tokio::test(start_paused = true)]
async fn who_makes_room_for_whom_after_which_time() {
    for (newcomer_is_known, idle_is_known, least) in [
        (false, false, STRANGER_IDLE),
        (false, true, KNOWN_IDLE),
        (true, false, Duration::ZERO),
        (true, true, STRANGER_IDLE),
    ] {
        let admission = admission(1);
        let know = |n| admission.know(address(n));
        if newcomer_is_known {
            know(1);
        }
        if idle_is_known {
            know(0);
        }
        let idle = admission.seat(Some(address(0))).unwrap();
        let context = format!("{newcomer_is_known} {idle_is_known}");
        if let Some(before) = least.checked_sub(Duration::from_millis(1)) {
            pass(before).await;
            assert!(admission.seat(Some(address(1))).is_none(), "{context}");
            assert!(!has_lost(&idle).await);
            // A search is not repeated at once.
            pass(SEARCH).await;
        }
        assert!(admission.seat(Some(address(1))).is_some(), "{context}");
        assert!(has_lost(&idle).await, "{context}");
    }
}

#[tokio::test(start_paused = true)]
async fn known_clients_leave_after_strangers_that_are_idle_for_a_shorter_time() {
    let admission = admission(2);
    let known = admission.seat(Some(address(0))).unwrap();
    known.prove();
    pass(KNOWN_IDLE).await;
    let stranger = admission.seat(Some(address(1))).unwrap();
    pass(STRANGER_IDLE).await;
    let newcomer = admission.seat(Some(address(2))).unwrap();
    assert!(has_lost(&stranger).await && !has_lost(&known).await);
    drop(stranger);
    newcomer.work().await;
    pass(SEARCH).await;
    assert!(admission.seat(Some(address(3))).is_some());
    assert!(has_lost(&known).await);
    // Its network stays known.
    assert!(admission.is_known(address(0)));
    pass(KNOWN_FOR).await;
    assert!(!admission.is_known(address(0)));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_busy_or_has_lost_its_seat_and_never_both() {
    let admission = admission(1);
    let seat = admission.seat(Some(address(0))).unwrap();
    pass(KNOWN_IDLE).await;
    seat.work().await;
    assert!(admission.seat(Some(address(1))).is_none());
    seat.wait();
    pass(KNOWN_IDLE).await;
    let next = admission.seat(Some(address(1))).unwrap();
    // Work that begins now never does.
    let mut work = Box::pin(seat.work());
    assert!(std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending())).await);
    drop(work);
    seat.wait();
    assert!(has_lost(&seat).await);
    assert!(!has_lost(&next).await);
    assert!(!has_lost(&Seat::free()).await);
}

#[tokio::test(start_paused = true)]
async fn those_who_leave_are_bounded() {
    let admission = admission(16);
    let _idle: Vec<_> = (0..16).map(|n| admission.seat(Some(address(n))).unwrap()).collect();
    pass(KNOWN_IDLE).await;
    let strangers: Vec<_> = (16..32).map_while(|n| admission.seat(Some(address(n)))).collect();
    // A sixteenth of 16, and one more.
    assert_eq!(strangers.len(), 2);
    // Known clients find room while strangers displace each other: an eighth, and one more.
    (32..48).for_each(|n| admission.know(address(n)));
    let known: Vec<_> = (32..48).map_while(|n| admission.seat(Some(address(n)))).collect();
    assert_eq!(strangers.len() + known.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_known_client_finds_a_seat_while_strangers_flood() {
    let admission = admission(2_000);
    admission.know(address(9_999));
    let mut seats: Vec<_> = (0..2_000).map(|n| admission.seat(Some(address(n))).unwrap()).collect();
    pass(STRANGER_IDLE).await;
    // They use up all candidates of the last search, and their next one is not due.
    let more: Vec<_> = (2_000..2_000 + CANDIDATES).map_while(|n| admission.seat(Some(address(n)))).collect();
    assert_eq!(more.len(), CANDIDATES);
    assert!(admission.seat(Some(address(9_998))).is_none());
    assert!(admission.seat(Some(address(9_999))).is_some());
    seats.extend(more);
}

#[tokio::test(start_paused = true)]
async fn content_that_takes_too_long_makes_room() {
    for pause in [PIECE, PIECE / 2] {
        let admission = admission(1);
        let (sender, begun) = (admission.seat(Some(address(0))).unwrap(), Instant::now());
        sender.work().await;
        // Another stranger waits for 2 seconds more.
        let longest = STRANGER_IDLE + if pause < PIECE { CONTENT } else { PIECE };
        while begun.elapsed() < longest {
            assert!(admission.seat(Some(address(1))).is_none(), "{:?}", begun.elapsed());
            if pause < PIECE || begun.elapsed() < PIECE {
                assert!(sender.try_work());
                sender.receive(begun);
            }
            pass(pause).await;
        }
        let next = admission.seat(Some(address(1))).unwrap();
        assert!(has_lost(&sender).await && !sender.try_work());
        // A message that has come in time keeps its seat while it is decided about.
        next.work().await;
        next.receive(Instant::now());
        assert!(next.try_work());
        pass(2 * CONTENT).await;
        assert!(admission.seat(Some(address(1))).is_none());
    }
}

/// A flood that fills all seats at once leaves 2 seconds in which no client is idle.
#[tokio::test(start_paused = true)]
async fn a_known_client_gets_the_seat_of_a_stranger_whose_content_is_waited_for() {
    let admission = admission(4);
    admission.know(address(9));
    let strangers: Vec<_> = (0..4).map(|n| admission.seat(Some(address(n))).unwrap()).collect();
    for (stranger, after) in strangers.iter().zip([3, 2, 1]) {
        assert!(stranger.try_work());
        stranger.receive(Instant::now());
        pass(Duration::from_millis(after)).await;
    }
    // The last one speaks no content: it leaves first, although it has waited for less time.
    assert!(strangers[3].try_work());
    strangers[3].wait();
    pass(Duration::from_millis(1)).await;
    assert!(admission.seat(Some(address(8))).is_none(), "a stranger waits");
    for leaver in [3, 0, 1, 2] {
        let known = admission.seat(Some(address(9))).unwrap();
        assert!(known.try_work());
        assert!(has_lost(&strangers[leaver]).await, "{leaver}");
        std::mem::forget(known);
        admission.seats().leaving = 0;
        pass(SEARCH).await;
    }
    assert!(admission.seat(Some(address(9))).is_none(), "all are busy");
}

/// As those of strangers: what known clients send is waited for.
#[tokio::test(start_paused = true)]
async fn content_of_known_clients_keeps_their_seats() {
    let admission = admission(1);
    admission.know(address(0));
    admission.know(address(1));
    let known = admission.seat(Some(address(0))).unwrap();
    assert!(known.try_work());
    known.receive(Instant::now());
    pass(PIECE + STRANGER_IDLE - Duration::from_millis(2)).await;
    assert!(admission.seat(Some(address(1))).is_none());
    pass(SEARCH).await;
    assert!(admission.seat(Some(address(1))).is_some());
    assert!(has_lost(&known).await);
}

#[tokio::test(start_paused = true)]
async fn networks_and_prefixes_have_limits_of_their_own() {
    let mut options = ServerOptions::default();
    (options.connections_per_network, options.connections_per_prefix) = (2, 3);
    let admission = Arc::new(Admission::new(&options));
    let seat = |address: &str| admission.seat(Some(address.parse().unwrap()));
    let taken = [seat("192.0.2.1"), seat("192.0.2.1"), seat("192.0.2.2")];
    assert!(taken.iter().all(Option::is_some));
    for (address, has_room) in
        [("192.0.2.1", false), ("192.0.2.3", false), ("::ffff:192.0.2.3", false), ("192.0.3.1", true)]
    {
        assert_eq!(seat(address).is_some(), has_room, "{address}");
    }
    let taken = [seat("2001:db8::1"), seat("2001:db8::2"), seat("2001:db8:0:1::1")];
    assert!(taken.iter().all(Option::is_some));
    assert!(seat("2001:db8:0:2::1").is_none() && seat("2001:db8:1::1").is_some());
    let loopback: Vec<_> = (0..30).map_while(|_| seat("127.0.0.1")).collect();
    assert_eq!(loopback.len(), 20);
    drop((taken, loopback));
    assert_eq!(admission.seats().counts.by_network.len(), 2, "those of the first array");
}

#[tokio::test(start_paused = true)]
async fn counts_are_exact_whatever_happens() {
    let mut options = ServerOptions::default();
    (options.connections, options.connections_per_network, options.connections_per_prefix) = (24, 4, 6);
    let admission = Arc::new(Admission::new(&options));
    let mut seats: Vec<Seat> = Vec::new();
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for _ in 0..20_000 {
        match next(6) {
            0..=2 => seats.extend(admission.seat(Some(IpAddr::V4(Ipv4Addr::new(10, 0, next(9) as u8, next(3) as u8))))),
            3 if !seats.is_empty() => drop(seats.swap_remove(next(seats.len()))),
            4 if !seats.is_empty() => {
                let seat = &seats[next(seats.len())];
                if !has_lost(seat).await {
                    seat.work().await;
                    if next(2) == 0 {
                        seat.wait();
                    }
                    if next(8) == 0 {
                        seat.prove();
                    }
                }
            }
            _ => pass(Duration::from_millis(700)).await,
        }
        let mut left = 0;
        for seat in &seats {
            left += usize::from(has_lost(seat).await);
        }
        let counted = admission.seats();
        assert_eq!((counted.leaving, counted.taken.len()), (left, seats.len() - left));
        assert!(counted.taken.len() <= 24 && left <= 4);
        assert_eq!(counted.counts.by_network.values().sum::<usize>(), counted.taken.len());
        assert_eq!(counted.counts.by_prefix.values().sum::<usize>(), counted.taken.len());
        assert!(counted.counts.by_network.values().all(|count| (1..=4).contains(count)));
        assert!(counted.counts.by_prefix.values().all(|count| (1..=6).contains(count)));
    }
    drop(seats);
    let counted = admission.seats();
    assert!(counted.taken.is_empty() && counted.counts.by_network.is_empty() && counted.counts.by_prefix.is_empty());
    assert_eq!(counted.leaving, 0);
}
