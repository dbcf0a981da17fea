//! The way through an HTTP proxy.

use posthaste_client::{Client, ConnectError, HttpConnect, Pool, PoolOptions, ProxyError, Server, Tls};
use posthaste_testkit::{
    pki::tls,
    script::{Scripted, polite},
};

use crate::support::{
    Policy, options,
    proxies::{SmallProxy, silent},
};

const TEXT: &str = "Subject: hello\r\n\r\nHello!\r\n";
const OK: &str = "HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy.test\r\n\r\n";

fn to(proxy: &SmallProxy) -> HttpConnect {
    HttpConnect::new(("127.0.0.1", proxy.port)).unwrap()
}

#[tokio::test]
async fn the_proxy_gets_the_name_and_the_greeting_that_follows_its_answer_is_read() {
    let server = Scripted::polite().await;
    let answers = [
        OK.to_owned(),
        "HTTP/1.0 200\r\n\r\n".to_owned(),
        "HTTP/1.1 299 fine\n\n".to_owned(),
        format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"),
        format!("HTTP/1.1 200 ok\r\nX: {}\r\n\r\n", "x".repeat(16_000)),
        // No content follows this answer, whatever it says.
        "HTTP/1.1 200 ok\r\nContent-Length: 5\r\n\r\n".to_owned(),
    ];
    for answer in answers {
        let proxy = SmallProxy::http(answer, server.port).await;
        let mut client = Client::connect_by(&to(&proxy), "no-such-host.invalid:25", &options(Tls::Off)).await.unwrap();
        assert_eq!(client.server().unwrap().server, Server::Name("no-such-host.invalid".into(), 25));
        assert!(client.send("me@s.test", ["you@d.test"], TEXT).await.unwrap().is_complete());
        assert_eq!(
            proxy.asked_text(),
            ["CONNECT no-such-host.invalid:25 HTTP/1.1\r\nHost: no-such-host.invalid:25\r\n\r\n"]
        );
    }
}

#[tokio::test]
async fn a_pool_goes_through_a_proxy_with_a_login() {
    let server = Scripted::polite().await;
    let proxy = SmallProxy::http(OK, server.port).await;
    let dial = to(&proxy).with_login("Aladdin", "open sesame").unwrap();
    let pool = Pool::with(["192.0.2.1:25"], options(Tls::Off), PoolOptions::default(), dial).unwrap();
    for _ in 0..2 {
        assert!(pool.send("me@s.test", ["you@d.test"], TEXT).await.unwrap().is_complete());
    }
    assert_eq!(
        proxy.asked_text(),
        ["CONNECT 192.0.2.1:25 HTTP/1.1\r\nHost: 192.0.2.1:25\r\n\
          Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"]
    );
}

#[tokio::test]
async fn tls_is_with_the_server_behind_the_proxy() {
    let (theirs, ours) = tls("mx.test");
    let server = Scripted::with_tls(theirs, |_, line| polite(line, &["STARTTLS"])).await;
    let proxy = SmallProxy::http(OK, server.port).await;
    let options = options(Policy::Verified.tls(ours));
    assert!(Client::connect_by(&to(&proxy), "mx.test:25", &options).await.unwrap().is_tls());
    let error = Client::connect_by(&to(&proxy), "other.test:25", &options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(_)), "{error}");
}

