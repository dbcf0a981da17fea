//! Messages of real clients go through the relay and arrive octet for octet, after its trace
//! fields.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use serde_json::json;
use support::client::Smtp;
use support::relay::{Config, Relay, program};
use support::sink::{Sink, SinkOptions};
use support::{PATIENCE, assert_same_message, corpus, free_port, json, python, run, token, tool, wait_for};

/// The messages that go without saying: 7 bit, so that a client need declare nothing.
fn seven_bit_corpus() -> Vec<(String, std::path::PathBuf, Vec<u8>)> {
    corpus().into_iter().filter(|(_, _, octets)| octets.is_ascii()).collect()
}

#[test]
fn smtplib_messages_arrive_octet_for_octet() {
    let mut sink = Sink::with(SinkOptions { tls: true, ..SinkOptions::default() });
    let relay = Relay::start(&Config { next_hops: vec![sink.port], route_tls: "opportunistic", ..Config::default() });
    let offered = Smtp::connect(relay.port).expect("EHLO client.test", 250).text;
    for (name, file, octets) in corpus() {
        let token = token();
        let wanted =
            [("8BITMIME", "BODY=8BITMIME", !octets.is_ascii()), ("SMTPUTF8", "SMTPUTF8", name.starts_with("eai"))];
        // What is not offered cannot be declared; the octets have to arrive all the same.
        let options: Vec<&str> = wanted
            .into_iter()
            .filter(|(keyword, _, needed)| *needed && offered.contains(keyword))
            .map(|(_, option, _)| option)
            .collect();
        let order = json!({"port": relay.port, "from": format!("snd-{token}@sender.test"), "to": [format!("rcp-{token}@dest.test")],
            "file": file, "mail_options": options});
        send_py(&order);
        let taken = sink.one(&token);
        assert_same_message(&name, &taken.data, &octets);
        assert_eq!(taken.reverse_path, format!("snd-{token}@sender.test"), "{name}");
        assert_eq!(taken.recipients[0].0, format!("rcp-{token}@dest.test"), "{name}");
        assert!(taken.tls, "{name}: the next hop offers STARTTLS and the route is opportunistic");
        for option in options {
            assert!(
                taken.parameters.to_ascii_uppercase().contains(option),
                "{name}: {option} is not among {:?}",
                taken.parameters
            );
        }
    }
    assert_eq!(sink.violations(), json!([]));
}

#[test]
fn swaks_messages_arrive_octet_for_octet() {
    let mut sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    for (name, _, octets) in seven_bit_corpus() {
        let token = token();
        // With --no-data-fixup swaks sends the file as it is, so the file has stuffed dots and the
        // final dot.
        let file = relay.folder().join(format!("{name}.data"));
        fs::write(&file, stuffed(&octets)).expect("the folder is ours");
        let mut swaks = tool("swaks");
        swaks.args([
            "--silent",
            "2",
            "--server",
            "127.0.0.1",
            "--port",
            &relay.port.to_string(),
            "--helo",
            "swaks.test",
        ]);
        swaks.args(["--from", &format!("snd-{token}@sender.test"), "--to", &format!("rcp-{token}@dest.test")]);
        swaks.args(["--no-data-fixup", "--data", &format!("@{}", file.display())]);
        run(&mut swaks);
        assert_same_message(&name, &sink.one(&token).data, &octets);
    }
    assert_eq!(sink.violations(), json!([]));
}

#[test]
fn curl_messages_arrive_octet_for_octet() {
    let mut sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    for (name, file, octets) in seven_bit_corpus() {
        let token = token();
        let mut curl = tool("curl");
        curl.args(["--silent", "--show-error", "--url", &format!("smtp://127.0.0.1:{}/curl.test", relay.port)]);
        curl.args([
            "--mail-from",
            &format!("snd-{token}@sender.test"),
            "--mail-rcpt",
            &format!("rcp-{token}@dest.test"),
        ]);
        curl.arg("--upload-file").arg(file);
        run(&mut curl);
        assert_same_message(&name, &sink.one(&token).data, &octets);
    }
    assert_eq!(sink.violations(), json!([]));
}

