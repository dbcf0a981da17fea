//! Steps in any order, against the model. Every step is possible in every state, so proptest
//! shrinks a failed run by leaving steps out and by making letters, portions and times smaller. Its
//! `vec` is enough for that.

use posthaste_testkit::{
    choices::Choices,
    link::Fault,
    pair::{Letter, Pair, Setup, Side, Step, Way},
};
use posthaste_wire::Mechanism;
use proptest::{collection::vec, option, prelude::*, sample::select};

fn setup() -> impl Strategy<Value = Setup> {
    let mechanism = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Mechanism::Plain)),
        1 => Just(Some(Mechanism::Login)),
        1 => Just(Some(Mechanism::ScramSha256)),
    ];
    (any::<bool>(), any::<bool>(), mechanism, any::<bool>()).prop_map(|(lmtp, tls, mechanism, pipelined)| Setup {
        lmtp,
        tls,
        mechanism,
        pipelined,
    })
}

/// Mostly 250.
fn code() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(250_u16), 1 => Just(450), 1 => Just(550)]
}

/// Lines that DATA takes, with dots in critical places.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = vec(prop_oneof![2 => Just(b'.'), 5 => 1_u8..=255], 0..20)
        .prop_map(|line| line.into_iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect::<Vec<u8>>());
    vec(line, 0..8).prop_map(|lines| lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect())
}

fn letter(lmtp: bool) -> impl Strategy<Value = Letter> {
    let chunks = |binary| {
        (1..60_usize, any::<bool>()).prop_map(move |(octets, end_apart)| Way::Chunks { octets, binary, end_apart })
    };
    let body = prop_oneof![
        (text(), Just(Way::Data)),
        (text(), chunks(false)),
        (vec(any::<u8>(), 0..120), chunks(true)),
        (vec(select(&b"\r\n.\0BDAT 1"[..]), 0..120), chunks(true)),
    ];
    let ends = vec(code(), 1..if lmtp { 4 } else { 2 });
    (body, code(), vec(code(), 1..5), code(), option::weighted(0.1, 1..100_usize), ends).prop_map(
        |((content, way), mail, recipients, data, refused_at, end)| Letter {
            mail,
            recipients,
            data,
            refused_at,
            end,
            content,
            way,
        },
    )
}

fn portion() -> impl Strategy<Value = usize> {
    prop_oneof![1..4_usize, 1..80_usize, Just(4_096)]
}

/// Steps that keep the connection alive.
fn harmless(lmtp: bool) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => portion().prop_map(Step::Act),
        8 => portion().prop_map(Step::Up),
        8 => portion().prop_map(Step::Down),
        4 => Just(Step::Answer),
        2 => letter(lmtp).prop_map(Step::Submit),
        1 => (0..100_u32, any::<bool>()).prop_map(|(hundredths, first)| Step::WaitFor(hundredths, first)),
        1 => any::<bool>().prop_map(Step::Wake),
    ]
}

/// Steps that may end the connection.
fn harmful() -> impl Strategy<Value = Step> {
    let fault = select(vec![Fault::End, Fault::Reset, Fault::Silence]);
    prop_oneof![
        (fault, select(vec![Side::Server, Side::Client]), 0..200_usize)
            .prop_map(|(fault, side, more)| Step::Fail(fault, side, more)),
        (100..400_u32, any::<bool>()).prop_map(|(hundredths, first)| Step::WaitFor(hundredths, first)),
    ]
}

fn run(setup: Setup, steps: Vec<Step>, seed: u64) -> Pair {
    let mut pair = Pair::new(setup);
    for step in steps {
        pair.step(step);
        pair.check();
    }
    pair.finish(&mut Choices::new(seed));
    pair
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_a_fault_the_client_is_told_every_outcome(
        (setup, steps) in setup().prop_flat_map(|setup| (Just(setup), vec(harmless(setup.lmtp), 0..160))), seed: u64
    ) {
        prop_assert!(!run(setup, steps, seed).is_disturbed());
    }

    #[test]
    fn with_faults_nothing_is_lost_and_one_message_at_most_is_in_doubt(
        (setup, steps) in setup().prop_flat_map(|setup| {
            (Just(setup), vec(prop_oneof![60 => harmless(setup.lmtp), 1 => harmful()], 0..160))
        }), seed: u64
    ) {
        run(setup, steps, seed);
    }
}
