//! `relay queue`: what an operator sees of the mail that waits, and does with it.

mod support;

use std::fs;
use std::process::Output;

use support::PATIENCE;
use support::client::Smtp;
use support::relay::{Config, Relay, program};
use support::sink::Sink;
use support::{token, wait_for};

/// A relay whose next hop is not there, so that mail waits.
fn waiting(count: usize) -> (Relay, Vec<String>) {
    let config = Config { next_hops: vec![support::free_port()], retry: "[\"1h\"]", ..Config::default() };
    let relay = Relay::start(&config);
    let tokens: Vec<_> = (0..count).map(|_| token()).collect();
    let mut client = Smtp::ehlo(relay.port);
    for token in &tokens {
        assert_eq!(client.transact(token).code, 250);
    }
    wait_for("all have been tried", PATIENCE, || {
        let found = list(&relay, &["--state", "waiting"]);
        (found.len() == count).then_some(())
    });
    (relay, tokens)
}

fn queue(relay: &Relay, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("queue").args(arguments).arg("--config").arg(relay.config());
    command.output().expect("cargo built the relay")
}

/// What it prints, if it succeeds.
fn said(relay: &Relay, arguments: &[&str]) -> String {
    let output = queue(relay, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it prints on its error stream, if it ends with this code.
fn refused(relay: &Relay, arguments: &[&str], code: i32) -> String {
    let output = queue(relay, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The messages that `list` finds.
fn list(relay: &Relay, arguments: &[&str]) -> Vec<serde_json::Value> {
    let text = said(relay, &[&["list", "--json"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn ids(messages: &[serde_json::Value]) -> Vec<String> {
    messages.iter().map(|message| message["id"].as_str().expect("it has an id").to_owned()).collect()
}

#[test]
fn the_mail_that_waits_is_summed_up_listed_and_shown() {
    let (relay, _) = waiting(3);
    let summary = said(&relay, &[]);
    assert!(summary.starts_with("RECIPIENTS  DUE"), "{summary}");
    assert!(summary.contains("dest.test") && summary.ends_with("3 messages in all\n"), "{summary}");
    let overview: serde_json::Value = serde_json::from_str(&said(&relay, &["--json"])).expect("it is JSON");
    assert_eq!((&overview["messages"], &overview["destinations"][0]["waiting"]), (&3.into(), &3.into()));

    let all = ids(&list(&relay, &[]));
    let table = said(&relay, &["list"]);
    assert!(all.iter().all(|id| table.contains(id.as_str())), "{table}");
    for (arguments, count) in [
        (&["--recipient", "dest.test"][..], 3),
        (&["--recipient", "*.dest.test"], 0),
        (&["--sender", "sender.test"], 3),
        (&["--sender", "<>"], 0),
        (&["--held"], 0),
        (&["--held=false"], 3),
        (&["--older", "1h"], 0),
        (&["--newer", "1h"], 3),
        (&["--reply", "no connection"], 3),
        (&["--reply", "greylisted"], 0),
        (&["--limit", "2"], 2),
    ] {
        assert_eq!(list(&relay, arguments).len(), count, "{arguments:?}");
    }
    assert!(said(&relay, &["list", "--limit", "2"]).ends_with("raise --limit\n"));

    let story = said(&relay, &["show", &all[0]]);
    for line in ["sender      <", "attempts  1", "waits, next attempt in", "outcome   4.4.1"] {
        assert!(story.contains(line), "{line}: {story}");
    }
    let header = said(&relay, &["show", &all[0], "--header"]);
    assert!(header.contains("Received: from") && header.contains("Subject:"), "{header}");
    let content = said(&relay, &["show", &all[0], "--content"]);
    assert!(content.len() > header.len(), "{content}");
}

#[test]
fn messages_are_changed_by_id_or_by_condition_with_a_question_before_many() {
    let (relay, _) = waiting(4);
    let all = ids(&list(&relay, &[]));
    assert!(refused(&relay, &["hold"], 2).contains("which messages?"));
    assert!(refused(&relay, &["hold", "--all"], 2).contains("would hold 4 messages; write --yes"));
    assert!(refused(&relay, &["hold", "nonsense"], 2).contains("13 characters"));
    assert!(refused(&relay, &["list", "--sender", "no address at all"], 2).contains("sender"));
    assert_eq!(said(&relay, &["hold", "--all", "--dry-run"]), "would hold 4 messages\n");
    assert_eq!(said(&relay, &["hold", &all[0]]), "hold: 1 messages\n");
    assert_eq!(said(&relay, &["hold", "--all", "--yes"]), "hold: 3 messages, 1 were so already\n");
    assert_eq!(list(&relay, &["--held"]).len(), 4);
    assert_eq!(said(&relay, &["release", "--held", "--yes", "--json"]), "{\"changed\":4,\"gone\":0,\"same\":0}\n");
    assert_eq!(said(&relay, &["remove", &all[0]]), "remove: 1 messages\n");
    assert_eq!(queue(&relay, &["remove", &all[0]]).status.code(), Some(3), "it is gone");
    assert!(refused(&relay, &["show", &all[0]], 1).contains("no message"));
    assert_eq!(said(&relay, &["remove", "--recipient", "dest.test", "--yes"]), "remove: 3 messages\n");
    relay.wait_queued(0);
}

#[test]
fn mail_is_exported_and_tried_again_when_its_next_hop_is_back() {
    let mut sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], retry: "[\"1h\"]", ..Config::default() });
    sink.down();
    let token = token();
    assert_eq!(Smtp::ehlo(relay.port).transact(&token).code, 250);
    wait_for("it has been tried", PATIENCE, || (list(&relay, &["--state", "waiting"]).len() == 1).then_some(()));
    let folder = relay.folder().join("exported");
    let to = folder.display().to_string();
    said(&relay, &["export", "--all", "--to", &to]);
    let files: Vec<_> = fs::read_dir(&folder).expect("it was made").map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(file.extension().is_some_and(|extension| extension == "eml"));
    let content = fs::read_to_string(file).expect("it is text");
    assert!(content.starts_with("Received: from ") && content.contains(&token), "{content}");
    sink.up();
    said(&relay, &["retry", "--all"]);
    sink.one(&token);
    relay.wait_queued(0);
}

#[test]
fn commands_without_a_relay_say_so() {
    let relay = Relay::prepare(&Config { next_hops: vec![support::free_port()], ..Config::default() });
    let text = refused(&relay, &[], 1);
    assert!(text.contains("no relay answers at") && text.contains("relay serve"), "{text}");
}
