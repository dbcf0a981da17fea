//! Clients on threads without a runtime, against servers on threads with one.

use std::io::Cursor;

use posthaste_client::{
    ClientError, ConnectError, HttpConnect, Message, MxOptions, PoolOptions, SendError, SystemResolver, Tcp, Text, Tls,
    blocking::{Client, Mx, Pool, Reader},
};
use posthaste_testkit::script::{Scripted, polite};
use tokio::runtime::Runtime;

use crate::support::{options, proxies::SmallProxy};

const CONTENT: &str = "Subject: x\r\n\r\nbody\r\n";

#[test]
fn a_client_sends_without_a_runtime() {
    let server = Runtime::new().unwrap();
    let hop = server.block_on(Scripted::start(|_, line| polite(line, &["CHUNKING"])));
    let mut client = Client::connect(("127.0.0.1", hop.port), &options(Tls::Off)).unwrap();
    for length in [0, 1, 70_000, 200_000] {
        let lines = "abc\n".repeat(length / 4 + 1);
        let content = Text::new(Reader::new(Cursor::new(lines)));
        assert!(client.send("a@b.test", ["c@d.test"], content).unwrap().is_complete(), "{length}");
    }
    client.quit();
    server.block_on(hop.wait("QUIT"));
    let octets: usize = hop.heard.lines(&["<octets>"]).iter().map(|chunk| chunk.len() - "<octets> ".len()).sum();
    assert_eq!(octets, [0, 1, 70_000, 200_000].iter().map(|length| (length / 4 + 1) * 5).sum::<usize>());
}

#[test]
fn a_client_and_a_pool_go_through_a_proxy() {
    let server = Runtime::new().unwrap();
    let hop = server.block_on(Scripted::polite());
    let proxy = server.block_on(SmallProxy::http("HTTP/1.1 200 ok\r\n\r\n", hop.port));
    let dial = HttpConnect::new(("127.0.0.1", proxy.port)).unwrap();
    let mut client = Client::connect_by(&dial, "mx.invalid:25", &options(Tls::Off)).unwrap();
    assert!(client.send("a@b.test", ["c@d.test"], CONTENT).unwrap().is_complete());
    let pool = Pool::with(["mx.invalid:25"], options(Tls::Off), PoolOptions::default(), dial).unwrap();
    assert!(pool.send("a@b.test", ["c@d.test"], CONTENT).unwrap().is_complete());
    assert_eq!(proxy.asked().len(), 2);
}

#[test]
fn a_reader_that_fails_is_the_error_and_nothing_is_sent_as_whole() {
    struct Fails;
    impl std::io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let server = Runtime::new().unwrap();
    let hop = server.block_on(Scripted::polite());
    let mut client = Client::connect(("127.0.0.1", hop.port), &options(Tls::Off)).unwrap();
    let sent = client.send("a@b.test", ["c@d.test"], Reader::new(Fails)).unwrap();
    assert!(
        matches!(sent.broken.as_deref(), Some(ClientError::Content(error)) if error.to_string() == "the disk is gone")
    );
    assert_eq!((sent.is_complete(), hop.count("<end>")), (false, 0));
}

#[test]
fn threads_share_a_pool_and_its_unused_connections_are_closed() {
    let server = Runtime::new().unwrap();
    let hop = server.block_on(Scripted::polite());
    let pool = Pool::new([("127.0.0.1", hop.port)], options(Tls::Off)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(pool.send("a@b.test", ["c@d.test"], CONTENT).unwrap().is_complete());
                }
            });
        }
    });
    assert!(hop.count("<connect>") <= 4 && hop.count("<end>") == 20);
    pool.close();
    assert_eq!(hop.count("QUIT"), hop.count("<connect>"));
}

#[test]
fn on_a_thread_of_a_runtime_it_is_an_error_with_a_remedy() {
    let runtime = Runtime::new().unwrap();
    let pool = Pool::new(["127.0.0.1:1"], options(Tls::Off)).unwrap();
    runtime.block_on(async {
        let error = Client::connect("127.0.0.1:1", &options(Tls::Off)).unwrap_err();
        assert!(matches!(error, ConnectError::Async) && error.to_string().contains("spawn_blocking"), "{error}");
        assert!(matches!(pool.send("a@b.test", ["c@d.test"], ""), Err(SendError::Connect(ConnectError::Async))));
        pool.close();
        drop(pool);
    });
}