#[test]
fn a_next_hop_without_extensions_gets_helo_and_plain_data() {
    let mut sink = Sink::with(SinkOptions { bare: true, ..SinkOptions::default() });
    sink.rule("ehlo", &json!(["reply", "502 5.5.1 only HELO here"]), None, None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let token = token();
    support::client::submit(relay.port, &token);
    let taken = sink.one(&token);
    assert_eq!(taken.parameters, "", "no parameter may be sent to a server that offers nothing");
    assert_eq!(sink.violations(), json!([]));
}

#[test]
fn smtp_source_messages_reach_smtp_sink() {
    const MESSAGES: usize = 200;
    let message =
        "From: <a@sender.test>\nTo: <b@dest.test>\nSubject: from smtp-source\n\n.a dot first\n..two\nand the end\n";
    let dumps = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(dumps.path(), fs::Permissions::from_mode(0o777)).expect("the folder is ours");
    let port = free_port();
    let _sink = Running::smtp_sink(dumps.path(), port);
    let relay = Relay::start(&Config { next_hops: vec![port], ..Config::default() });
    let file = relay.folder().join("message");
    fs::write(&file, message).expect("the folder is ours");
    let mut source = tool("smtp-source");
    source.args(["-s", "5", "-m", &MESSAGES.to_string(), "-f", "a@sender.test", "-t", "b@dest.test", "-F"]).arg(file);
    run(source.arg(format!("127.0.0.1:{}", relay.port)));

    let arrived = wait_for("smtp-sink has taken all messages", PATIENCE, || {
        let dumped: Vec<String> =
            fs::read_dir(dumps.path()).ok()?.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect();
        // smtp-sink ends a dump with an empty line of its own.
        (dumped.len() >= MESSAGES && dumped.iter().all(|dump| dump.ends_with("\n\n"))).then_some(dumped)
    });
    assert_eq!(arrived.len(), MESSAGES, "no message arrives twice when nothing fails");
    for dump in arrived {
        assert_eq!(
            dump.matches("\nX-Rcpt-Args: <b@dest.test>").count() + usize::from(dump.starts_with("X-Rcpt-Args")),
            1,
            "{dump}"
        );
        let (_, content) = dump.split_once("\nFrom: ").expect("the message begins with From");
        assert_eq!(format!("From: {}\n", content.trim_end()), message);
    }
    relay.wait_queued(0);
}

#[test]
fn the_demo_succeeds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let output = support::relay::output_file(&log);
    let errors = output.try_clone().expect("a file can be opened twice");
    let child = program().arg("demo").current_dir(folder.path()).stdout(output).stderr(errors).spawn();
    let mut demo = Running(child.expect("cargo built the relay"));
    let status = wait_for("the demo ends", PATIENCE, || demo.0.try_wait().expect("the child is ours"));
    let said = fs::read_to_string(log).unwrap_or_default();
    assert!(status.success(), "{status}: {said}");
    let failover = said.lines().find(|line| line.starts_with("failover")).expect("the primary was killed");
    assert!(failover.ends_with("ms from the primary's death to the next message at the secondary"), "{failover}");
    assert!(said.contains("\nlost               0\n"), "{said}");
}

fn send_py(order: &serde_json::Value) {
    use std::io::Write;
    let mut child =
        python("peers/send.py").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 was found");
    write!(child.stdin.take().expect("asked for above"), "{order}").expect("send.py reads it");
    let output = child.wait_with_output().expect("the child is ours");
    let answer = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(answer["refused"], json!({}), "{order}: {answer}");
}

fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets.extend_from_slice(b".\r\n");
    octets
}

/// A process that ends with its value.
struct Running(Child);

impl Running {
    fn smtp_sink(dumps: &std::path::Path, port: u16) -> Self {
        let mut command = tool("smtp-sink");
        // As root it needs another user to become.
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args(["-d", "message."]).arg(format!("127.0.0.1:{port}")).arg("100").current_dir(dumps);
        let sink = Self(command.spawn().expect("was found"));
        wait_for("smtp-sink listens", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        sink
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
