//! The dialogues of session's `transcripts`.

use std::{fs, path::Path};

use posthaste_testkit::{
    policy,
    transcript::{self, Step, Transcript},
};

use super::{PIECES, Pair, Pki, WAYS, Way, pki};
use posthaste_server::session::Transport;

/// Words of a transcript that need what sockets and a handler do not give at will. That is time, a
/// question that stays open, replies that are the session's own, a nonce that is known.
const NOT_HERE: [&str; 14] = [
    "wait",
    "hold",
    "answer",
    "shutdown",
    "refuse-content",
    "challenge",
    "refuse auth",
    "accept hello",
    "accept mail",
    "accept rcpt 2",
    "accept data",
    "limit greeting-delay",
    "accept auth",
    "accept connect",
];

fn is_for_sessions(transcript: &Transcript) -> bool {
    let directives = transcript.steps.iter().filter_map(|(_, step)| match step {
        Step::Directive(text) => Some(text),
        _ => None,
    });
    let mut all = transcript.setup.iter().chain(directives);
    all.any(|text| {
        NOT_HERE.iter().any(|start| text.starts_with(start))
            || text.starts_with("offer")
                && ["scram", "futurerelease", "other-commands", "xclient", "xforward"]
                    .iter()
                    .any(|word| text.contains(word))
    })
}

async fn play(name: &str, transcript: &Transcript, way: Way, piece: usize, pki: &Pki) {
    let (settings, transport) = transcript::settings(transcript);
    let starttls = transport == Transport::StartTls;
    // What is decided before the greeting.
    let is_directive = |(_, step): &(usize, Step)| matches!(step, Step::Directive(_));
    let (early, steps) =
        transcript.steps.split_at(transcript.steps.iter().take_while(|step| is_directive(step)).count());
    let early: Vec<_> = early.iter().filter_map(|(_, step)| verdict(step)).collect();
    let mut pair = Pair::connect(name, way, piece, pki, settings, starttls, |policy| {
        early.iter().for_each(|(question, verdict)| policy.script(*question, verdict.clone()));
    })
    .await;
    pair.say(b"").await;
    for (_, step) in steps {
        match step {
            Step::Client(octets) => pair.say(octets).await,
            Step::Directive(text) if text == "tls" => pair.starttls().await,
            Step::Directive(text) if text == "eof" => break,
            Step::Directive(_) => {
                if let Some((question, verdict)) = verdict(step) {
                    pair.script(|policy| policy.script(question, verdict.clone()));
                }
            }
            // The session beside it says this: its own test compares.
            Step::Server(_) | Step::ServerCode(_) | Step::ServerLike(_) => {}
        }
    }
    pair.end().await;
}

/// The question and the verdict of a directive that scripts one.
fn verdict(step: &Step) -> Option<(posthaste_server::session::table::Exchange, posthaste_server::session::Verdict)> {
    let Step::Directive(text) = step else { return None };
    let (word, rest) = text.split_once(' ')?;
    let (question, reply) = rest.split_once(' ').unwrap_or((rest, ""));
    let scripts = ["accept", "refuse", "each"].contains(&word);
    scripts.then(|| (policy::question(question).expect("a question"), transcript::verdict(word, reply)))
}

#[tokio::test]
async fn dialogues_are_the_same_over_sockets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../session/tests/transcripts");
    let (pki, mut played) = (pki(), 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let transcript = Transcript::parse(&fs::read_to_string(&path).unwrap());
        if !transcript.is_for_server() || is_for_sessions(&transcript) {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let has_tls = transcript.setup.iter().any(|line| line.contains("tls"));
        let begins =
            matches!(transcript.steps.first(), Some((_, Step::Server(_) | Step::ServerLike(_) | Step::ServerCode(_))));
        for way in WAYS {
            // A dialogue about TLS has its own handshake. After STARTTLS there is no greeting.
            let fits = match way {
                Way::Tcp => !transcript.setup.iter().any(|line| line == "tls-on-connect"),
                Way::StartTls => !has_tls && begins && !transcript.setup.iter().any(|line| line.contains("lmtp")),
                Way::Implicit => !has_tls || transcript.setup.iter().any(|line| line == "tls-on-connect"),
            };
            for piece in PIECES {
                if fits {
                    play(&name, &transcript, way, piece, &pki).await;
                    played += 1;
                }
            }
        }
    }
    assert!(played >= 600, "{played} conversations");
}
