//! Clients that break the protocol: `hostile_clients.txt` of session.

use posthaste_testkit::hostile::{Row, Step, before, refusals, rows, settings};

use super::{PIECES, Pair, Pki, WAYS, Way, pki};

/// Returns `true` if the row needs what sockets and a handler do not give at will: time, a question
/// that stays open, a shutdown between two octets.
fn is_for_sessions(row: &Row) -> bool {
    row.steps.iter().any(|step| match step {
        Step::Octets(_) => false,
        Step::Event(words) => ["wait", "hold", "answer", "deaf", "shutdown"].iter().any(|word| words.starts_with(word)),
    })
}

fn has_handshake(row: &Row) -> bool {
    row.place == "tls" || row.steps.iter().any(|step| matches!(step, Step::Event(words) if words == "tls"))
}

async fn play(row: &Row, way: Way, piece: usize, pki: &Pki) {
    let mut pair = Pair::connect(&row.name, way, piece, pki, settings(), true, |_| {}).await;
    if row.place != "start" {
        pair.say(b"").await;
    }
    for line in before(&row.place) {
        pair.say(format!("{line}\r\n").as_bytes()).await;
    }
    if row.place == "tls" {
        pair.starttls().await;
    }
    let mut has_left = false;
    for step in &row.steps {
        match step {
            Step::Octets(octets) => pair.say(octets).await,
            Step::Event(words) => match words.split_once(' ').unwrap_or((words, "")) {
                ("then", _) => {}
                ("tls", _) => pair.starttls().await,
                ("eof", _) => has_left = true,
                ("refuse", rest) => {
                    let (topic, times, verdict) = refusals(rest);
                    pair.script(|policy| (0..times).for_each(|_| policy.script(topic, verdict.clone())));
                }
                other => panic!("no such step: {other:?}"),
            },
        }
    }
    if !has_left && !pair.is_closed() {
        // Something after it is answered as always.
        pair.say(b"VRFY probe\r\n").await;
    }
    pair.end().await;
}

#[tokio::test]
async fn hostile_clients_get_what_the_session_says() {
    let (pki, mut played) = (pki(), 0);
    for row in rows(include_str!("../../../../session/tests/hostile_clients.txt")) {
        if is_for_sessions(&row) {
            continue;
        }
        for way in WAYS {
            // Within TLS there is no other handshake, and after STARTTLS no greeting.
            if (has_handshake(&row) && way != Way::Tcp) || (row.place == "start" && way == Way::StartTls) {
                continue;
            }
            for piece in PIECES {
                let piece = match (row.at_once, row.octets()) {
                    (true, _) => usize::MAX,
                    // Some hundred segments are enough.
                    (false, 3_000..) if piece == 1 => 331,
                    _ => piece,
                };
                play(&row, way, piece, &pki).await;
                played += 1;
            }
        }
    }
    assert!(played >= 600, "{played} conversations");
}
