use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use posthaste_server::{
    ServerOptions, Service as _, Tls,
    layers::Metrics,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::talk::Talk;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::talk_with;
use crate::support::{self, Names};

/// The values of each series: of a counter and gauge the sum, of a histogram all.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

struct Series(Recorded, String);

impl Recorded {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Series(self.clone(), key.name().to_owned() + &labels.collect::<String>()))
    }
}

impl Series {
    fn add(&self, value: f64) {
        let mut all = self.0.0.lock().unwrap();
        let sum = all.entry(self.1.clone()).or_insert_with(|| vec![0.0]);
        sum[0] += value;
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        unreachable!("counters are added to");
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {
        unreachable!("connections share the gauge");
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.0.0.lock().unwrap().entry(self.1.clone()).or_default().push(value);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

/// The series of two conversations.
fn recorded() -> BTreeMap<String, Vec<f64>> {
    let recorded = Recorded::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    with_local_recorder(&recorded, || {
        runtime.block_on(async {
            let mut settings = support::settings();
            settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
            settings.offers.auth_in_clear = true;
            settings.offers.other_commands = true;
            let service = Names::default().layer(Metrics::default());
            // A clone that serves no connection is in no gauge.
            drop(service.clone());
            let mut open = talk_with(service.clone(), "192.0.2.1", settings.clone());
            open.reply().await;
            let mut talk = talk_with(service, "192.0.2.1", settings).greeted().await;
            talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
            talk.expect("MAIL FROM:<refuse-mail@b.test>", "550").await;
            talk.expect("VRFY a", "502").await;
            assert!(talk.message("a@b.test", "hello").await.starts_with("250"));
            assert!(talk.message("careless@b.test", "x").await.starts_with("451"));
            talk.expect("QUIT", "221").await;
            assert_eq!(talk.reply().await, "<eof>");
            tokio::task::yield_now().await;
            drop(open);
        });
        // Here both conversations are dropped.
        let open = recorded.0.lock().unwrap()["posthaste_server_connections"].clone();
        assert_eq!(open, [1.0]);
        drop(runtime);
    });
    std::mem::take(&mut recorded.0.lock().unwrap())
}

/// What a server counts of clients without a seat, and of sessions that have ended.
fn recorded_by_servers() -> BTreeMap<String, Vec<f64>> {
    let recorded = Recorded::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let leave_no_room: [fn(&mut ServerOptions); 3] = [
        |options| options.connections = 0,
        |options| options.connections_per_network = 0,
        |options| options.connections_per_prefix = 0,
    ];
    with_local_recorder(&recorded, || {
        runtime.block_on(async {
            for set in leave_no_room {
                let server = support::start(support::settings(), Tls::Off, support::options(set)).await;
                let mut refused = Talk::connect(server.address).await;
                assert!(refused.reply().await.starts_with("421 4.3.2"));
            }
            let server = support::start(support::settings(), Tls::Off, ServerOptions::default()).await;
            let mut reset = TcpStream::connect(server.address).await.unwrap();
            reset.read_u8().await.unwrap();
            reset.set_zero_linger().unwrap();
            drop(reset);
            for _ in 0..2 {
                let mut talk = Talk::connect(server.address).await.greeted().await;
                talk.expect("QUIT", "221").await;
                assert_eq!(talk.reply().await, "<eof>");
            }
            let mut junk = Talk::connect(server.address).await;
            junk.reply().await;
            junk.expect("GET / HTTP/1.1", "421").await;
            assert_eq!(junk.reply().await, "<eof>");
            // All sessions have ended when the server has.
            server.drain.cancel();
            server.task.await.unwrap();
        });
    });
    std::mem::take(&mut recorded.0.lock().unwrap())
}

#[test]
fn a_server_counts_clients_without_a_seat_and_why_sessions_end() {
    let expected = [
        ("posthaste_server_refused_total limit=connections", vec![1.0]),
        ("posthaste_server_refused_total limit=connections_per_network", vec![1.0]),
        ("posthaste_server_refused_total limit=connections_per_prefix", vec![1.0]),
        ("posthaste_server_sessions_total reason=ForeignProtocol", vec![1.0]),
        ("posthaste_server_sessions_total reason=Lost", vec![1.0]),
        ("posthaste_server_sessions_total reason=Quit", vec![2.0]),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
    assert_eq!(recorded_by_servers(), expected);
}

#[test]
fn decisions_are_counted_with_labels_that_no_client_chooses() {
    let expected = [
        ("posthaste_server_connections", vec![0.0]),
        ("posthaste_server_connections_total", vec![2.0]),
        ("posthaste_server_decisions_total asked=data decision=accepted", vec![2.0]),
        ("posthaste_server_decisions_total asked=hello decision=accepted", vec![1.0]),
        ("posthaste_server_decisions_total asked=mail decision=accepted", vec![2.0]),
        ("posthaste_server_decisions_total asked=mail decision=refused", vec![1.0]),
        ("posthaste_server_decisions_total asked=message decision=accepted", vec![2.0]),
        ("posthaste_server_decisions_total asked=other decision=refused", vec![1.0]),
        ("posthaste_server_decisions_total asked=rcpt decision=accepted", vec![2.0]),
        ("posthaste_server_logins_total mechanism=password", vec![1.0]),
        ("posthaste_server_message_octets", vec![7.0, 0.0]),
        ("posthaste_server_message_seconds", vec![0.0, 0.0]),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
    assert_eq!(recorded(), expected);
}

#[test]
fn the_table_in_the_docs_has_the_names_and_labels_that_are_recorded() {
    let source = include_str!("../../../src/layers/metrics.rs");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("/// | `posthaste")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`').to_owned();
        let labels = cells.nth(1)?.replace(['`', ','], " ");
        let labels: String = labels.split_whitespace().map(|label| format!(" {label}")).collect();
        Some(format!("posthaste{name}{labels}"))
    };
    let mut documented: Vec<_> = source.lines().filter_map(row).collect();
    documented.sort();
    let bare = |series: String| {
        let words = series.split(' ').map(|word| word.split('=').next().unwrap_or_default());
        words.collect::<Vec<_>>().join(" ")
    };
    let mut names: Vec<_> = recorded().into_keys().chain(recorded_by_servers().into_keys()).map(bare).collect();
    names.sort();
    names.dedup();
    assert_eq!(documented, names);
}
