//! A relay with too little of something refuses in its own words, goes on by itself, and loses
//! nothing that it has acknowledged.

mod support;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;

use support::relay::{Config, Relay};
use support::sink::Sink;
use support::{PATIENCE, data, token, tool, wait_for};

const MIB: u64 = 1 << 20;
/// Little memory.
const LITTLE: u64 = 64 * MIB;
/// The words of the overload ladder.
const BUSY: [&str; 2] = ["452 4.3.1 Overloaded, try again later", "421 4.3.2 Overloaded, try again later"];

/// What clients were told in place of 250, and how often. What was acknowledged.
#[derive(Debug, Default)]
struct Told {
    refusals: BTreeMap<String, usize>,
    acknowledged: Vec<String>,
}

/// A connection whose other end may close at any time.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The last line of the next reply. Empty: the relay has closed.
    fn reply(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 || line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// Sends these texts, each after the reply to the one before. Returns the first reply that is
    /// no success, or the last one.
    fn talk(&mut self, texts: &[&str]) -> io::Result<String> {
        let mut said = self.reply()?;
        for text in texts {
            if !said.starts_with(['2', '3']) {
                break;
            }
            self.say(text)?;
            said = self.reply()?;
        }
        Ok(said)
    }
}

/// A message from a connection of its own.
fn send(port: u16, told: &Mutex<Told>) {
    let token = token();
    let (mail, rcpt) =
        (format!("MAIL FROM:<snd-{token}@sender.test>\r\n"), format!("RCPT TO:<rcp-{token}@dest.test>\r\n"));
    let texts = ["EHLO client.test\r\n", &mail, &rcpt, "DATA\r\n", &data(&token)];
    let said = Client::connect(port).and_then(|mut client| client.talk(&texts)).unwrap_or_default();
    let mut told = told.lock().expect("no panic");
    if said.starts_with("250") {
        told.acknowledged.push(token);
    } else {
        *told.refusals.entry(said).or_default() += 1;
    }
}

/// Goes on with the configuration, whose last table is `[limits]`.
fn configure(relay: &Relay, lines: &str) {
    let file = OpenOptions::new().append(true).open(relay.config());
    let written = file.and_then(|mut file| writeln!(file, "{lines}"));
    written.expect("the folder is ours");
}

/// Each refusal is for now, and says that the system is short of something.
fn assert_words(told: &Told) {
    let refused = |said: &str| ["421 4.3.2 ", "452 4.3.1 ", "451 4.3.2 "].iter().any(|words| said.starts_with(words));
    let others: Vec<_> = told.refusals.keys().filter(|said| !said.is_empty() && !refused(said)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// The relay takes mail again, and everything that it has acknowledged arrives.
fn assert_recovers(relay: &Relay, sink: &mut Sink, told: &Mutex<Told>) {
    let taken = || told.lock().expect("no panic").acknowledged.len();
    let before = taken();
    wait_for("mail is taken again", PATIENCE, || {
        send(relay.port, told);
        (taken() > before).then_some(())
    });
    for token in &told.lock().expect("no panic").acknowledged {
        assert!(!sink.wait(token, 1).is_empty(), "{token} was acknowledged and has not arrived");
    }
    relay.wait_queued(0);
}

#[test]
fn sixty_four_descriptors_serve_few_clients_and_lose_nothing() {
    let mut sink = Sink::start();
    let mut relay = Relay::prepare(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut limited = tool("prlimit");
    limited.args(["--nofile=64:64", env!("CARGO_BIN_EXE_relay")]);
    relay.start_with(limited);
    let told = Mutex::new(Told::default());
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| (0..10).for_each(|_| send(relay.port, &told)));
        }
    });
    let seen = told.lock().expect("no panic");
    println!("{} acknowledged, refused: {:?}", seen.acknowledged.len(), seen.refusals);
    assert_words(&seen);
    assert!(!seen.refusals.is_empty(), "40 clients are too many");
    drop(seen);
    assert_recovers(&relay, &mut sink, &told);
}