/// These are the threads of a runtime on which one may wait.
#[test]
fn in_spawn_blocking_and_block_in_place_it_works() {
    let runtime = Runtime::new().unwrap();
    let hop = runtime.block_on(Scripted::polite());
    let pool = Pool::new([("127.0.0.1", hop.port)], options(Tls::Off)).unwrap();
    let port = hop.port;
    let send = move || {
        assert!(pool.send("a@b.test", ["c@d.test"], CONTENT).unwrap().is_complete());
        let mut client = Client::connect(("127.0.0.1", port), &options(Tls::Off)).unwrap();
        assert!(client.send("a@b.test", ["c@d.test"], CONTENT).unwrap().is_complete());
        client.quit();
    };
    let again = send.clone();
    runtime.block_on(async {
        tokio::task::spawn_blocking(send).await.unwrap();
        tokio::spawn(async { tokio::task::block_in_place(again) }).await.unwrap();
    });
    assert_eq!(hop.count("<end>"), 4);
}

fn message(to: &str) -> Message<&'static str> {
    Message::new("a@b.test", [to], CONTENT).unwrap()
}

/// One loop for each: over a connection, over a pool, and to the hosts of domains.
#[test]
fn a_batch_is_an_iterator_of_outcomes() {
    let server = Runtime::new().unwrap();
    let hop = server.block_on(Scripted::start(|_, line| match line {
        "RCPT TO:<no@[127.0.0.1]>" => "550 5.1.1 no\r\n".to_owned(),
        _ => polite(line, &["PIPELINING", "CHUNKING"]),
    }));
    let to = ["one@[127.0.0.1]", "no@[127.0.0.1]", "two@[127.0.0.1]"];
    let mut client = Client::connect(("127.0.0.1", hop.port), &options(Tls::Off)).unwrap();
    let sent: Vec<_> = client.send_all(to.map(message)).map(|(_, sent)| sent.unwrap().is_complete()).collect();
    assert_eq!(sent, [true, false, true]);
    client.quit();

    let pool = Pool::new([("127.0.0.1", hop.port)], options(Tls::Off)).unwrap();
    let mut failed = Vec::new();
    for (number, sent) in pool.send_all(to.map(message)) {
        failed.extend(sent.unwrap().failed().map(|recipient| (number, recipient.to_string())));
    }
    assert_eq!(failed, [(1, "<no@[127.0.0.1]>: 550 5.1.1 no".to_owned())]);
    pool.close();

    let mut limits = MxOptions::default();
    (limits.port, limits.allow_private) = (hop.port, true);
    let mx = Mx::with(SystemResolver, options(Tls::Off), limits, Tcp::default()).unwrap();
    let failed = mx
        .send_all(to.map(message))
        .flat_map(|(number, sent)| sent.unwrap().failed().map(|_| number).collect::<Vec<_>>());
    assert_eq!(failed.collect::<Vec<_>>(), [1]);
    assert!(mx.send("a@b.test", ["c@[127.0.0.1]"], CONTENT).unwrap().is_complete());
    mx.clone().close();
    assert_eq!(hop.count("MAIL"), 10);
    assert_eq!(hop.count("QUIT"), hop.count("<connect>"));
}

#[test]
fn a_batch_in_a_task_ends_with_an_error() {
    let runtime = Runtime::new().unwrap();
    let hop = runtime.block_on(Scripted::polite());
    let mut client = Client::connect(("127.0.0.1", hop.port), &options(Tls::Off)).unwrap();
    let pool = Pool::new([("127.0.0.1", hop.port)], options(Tls::Off)).unwrap();
    let is_async = |error: SendError| matches!(error, SendError::Connect(ConnectError::Async));
    runtime.block_on(async {
        let to = ["a@d.test", "b@d.test"];
        let found: Vec<_> = client.send_all(to.map(message)).map(|(_, sent)| is_async(sent.unwrap_err())).collect();
        assert_eq!(found, [true]);
        let found: Vec<_> = pool.send_all(to.map(message)).map(|(_, sent)| is_async(sent.unwrap_err())).collect();
        assert_eq!(found, [true]);
    });
    assert_eq!(hop.count("MAIL"), 0);
}
