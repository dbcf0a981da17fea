//! The conformance table against the relay, driven from outside by the adaptor.

mod support;

use std::process::Command;

use serde_json::Value;
use support::relay::{PASSWORD, USER};
use support::{certificate, free_port, json, python, tests_folder, tool};

/// Cases that are known to fail, with the reason. The test fails if one of them passes.
const KNOWN_FAILURES: &[(&str, &str)] = &[];

/// Extensions that the relay does not offer, so that their cases do not apply. The test fails if
/// the relay offers one of them, or lacks another.
const NOT_OFFERED: &[&str] = &[];

/// Cases about an extension that is not offered, where the relay offers it.
const OFFERED: &[&str] = &["BDT-17"];

#[test]
fn every_case_of_the_table_holds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cert, key) = certificate(folder.path());
    let ports = [(); 4].map(|()| free_port().to_string());
    let [port, submission, implicit, sink] = &ports;
    let adaptor = Adaptor::start(folder.path(), &ports);

    let results = folder.path().join("results.json");
    let mut runner = python("conformance/conform.py");
    runner.args([
        "127.0.0.1",
        port,
        "--sub",
        submission,
        "--tls",
        implicit,
        "--sink-port",
        sink,
        "--user",
        USER,
        "--password",
        PASSWORD,
    ]);
    runner.arg("--certificate").arg(cert).arg("--key").arg(key).arg("--json").arg(&results);
    let score = support::run(&mut runner);
    println!("{score}");
    let results = json(&std::fs::read_to_string(results).expect("the runner wrote it"));
    println!("offered: {}", results["meta"]["ehlo"]);

    let rows = results["rows"].as_array().expect("the runner writes rows");
    let of = |status: &str| rows.iter().filter(|row| row["status"] == status).collect::<Vec<_>>();
    let mut problems = vec![];
    for row in of("fail") {
        let id = row["id"].as_str().unwrap_or_default();
        if KNOWN_FAILURES.iter().any(|(known, _)| *known == id) {
            continue;
        }
        problems.push(format!(
            "{id} ({}, RFC {}): {}: {}\n{}",
            row["level"],
            row["ref"],
            row["title"],
            row["detail"],
            transcript(row)
        ));
    }
    for (id, reason) in KNOWN_FAILURES {
        if of("pass").iter().any(|row| row["id"] == **id) {
            problems.push(format!("{id} is listed as failing ({reason}) and passes: strike it from the list"));
        }
    }
    for row in of("na") {
        let reason = row["detail"].as_str().unwrap_or_default();
        if reason == "offered" && OFFERED.iter().any(|id| row["id"] == **id) {
            continue;
        }
        if !reason.strip_suffix(" not offered").is_some_and(|keyword| NOT_OFFERED.contains(&keyword)) {
            problems.push(format!("{} does not apply any more: {reason}", row["id"]));
        }
    }
    for keyword in NOT_OFFERED {
        if results["meta"]["ehlo"].get(keyword).is_some() {
            problems.push(format!("{keyword} is listed as not offered and is: strike it from the list"));
        }
    }
    assert!(problems.is_empty(), "{score}\n{}\n---- the relay's log\n{}", problems.join("\n"), adaptor.run("log"));
}

fn transcript(row: &Value) -> String {
    row["transcript"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|line| format!("      {line}\n"))
        .collect()
}

/// The relay that `adaptor` runs. It ends when this is dropped.
struct Adaptor {
    environment: Vec<(&'static str, String)>,
}

impl Adaptor {
    fn start(folder: &std::path::Path, ports: &[String; 4]) -> Self {
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let environment = vec![
            ("RELAY_BIN", env!("CARGO_BIN_EXE_relay").into()),
            ("ACC_STATE", text(folder.join("state"))),
            ("ACC_HOST", "127.0.0.1".into()),
            ("ACC_PORT", ports[0].clone()),
            ("ACC_SUB_PORT", ports[1].clone()),
            ("ACC_TLS_PORT", ports[2].clone()),
            ("ACC_NEXTHOP_HOST", "127.0.0.1".into()),
            ("ACC_NEXTHOP_PORT", ports[3].clone()),
            ("ACC_USER", USER.into()),
            ("ACC_PASS", PASSWORD.into()),
            ("ACC_DOMAINS", "dest.test sender.test".into()),
            ("ACC_CERT", text(folder.join("cert.pem"))),
            ("ACC_KEY", text(folder.join("key.pem"))),
        ];
        let adaptor = Self { environment };
        adaptor.run("start");
        adaptor.run("alive");
        adaptor
    }

    fn run(&self, word: &str) -> String {
        support::run(&mut self.command(word))
    }

    fn command(&self, word: &str) -> Command {
        let mut command = tool("bash");
        command.arg(tests_folder().join("adaptor")).arg(word);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Adaptor {
    fn drop(&mut self) {
        let _ = self.command("kill").status();
    }
}