/// Strangers with envelopes as large as they may be, more than a third of the memory is enough for.
#[test]
fn little_memory_bounds_what_strangers_take_of_it_and_is_enough_again_after_them() {
    let mut sink = Sink::start();
    let mut relay = Relay::prepare(&Config { next_hops: vec![sink.port], ..Config::default() });
    configure(&relay, &format!("connections_per_network = 1000\n[overload]\nmemory_limit = {LITTLE}\nmemory = 30"));
    relay.start_again();
    let told = Mutex::new(Told::default());
    send(relay.port, &told);
    assert_eq!(told.lock().expect("no panic").acknowledged.len(), 1);
    let rcpt =
        |n| format!("RCPT TO:<{n:08}{}@dest.test> ORCPT=rfc822;{}@dest.test\r\n", "l".repeat(55), "o".repeat(480));
    let recipients: String = (0..100).map(rcpt).collect();
    let refused = |said| *told.lock().expect("no panic").refusals.entry(said).or_default() += 1;
    let open = || -> io::Result<Client> {
        let mut client = Client::connect(relay.port)?;
        let said = client.talk(&["EHLO c.test\r\n", "MAIL FROM:<a@sender.test>\r\n"])?;
        if said.starts_with('2') {
            client.say(&recipients)?;
        } else {
            refused(said);
        }
        Ok(client)
    };
    let open_some = || (0..30).filter_map(|_| open().ok()).collect::<Vec<_>>();
    let held: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(open_some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    // From this rung on no new sender may send.
    wait_for("the ladder is climbed", PATIENCE, || (relay.status().get("overload_rung") >= Some(&3)).then_some(()));
    let late = Client::connect(relay.port).and_then(|mut client| client.talk(&["EHLO c.test\r\n", "MAIL FROM:<>\r\n"]));
    let late = late.expect("the relay answers");
    assert!(BUSY.contains(&&*late), "{late}\n{}", relay.status_text());
    let most = relay.memory("RssAnon");
    let seen = told.lock().expect("no panic");
    println!("{} MiB, {} clients held, refused {:?}\n{}", most / MIB, held.len(), seen.refusals, relay.status_text());
    assert_words(&seen);
    assert!(most <= LITTLE / 2, "{} MiB of {} MiB", most / MIB, LITTLE / MIB);
    drop(seen);
    drop(held);
    assert_recovers(&relay, &mut sink, &told);
    wait_for("the relay is calm", PATIENCE, || relay.status_text().contains("\noverload calm\n").then_some(()));
}

/// The system gives the relay no more than this: if it asked for more, it would be ended.
#[test]
fn a_hard_memory_limit_ends_no_relay_and_costs_no_message() {
    const LIMIT: u64 = 128 * MIB;
    let mut sink = Sink::start();
    let mut relay = Relay::prepare(&Config { next_hops: vec![sink.port], ..Config::default() });
    configure(&relay, "connections_per_network = 1000");
    let mut limited = tool("prlimit");
    limited.arg(format!("--data={LIMIT}:{LIMIT}")).arg(env!("CARGO_BIN_EXE_relay"));
    relay.start_with(limited);
    let told = Mutex::new(Told::default());
    // Envelopes as large as they may be are held, while others send.
    let rcpt = |n| format!("RCPT TO:<{n:08}{}@dest.test>\r\n", "l".repeat(55));
    let recipients: String = (0..400).map(rcpt).collect();
    let hold = || -> io::Result<Client> {
        let mut client = Client::connect(relay.port)?;
        client.talk(&["EHLO c.test\r\n", "MAIL FROM:<a@sender.test>\r\n"])?;
        client.say(&recipients)?;
        Ok(client)
    };
    let held: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..20).map(|_| scope.spawn(|| (0..15).filter_map(|_| hold().ok()).collect::<Vec<_>>())).collect();
        (0..20).for_each(|_| _ = scope.spawn(|| (0..10).for_each(|_| send(relay.port, &told))));
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let seen = told.lock().expect("no panic");
    println!("{} held, {} acknowledged, refused: {:?}", held.len(), seen.acknowledged.len(), seen.refusals);
    assert_words(&seen);
    assert!(relay.memory("VmData") <= LIMIT, "{} octets", relay.memory("VmData"));
    drop(seen);
    drop(held);
    assert_recovers(&relay, &mut sink, &told);
    assert_eq!(relay.stop().code(), Some(0));
}

