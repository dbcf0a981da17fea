//! The table of the docs, and what clients are told on each rung.

use std::sync::Mutex;

use tokio::time::advance;

use super::*;

const DOCS: &str = include_str!("../../OVERLOAD.md");

/// The cells of the rows of the first table, without its head.
fn rows() -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let table = DOCS.lines().skip_while(|line| !line.starts_with("| rung |"));
    table.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_table_of_the_docs_has_the_rungs_their_replies_and_the_default_watermarks() {
    let options = OverloadOptions::default();
    let head = DOCS.lines().find(|line| line.starts_with("| rung |")).unwrap();
    let gauges: Vec<_> = Gauge::ALL.iter().map(|gauge| format!("`{gauge}`")).collect();
    assert!(head.ends_with(&format!("| {} |", gauges.join(" | "))), "{head}");
    let rows = rows();
    let names: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(names, Rung::ALL.map(|rung| rung.to_string()));
    for (rung, row) in Rung::ALL.into_iter().zip(&rows) {
        let reply = match rung {
            Rung::Calm | Rung::Slower | Rung::Paused => String::new(),
            Rung::Heaviest | Rung::Newest | Rung::Everyone => BUSY.to_string(),
            Rung::Closed => CLOSED.to_string(),
        };
        assert_eq!(row[2], reply, "{rung}");
        let marks = Gauge::ALL.map(|gauge| match options.of(gauge).mark(rung) {
            _ if rung == Rung::Calm => String::new(),
            u64::MAX => "never".to_owned(),
            mark => mark.to_string(),
        });
        assert_eq!(row[4..], marks, "{rung}");
    }
    for gauge in Gauge::ALL {
        assert!(DOCS.contains(&format!("\n| `{gauge}` | ")), "{gauge} has a row of its own");
    }
}

#[test]
fn the_watermarks_of_each_gauge_climb() {
    let options = OverloadOptions::default();
    for gauge in Gauge::ALL {
        let marks = Rung::ALL.map(|rung| options.of(gauge).mark(rung));
        assert!(marks.is_sorted(), "{gauge}: {marks:?}");
    }
}

#[test]
fn watermarks_scale_with_the_one_that_refuses_all() {
    let OverloadOptions { memory, depth, active, .. } = OverloadOptions::default();
    let all = |marks: Watermarks| Rung::ALL.map(|rung| marks.mark(rung));
    const NEVER: u64 = u64::MAX;
    assert_eq!(all(memory.refusing_at(90)), all(memory));
    assert_eq!(all(memory.refusing_at(45)), [0, 37, 40, 42, 45, 47, NEVER]);
    assert_eq!(all(depth.refusing_at(8)), [0, 4, 5, 6, 8, NEVER, NEVER]);
    assert_eq!(all(depth.refusing_at(u64::MAX))[4], NEVER);
    assert_eq!(active.refusing_at(3), active);
}

/// The rungs that an observer was told of.
type Told = Arc<Mutex<Vec<(Rung, Gauge, u64, u64)>>>;

fn overload() -> (Overload, Told) {
    let told = Told::default();
    let telling = Arc::clone(&told);
    let events = Counting::new(move |event: &Event<'_>| {
        if let Event::Overload { rung, gauge, value, watermark, .. } = event {
            telling.lock().unwrap().push((*rung, *gauge, *value, *watermark));
        }
    });
    let options = RelayOptions::new("relay.test".parse().unwrap());
    (Overload::new(Arc::new(ArcSwap::from_pointee(options)), Arc::new(events)), told)
}

/// An owner that sends much, one that sends little, and one that is new. All but the last one have
/// been known for a minute.
async fn owners(overload: &Overload) -> [OwnerHash; 3] {
    let [heavy, light, new] = ["heavy", "light", "new"].map(|name| overload.owners.owner(name));
    [heavy, light].iter().for_each(|owner| overload.accepted(*owner, 0));
    advance(Duration::from_secs(60)).await;
    (0..10).for_each(|_| overload.accepted(heavy, 10_000));
    overload.accepted(light, 1_000);
    [heavy, light, new]
}

