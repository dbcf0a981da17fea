//! The way through a SOCKS5 proxy.

use posthaste_client::{Client, ProxyError, Socks5, Tls};
use posthaste_testkit::script::Scripted;

use crate::support::{
    options,
    proxies::{SmallProxy, silent},
};

const TEXT: &str = "Subject: hello\r\n\r\nHello!\r\n";
const OK: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 0, 25];

fn to(proxy: &SmallProxy) -> Socks5 {
    Socks5::new(("127.0.0.1", proxy.port)).unwrap()
}

#[tokio::test]
async fn the_proxy_gets_the_name_or_the_address_and_the_greeting_is_read() {
    let server = Scripted::polite().await;
    for (endpoint, request) in [
        ("no-such-host.invalid:25", &b"\x05\x01\0\x05\x01\0\x03\x14no-such-host.invalid\0\x19"[..]),
        ("192.0.2.1:587", b"\x05\x01\0\x05\x01\0\x01\xc0\0\x02\x01\x02\x4b"),
        ("[2001:db8::1]:25", b"\x05\x01\0\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x19"),
    ] {
        for answer in [OK, b"\x05\0\0\x03\x03mx.\0\x19", b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x19"] {
            let proxy = SmallProxy::socks5(0, 0, answer, server.port).await;
            let mut client = Client::connect_by(&to(&proxy), endpoint, &options(Tls::Off)).await.unwrap();
            assert!(client.send("me@s.test", ["you@d.test"], TEXT).await.unwrap().is_complete());
            assert_eq!(proxy.asked(), [request]);
        }
    }
}

#[tokio::test]
async fn a_login_is_sent_to_a_proxy_that_asks_for_it() {
    let server = Scripted::polite().await;
    let proxy = SmallProxy::socks5(2, 0, OK, server.port).await;
    let dial = to(&proxy).with_login("me", "secret").unwrap();
    Client::connect_by(&dial, "mx.test:25", &options(Tls::Off)).await.unwrap();
    assert_eq!(proxy.asked(), [b"\x05\x02\0\x02\x01\x02me\x06secret\x05\x01\0\x03\x07mx.test\0\x19"]);
    assert!(!format!("{dial:?}").contains("secret"), "{dial:?}");
    let longest = "x".repeat(255);
    let dial = to(&proxy).with_login(&longest, &longest).unwrap();
    Client::connect_by(&dial, (longest.as_str(), 25), &options(Tls::Off)).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_opens_nothing_is_an_error_that_says_what_to_do() {
    for (method, login, answer, words, is_servers) in [
        (0xff, 0, &b""[..], "demands a login; give a user name and a password", false),
        (2, 0, b"", "demands a login", false),
        (9, 0, b"", "answered as no SOCKS5 proxy does; see that it is one", false),
        (0, 0, b"\x05\x01\0\x01\0\0\0\0\0\0", "did not reach the server: General", true),
        (0, 0, b"\x05\x02\0\x01\0\0\0\0\0\0", "refused: Connection not allowed by ruleset; see that its rules", false),
        (0, 0, b"\x05\x03\0\x01\0\0\0\0\0\0", "did not reach the server: Network unreachable", true),
        (0, 0, b"\x05\x04\0\x01\0\0\0\0\0\0", "did not reach the server: Host unreachable", true),
        (0, 0, b"\x05\x05\0\x01\0\0\0\0\0\0", "did not reach the server: Connection refused", true),
        (0, 0, b"\x05\x06\0\x01\0\0\0\0\0\0", "did not reach the server: TTL expired", true),
        (0, 0, b"\x05\x08\0\x01\0\0\0\0\0\0", "refused: Address type not supported", false),
        (0, 0, b"\x05\x77\0\x01\0\0\0\0\0\0", "answered as no SOCKS5 proxy does", false),
        (0, 0, b"\x04\0\0\x01\0\0\0\0\0\0", "answered as no SOCKS5 proxy does", false),
        (0, 0, b"\x05\0\0\x07\0\0\0\0\0\0", "answered as no SOCKS5 proxy does", false),
        (0, 0, b"\x05\0\0\x03\x02\xff\xfe\0\x19", "answered as no SOCKS5 proxy does", false),
    ] {
        let proxy = SmallProxy::socks5(method, login, answer, 0).await;
        let options = options(Tls::Off);
        let error = Client::connect_by(&to(&proxy), "mx.test:25", &options).await.unwrap_err();
        assert!(error.to_string().contains(words) && error.is_transient(), "{error}");
        assert_eq!(!options.health.servers().is_empty(), is_servers, "{error}");
    }
    for (method, login) in [(2, 1), (0xff, 0)] {
        let proxy = SmallProxy::socks5(method, login, b"", 0).await;
        let dial = to(&proxy).with_login("me", "wrong").unwrap();
        let error = Client::connect_by(&dial, "mx.test:25", &options(Tls::Off)).await.unwrap_err().to_string();
        assert!(error.contains("refused the login; see that") && !error.contains("wrong"), "{error}");
    }
}

#[tokio::test]
async fn a_text_that_cannot_work_is_an_error_before_the_proxy_hears_of_it() {
    let server = Scripted::polite().await;
    let proxy = SmallProxy::socks5(2, 0, OK, server.port).await;
    let long = "x".repeat(256);
    for evil in ["", "a\r\nb", "a\0", "d\u{f6}ner", long.as_str()] {
        for (field, user, password) in [("user name", evil, "x"), ("password", "x", evil)] {
            let error = to(&proxy).with_login(user, password).unwrap_err();
            assert!(matches!(&error, ProxyError::Text { field: found, .. } if *found == field), "{error:?}");
        }
        if cfg!(feature = "idna") && evil.contains('\u{f6}') {
            continue;
        }
        let error = Client::connect_by(&to(&proxy), (evil, 25), &options(Tls::Off)).await.unwrap_err();
        assert!(error.to_string().contains("the server's name ") && error.is_permanent(), "{error}");
    }
    let error = Client::connect_by(&to(&proxy), "unix:/run/lmtp", &options(Tls::Off)).await.unwrap_err();
    assert!(error.to_string().contains("is the path of a Unix socket; "), "{error}");
    let error = Socks5::new("proxy.test:socks").unwrap_err().to_string();
    assert!(error.starts_with("the proxy \"proxy.test:socks\" has no port from 1 to 65535; "), "{error}");
    assert!(proxy.asked().is_empty() && server.heard.all().is_empty(), "{:?}", proxy.asked());
}

#[tokio::test]
async fn a_proxy_that_is_silent_is_an_error_in_time() {
    // Before its first answer, and after it.
    let unheard = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = unheard.local_addr().unwrap().port();
    silent(&Socks5::new(("127.0.0.1", port)).unwrap(), port).await;
    let proxy = SmallProxy::socks5(0, 0, b"\x05\0", 0).await;
    silent(&to(&proxy), proxy.port).await;
}