/// A tenth of 32 MiB is less than a relay has that knows these names.
#[test]
fn a_relay_that_is_overloaded_by_its_own_base_refuses_all_mail_and_says_why() {
    let mut relay = Relay::prepare(&Config { next_hops: vec![9], ..Config::default() });
    // Some MiB of names: how much a relay has that does nothing depends on how it is built.
    let names: Vec<_> = (0..40_000).map(|number| format!("\"host{number}.refused.test\"")).collect();
    let names = names.join(", ");
    configure(&relay, &format!("[overload]\nmemory_limit = 33554432\nmemory = 10\n[refuse]\nhello = [{names}]"));
    relay.start_again();
    wait_for("the ladder is climbed", PATIENCE, || (relay.status().get("overload_rung") >= Some(&4)).then_some(()));
    let status = relay.status_text();
    assert!(status.contains("\noverload ") && status.contains(", memory "), "{status}");
    let refused = Client::connect(relay.port)
        .and_then(|mut client| client.talk(&["EHLO c.test\r\n", "MAIL FROM:<a@sender.test>\r\n"]));
    let refused = refused.expect("the relay answers");
    assert!(BUSY.contains(&&*refused), "{refused}");
    assert!(relay.log().contains("overload grown, less mail taken"), "{}", relay.log());
}

#[test]
fn the_check_tells_that_this_machine_has_little_memory() {
    let relay = Relay::prepare(&Config { next_hops: vec![9], ..Config::default() });
    configure(&relay, "[overload]\nmemory_limit = 67108864");
    let said = support::run(support::relay::program().args(["check", "--config"]).arg(relay.config()));
    let little = "This machine: 64 MiB of memory are allowed, and a thousand clients at their limits take 256 MiB; the relay serves 341 clients at most, ";
    assert!(said.contains(little), "{said}");
}

#[test]
fn the_check_tells_to_which_numbers_few_descriptors_lead() {
    let relay = Relay::prepare(&Config { next_hops: vec![9], ..Config::default() });
    let check = |limit: u32| {
        let mut program = tool("prlimit");
        program.arg(format!("--nofile={limit}:{limit}")).arg(env!("CARGO_BIN_EXE_relay"));
        let said = program.args(["check", "--config"]).arg(relay.config()).output().expect("cargo built the relay");
        assert!(said.status.success(), "{said:?}");
        [said.stderr, said.stdout].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let needed = "limits.connections 1000 and delivery.concurrency 200 need 5549 descriptors";
    for (limit, numbers) in [(1_024, "256 and 16"), (64, "1 and 1")] {
        let [warning, said] = check(limit);
        let expected = format!("{needed}, and here {limit} are allowed, for {numbers}; allow more");
        assert!(warning.contains(&expected), "{warning}");
        assert!(said.contains("no mistake found"), "{said}");
    }
    let [warning, _] = check(5_549);
    assert!(!warning.contains("descriptors"), "{warning}");
}

/// The stacks of threads count for this limit, so there is not even room for them.
#[test]
fn a_limit_of_data_below_what_the_threads_need_is_told_and_nothing_starts() {
    let relay = Relay::prepare(&Config { next_hops: vec![9], ..Config::default() });
    let run = |command: &str| {
        let mut program = tool("prlimit");
        program.arg(format!("--data={LITTLE}:{LITTLE}")).arg(env!("CARGO_BIN_EXE_relay"));
        let said = program.args([command, "--config"]).arg(relay.config()).output().expect("cargo built the relay");
        (said.status.code(), [said.stderr, said.stdout].map(|text| String::from_utf8_lossy(&text).into_owned()))
    };
    let expected = "64 MiB of data are allowed (ulimit -d), and the stacks of the relay's threads are data, used or not; \
                    allow ";
    let (code, [errors, _]) = run("serve");
    assert!(code == Some(1) && errors.contains(expected), "{code:?}: {errors}");
    let (code, [_, said]) = run("check");
    assert!(code == Some(0) && said.contains(expected), "{code:?}: {said}");
}

#[test]
fn a_relay_does_not_start_with_a_limit_under_which_it_would_take_no_mail() {
    let relay = Relay::prepare(&Config { next_hops: vec![9], ..Config::default() });
    for (limit, words) in [
        ("--data=52428800:52428800", "50 MiB of data are allowed (ulimit -d)"),
        ("--data=100663296:100663296", "96 MiB of data are allowed (ulimit -d)"),
        ("--as=314572800:314572800", "300 MiB of addresses are allowed (ulimit -v)"),
        ("--nofile=16:16", "16 open files are allowed"),
    ] {
        let mut program = tool("prlimit");
        program.args([limit, env!("CARGO_BIN_EXE_relay"), "serve", "--config"]).arg(relay.config());
        let said = program.output().expect("cargo built the relay");
        let errors = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code() == Some(1) && errors.contains(words), "{limit}: {said:?}");
    }
}