#[tokio::test(start_paused = true)]
async fn each_rung_refuses_more_than_the_one_below() {
    let (overload, told) = overload();
    let owners = owners(&overload).await;
    let milliseconds = |wait: Duration| Ok(wait.as_millis());
    let decide = |is_lmtp| owners.map(|owner| overload.admit(|| owner, is_lmtp).map_or_else(Err, milliseconds));
    let busy = Err(BUSY);
    for (memory, decisions) in [
        (74, [Ok(0), Ok(0), Ok(0)]),
        (75, [Ok(50), Ok(0), Ok(0)]),
        (78, [Ok(620), Ok(0), Ok(0)]),
        (80, [busy.clone(), Ok(0), Ok(0)]),
        (85, [busy.clone(), Ok(0), busy.clone()]),
        (90, [busy.clone(), busy.clone(), busy.clone()]),
        (95, [busy.clone(), busy.clone(), busy.clone()]),
    ] {
        overload.report(Gauge::Memory, memory);
        assert_eq!(decide(false), decisions, "{memory}");
        let is_open = if memory < 95 { Ok(()) } else { Err(CLOSED) };
        assert_eq!(overload.admit_connection(), is_open, "{memory}");
    }
    let state = overload.state();
    assert_eq!((state.slowed, state.refused, state.closed), (2, 9, 1));
    let cause = OverloadCause { gauge: Gauge::Memory, value: 95, watermarks: OverloadOptions::default().memory };
    assert_eq!((state.rung, state.cause), (Rung::Closed, Some(cause)));
    let climbed = Rung::ALL.into_iter().zip([0, 75, 80, 85, 90, 95]).skip(1);
    let climbed: Vec<_> = climbed.map(|(rung, value)| (rung, Gauge::Memory, value, value)).collect();
    assert_eq!(*told.lock().unwrap(), climbed);
}

#[tokio::test(start_paused = true)]
async fn lmtp_never_waits() {
    let (overload, _) = overload();
    let [heavy, ..] = owners(&overload).await;
    overload.report(Gauge::Memory, 79);
    assert_eq!(overload.admit(|| heavy, true), Ok(Duration::ZERO));
    assert!(overload.admit(|| heavy, false).is_ok_and(|wait| !wait.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn the_only_owner_waits_and_is_not_the_heaviest() {
    let (overload, _) = overload();
    let owner = overload.owners.owner("alone");
    (0..1_000).for_each(|_| overload.accepted(owner, 10_000));
    for (memory, wait) in [(75, 50), (80, 1_000)] {
        overload.report(Gauge::Memory, memory);
        assert_eq!(overload.admit(|| owner, false), Ok(Duration::from_millis(wait)), "{memory}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_measured_in_a_quarter_of_a_second_and_less_often_if_that_takes_long() {
    let (overload, _) = overload();
    // How long the queue takes, and the milliseconds until it is asked again.
    for (took, pause) in [(0, 250), (13, 250), (20, 380), (1_000, 19_000), (100_000, 60_000)] {
        assert_eq!([(); 3].map(|()| overload.is_due()), [true, false, false]);
        overload.measure(&Stats::default(), Duration::from_millis(took));
        advance(Duration::from_millis(pause - 1)).await;
        assert!(!overload.is_due(), "{took}");
        advance(Duration::from_millis(1)).await;
    }
    // The caller has gone.
    assert!(overload.is_due());
    advance(PATIENCE).await;
    assert!(overload.is_due());
}

#[tokio::test(start_paused = true)]
async fn what_the_queue_says_climbs_too_and_active_deliveries_do_not() {
    let (overload, told) = overload();
    let mut stats = Stats::default();
    (stats.leased, stats.deliveries, stats.files_pressure) = (u64::MAX - 1, 3_999_999, 49);
    overload.measure(&stats, Duration::ZERO);
    assert_eq!(overload.state().rung, Rung::Calm);
    stats.deliveries = 4_000_000;
    overload.measure(&stats, Duration::ZERO);
    stats.disk_pressure = 100;
    overload.measure(&stats, Duration::ZERO);
    let steps = [(Rung::Slower, Gauge::Depth, 4_000_000, 4_000_000), (Rung::Everyone, Gauge::Disk, 100, 100)];
    assert_eq!(*told.lock().unwrap(), steps);
}

#[tokio::test(start_paused = true)]
async fn new_watermarks_count_at_once() {
    let (overload, _) = overload();
    overload.report(Gauge::Memory, 70);
    assert_eq!(overload.state().rung, Rung::Calm);
    let mut options = RelayOptions::clone(&overload.options.load());
    options.overload.memory = options.overload.memory.refusing_at(70);
    overload.options.store(Arc::new(options));
    let state = overload.state();
    assert_eq!((state.rung, state.cause.map(|cause| cause.watermarks.everyone)), (Rung::Everyone, Some(70)));
}