#[tokio::test]
async fn an_answer_that_opens_nothing_is_an_error_that_says_what_to_do() {
    let long = format!("HTTP/1.1 200 ok\r\nX: {}\r\n\r\n", "x".repeat(16 * 1_024));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
    for (answer, words, is_servers) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "refused: 403 Forbidden; see that its rules allow", false),
        ("HTTP/1.1 405 Method\x07\r\n\r\n", "refused: 405 Method\\u{7}; ", false),
        ("HTTP/1.1 301 Moved\r\nLocation: http://other.test/\r\n\r\n", "refused: 301 Moved", false),
        ("HTTP/1.1 407 Who\r\n\r\n", "demands a login; give a user name and a password", false),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "did not reach the server: 502 Bad Gateway", true),
        ("HTTP/1.1 503 Unavailable\r\n\r\n", "did not reach the server: 503", true),
        ("HTTP/1.1 504 Time-out\r\n\r\n", "did not reach the server: 504", true),
        ("HTTP/1.1 500 Unable to connect\r\n\r\n", "did not reach the server: 500", true),
        ("220 mx.test ESMTP\r\n", "answered as no HTTP proxy does; see that it is one", false),
        ("\r\n\r\n", "answered as no HTTP proxy does", false),
        (&long, "answered as no HTTP proxy does", false),
        (&interim, "answered as no HTTP proxy does", false),
    ] {
        let proxy = SmallProxy::http(answer, 0).await;
        let options = options(Tls::Off);
        let error = Client::connect_by(&to(&proxy), "mx.test:25", &options).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("no connection to mx.test:25: ") && text.contains(words), "{text}");
        assert!(error.is_transient());
        assert_eq!(!options.health.servers().is_empty(), is_servers, "{text}");
    }
    // Some say 401.
    let proxy = SmallProxy::http("HTTP/1.1 401 Who\r\n\r\n", 0).await;
    let dial = to(&proxy).with_login("me", "wrong").unwrap();
    let error = Client::connect_by(&dial, "mx.test:25", &options(Tls::Off)).await.unwrap_err().to_string();
    assert!(error.contains("refused the login; see that") && !error.contains("wrong"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_away_or_silent_is_an_error_in_time() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = &mut options(Tls::Off);
    let error = Client::connect_by(&HttpConnect::new(free).unwrap(), "mx.test:25", options).await.unwrap_err();
    assert!(error.to_string().contains(&format!("no connection to the proxy {free}: ")), "{error}");
    let nowhere = HttpConnect::new("no-such-host.invalid:3128").unwrap();
    let error = Client::connect_by(&nowhere, "mx.test:25", options).await.unwrap_err().to_string();
    assert!(error.contains("no connection to the proxy no-such-host.invalid:3128: "), "{error}");
    assert!(error.ends_with("; see that it runs there"), "{error}");

    let proxy = SmallProxy::http("HTTP/1.1 200 ok\r\nX: ", 0).await;
    silent(&to(&proxy), proxy.port).await;
}

#[tokio::test]
async fn no_text_from_outside_ends_a_line_of_the_request() {
    let server = Scripted::polite().await;
    let proxy = SmallProxy::http(OK, server.port).await;
    let (long, evil) =
        ("x".repeat(256), ["\r\nX: y", "\n", "\r", "\0", "\u{7f}", "d\u{f6}ner", "\u{85}", "\u{2028}", "\t"]);
    for evil in evil.map(|evil| format!("a{evil}b")).iter().chain([&String::new(), &long]) {
        for (field, user, password) in [("user name", evil.as_str(), "x"), ("password", "x", evil.as_str())] {
            let error = to(&proxy).with_login(user, password).unwrap_err();
            assert!(matches!(&error, ProxyError::Text { field: found, .. } if *found == field), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("the {field} for the proxy ")) && text.contains("; "), "{text}");
            assert!(error.is_permanent() && (evil.is_empty() || !text.contains(evil)), "{text}");
        }
        if cfg!(feature = "idna") && evil.contains('\u{f6}') {
            continue;
        }
        let error = Client::connect_by(&to(&proxy), (evil.as_str(), 25), &options(Tls::Off)).await.unwrap_err();
        assert!(error.to_string().contains("the server's name ") && error.is_permanent(), "{error}");
    }
    let error = to(&proxy).with_login("me:you", "x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the user name for the proxy has a colon; HTTP takes what follows it for the password"
    );
    let error = HttpConnect::new("proxy.test").unwrap_err();
    assert!(error.to_string().starts_with("the proxy \"proxy.test\" has no port; add it"), "{error}");
    let error = HttpConnect::new("unix:/run/proxy").unwrap_err().to_string();
    assert_eq!(error, "the proxy's address is the path of a Unix socket; give a host and a port");
    assert!(proxy.asked().is_empty() && server.heard.all().is_empty(), "{:?}", proxy.asked_text());
}
