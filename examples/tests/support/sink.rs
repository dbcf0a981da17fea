//! A next hop that records every octet and misbehaves as told (peers/sink.py).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, certificate, free_port, python};

/// How a next hop may differ from the plain one.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SinkOptions {
    /// Offers STARTTLS.
    pub(crate) tls: bool,
    /// Offers no extension at all.
    pub(crate) bare: bool,
}

#[derive(Debug)]
pub(crate) struct Sink {
    folder: TempDir,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

/// A message that the next hop has taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) reverse_path: String,
    /// The parameters of MAIL.
    pub(crate) parameters: String,
    /// Forward-paths with the parameters of RCPT.
    pub(crate) recipients: Vec<(String, String)>,
    pub(crate) tls: bool,
    pub(crate) file: String,
    pub(crate) data: Vec<u8>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        Self::with(SinkOptions::default())
    }

    pub(crate) fn with(options: SinkOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("posthaste-sink-").tempdir().expect("a temporary folder");
        let mut command = python("peers/sink.py");
        // A port of its own, so that it is free again after "down".
        command.args(["--port", &free_port().to_string(), "--out"]).arg(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if options.tls {
            let (certificate, key) = certificate(folder.path());
            command.arg("--certificate").arg(certificate).arg("--key").arg(key);
        }
        if options.bare {
            command.arg("--no-extensions");
        }
        let mut child = command.spawn().expect("python3 was found a moment ago");
        let orders = child.stdin.take().expect("asked for above");
        let answers = BufReader::new(child.stdout.take().expect("asked for above"));
        let mut sink = Self { folder, child, orders, answers, port: 0 };
        let ready = sink.answer();
        sink.port = ready["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("sink.py prints its port");
        sink
    }

    /// Does something other than take the message. The top of peers/sink.py lists the acts and
    /// stages.
    pub(crate) fn rule(&mut self, stage: &str, act: &Value, key: Option<&str>, times: Option<u32>) {
        self.ask(&json!({"do": "rule", "stage": stage, "act": act, "key": key, "times": times}));
    }

    /// Behaves again.
    pub(crate) fn clear(&mut self) {
        self.ask(&json!({"do": "clear"}));
    }

    /// Refuses connections.
    pub(crate) fn down(&mut self) {
        self.ask(&json!({"do": "down"}));
    }

    /// Takes connections again.
    pub(crate) fn up(&mut self) {
        self.ask(&json!({"do": "up"}));
    }

    /// Waits until `count` messages that contain the token have been taken, and returns all that
    /// have been.
    pub(crate) fn wait(&mut self, token: &str, count: usize) -> Vec<Taken> {
        self.wait_within(token, count, PATIENCE)
    }

    pub(crate) fn wait_within(&mut self, token: &str, count: usize, patience: Duration) -> Vec<Taken> {
        let answer = self.ask(&json!({"do": "wait", "token": token, "count": count, "seconds": patience.as_secs()}));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        messages
            .iter()
            .map(|message| Taken {
                reverse_path: text(&message["mail"]),
                parameters: text(&message["args"]),
                recipients: message["rcpts"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|r| (text(&r[0]), text(&r[1])))
                    .collect(),
                tls: message["tls"] == true,
                file: text(&message["file"]),
                data: std::fs::read(text(&message["file"])).expect("the sink has written it"),
            })
            .collect()
    }

    /// The one message with this token; fails when none or several arrive.
    pub(crate) fn one(&mut self, token: &str) -> Taken {
        let mut messages = self.wait(token, 1);
        assert_eq!(messages.len(), 1, "messages with {token} that the next hop took; it noted {}", self.violations());
        messages.remove(0)
    }

    /// How often each match of the pattern's group has been taken, and how many messages in all.
    pub(crate) fn tally(&mut self, pattern: &str) -> Value {
        self.ask(&json!({"do": "tally", "pattern": pattern}))
    }

    /// What the relay's client did that a strict receiver may not get.
    pub(crate) fn violations(&mut self) -> Value {
        self.ask(&json!({"do": "violations"}))["violations"].clone()
    }

    /// Every connection with its log.
    pub(crate) fn connections(&mut self) -> Vec<Value> {
        self.ask(&json!({"do": "connections"}))["connections"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.orders, "{question}").expect("the sink runs until we drop it");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the sink prints text");
        super::json(&line)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
