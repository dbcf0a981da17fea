//! Clients on threads without a runtime, against servers on threads with one.

use std::io::Cursor;

use posthaste_client::{
    ClientError, ConnectError, HttpConnect, PoolOptions, SendError, Text, Tls,
    blocking::{Client, Pool, Reader},
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
