//! The size of a message costs disk, not memory.

mod support;

use support::client::Smtp;
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::token;

const MIB: u64 = 1 << 20;

#[test]
fn a_hundred_mebibytes_pass_through_in_little_memory() {
    let mut sink = Sink::start();
    sink.rule("ehlo", &serde_json::json!(["ext", ["PIPELINING", "8BITMIME", "SIZE 300000000"]]), None, None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], message_size: 200 * MIB, ..Config::default() });
    // A small message first: the relay then has all that it makes once.
    support::client::submit(relay.port, &token());
    relay.wait_queued(0);
    let idle = relay.memory("VmHWM");

    let token = token();
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n";
    let block = line.repeat(16_384);
    assert_eq!(block.len() as u64, MIB);
    let mut client = Smtp::ehlo(relay.port);
    client.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@dest.test"));
    client.send(format!("Subject: {token}\r\n\r\n"));
    for _ in 0..100 {
        client.send(&block);
    }
    client.send(".\r\n");
    assert_eq!(client.reply().code, 250, "{}", client.log());
    let taken = sink.one(&token);
    relay.wait_queued(0);
    let peak = relay.memory("VmHWM");
    println!("idle {} KiB, at most {} KiB with 100 MiB under way", idle / 1024, peak / 1024);

    let body = taken.data.windows(4).position(|octets| octets == b"\r\n\r\n").map(|at| &taken.data[at + 4..]);
    let body = body.expect("the header ends somewhere");
    assert_eq!(body.len() as u64, 100 * MIB);
    assert!(body.chunks(block.len()).all(|chunk| chunk == block.as_bytes()), "every octet of it");
    assert!(peak < idle + 64 * MIB, "{} MiB above idle", (peak - idle) / MIB);
}

#[test]
fn a_message_above_the_limit_is_refused_and_the_session_goes_on() {
    let sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], message_size: MIB, ..Config::default() });
    let idle = relay.memory("VmHWM");
    let mut client = Smtp::ehlo(relay.port);
    client.open("a@sender.test", "b@dest.test");
    let block = "x".repeat(998) + "\r\n";
    let block = block.repeat(64);
    for _ in 0..320 {
        client.send(&block);
    }
    client.send(".\r\n");
    let reply = client.reply();
    assert_eq!(reply.code, 552, "{}", client.log());
    client.expect("NOOP", 250);
    let peak = relay.memory("VmHWM");
    assert!(peak < idle + 16 * MIB, "20 MiB of refused content took {} MiB", (peak - idle) / MIB);
}
