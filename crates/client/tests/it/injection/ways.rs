//! The names and logins on the way to a server.

use std::{os::unix::ffi::OsStrExt as _, path::Path, sync::Arc};

use posthaste_client::{
    Client, ClientOptions, ConnectError, Endpoint, HttpConnect, Pool, ProxyError, SendError, Tcp, Tls, Unix,
};
use posthaste_testkit::script::{Scripted, polite, serve};

use super::{check_error, check_line, texts};
use crate::support::{Policy, options, proxies::SmallProxy, trusting};

fn quick() -> ClientOptions {
    let mut options = options(Tls::Off);
    options.connect_timeout = std::time::Duration::from_secs(2);
    options
}

/// What an HTTP proxy was asked: one request, whose lines are the client's.
fn check_request(asked: &[String], context: &str) {
    for request in asked {
        let head = request.strip_suffix("\r\n\r\n").unwrap();
        let lines: Vec<_> = head.split("\r\n").collect();
        lines.iter().for_each(|line| check_line(line, context));
        assert!(lines[0].starts_with("CONNECT ") && lines[0].ends_with(" HTTP/1.1"), "{context}: {lines:?}");
        assert_eq!(lines[0].split(' ').count(), 3, "{context}: {lines:?}");
        assert!(lines[1].starts_with("Host: ") && lines.len() <= 3, "{context}: {lines:?}");
        assert!(lines.iter().skip(2).all(|line| line.starts_with("Proxy-Authorization: Basic ")), "{context}");
    }
}

#[tokio::test]
async fn no_name_of_a_server_reaches_a_proxy_as_a_line_of_its_own() {
    let server = Scripted::polite().await;
    let proxy = SmallProxy::http("HTTP/1.1 200 ok\r\n\r\n", server.port).await;
    let dial = HttpConnect::new(("127.0.0.1", proxy.port)).unwrap();
    for template in ["mx{}.test", "{}mx.test", "mx.test{}", "192.0.2.1{}", "[::1{}]"] {
        for text in texts(template) {
            let context = format!("the server {text:?}");
            let pair = Client::connect_by(&dial, (text.as_str(), 25), &quick()).await;
            let whole = Client::connect_by(&dial, format!("{text}:25"), &quick()).await;
            for error in [pair.err(), whole.err()].into_iter().flatten() {
                assert!(error.is_permanent(), "{context}: {error:?}");
                let is_endpoint = matches!(error, ConnectError::Endpoint(_));
                check_error(&error.to_string(), if is_endpoint { "" } else { "the server's name" }, &context);
            }
            check_request(&proxy.asked_text(), &context);
        }
    }
    let heard = proxy.asked_text().concat();
    assert!(!heard.contains("smuggled ") && !heard.contains("NOOP"), "{heard}");
}

#[cfg(feature = "socks5")]
#[tokio::test]
async fn no_name_of_a_server_reaches_a_socks5_proxy_unless_it_is_plain() {
    use posthaste_client::Socks5;
    let server = Scripted::polite().await;
    let proxy = SmallProxy::socks5(0, 0, &[5, 0, 0, 1, 127, 0, 0, 1, 0, 25], server.port).await;
    let dial = Socks5::new(("127.0.0.1", proxy.port)).unwrap();
    for text in texts("mx{}.test") {
        if let Err(error) = Client::connect_by(&dial, (text.as_str(), 25), &quick()).await {
            check_error(&error.to_string(), "the server's name", &text);
        }
    }
    for request in proxy.asked() {
        // After the two that every request begins with: the length, the name and the port.
        let name = &request[8..request.len() - 2];
        assert!(name.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'.'), "{request:?}");
    }
    for text in texts("me{}") {
        for (login, field) in [((text.as_str(), "secret"), "the user name"), (("me", text.as_str()), "the password")] {
            match dial.clone().with_login(login.0, login.1) {
                Ok(_) => assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{text:?}"),
                Err(error) => check_error(&error.to_string(), field, &text),
            }
        }
    }
}

#[tokio::test]
async fn no_login_at_a_proxy_is_a_line_of_its_own() {
    let server = Scripted::polite().await;
    for text in texts("me{}") {
        let context = format!("the login {text:?}");
        let proxy = SmallProxy::http("HTTP/1.1 200 ok\r\n\r\n", server.port).await;
        let dial = HttpConnect::new(("127.0.0.1", proxy.port)).unwrap();
        for (user, password, field) in [(text.as_str(), "secret", "the user name"), ("me", &text, "the password")] {
            match dial.clone().with_login(user, password) {
                Ok(dial) => drop(Client::connect_by(&dial, "mx.test:25", &quick()).await.unwrap()),
                Err(error @ ProxyError::Text { .. }) => check_error(&error.to_string(), field, &context),
                Err(error) => panic!("{context}: {error}"),
            }
        }
        check_request(&proxy.asked_text(), &context);
    }
}

/// The names that the system looks up, or a library takes, and what errors say of them.
#[tokio::test]
async fn an_error_about_a_name_is_one_line() {
    for template in ["mx{}.invalid", "mx.invalid{}", "{}"] {
        for text in texts(template) {
            let context = format!("{text:?}");
            for endpoint in [text.clone(), format!("{text}:25"), format!("{text}:x"), format!("unix:{text}")] {
                match endpoint.parse::<Endpoint>() {
                    Ok(endpoint) => check_error(&endpoint.to_string(), "", &context),
                    Err(error) => check_error(&error.to_string(), "", &context),
                }
                if let Err(error) = HttpConnect::new(endpoint.as_str()) {
                    check_error(&error.to_string(), "the proxy", &context);
                }
                if let Err(error) = Pool::new([endpoint.as_str()], quick()) {
                    check_error(&error.to_string(), "", &context);
                }
            }
            check_error(&Endpoint::from((text.as_str(), 25)).to_string(), "", &context);
        }
    }
    // A look-up of each would ask the DNS.
    for text in ["mx\r\nsmuggled.invalid", "mx\0.invalid", "mx\u{85}.invalid", "mx\u{1b}[2J.invalid"] {
        let error = Client::connect((text, 25), &quick()).await.unwrap_err();
        check_error(&error.to_string(), "no address of mx", text);
        let pool = Pool::new([(text, 25)], quick()).unwrap();
        let error = pool.send("me@s.test", ["you@d.test"], "hello\r\n").await.unwrap_err();
        assert!(matches!(error, SendError::Connect(_)), "{error:?}");
        check_error(&error.to_string(), "no address of mx", text);
        let proxy = HttpConnect::new((text, 25)).unwrap();
        let error = Client::connect_by(&proxy, "mx.test:25", &quick()).await.unwrap_err();
        check_error(&error.to_string(), "no connection to the proxy mx", text);
    }
}

#[tokio::test]
async fn an_error_about_a_path_or_an_interface_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for text in texts("lmtp{}") {
        let path = folder.path().join(&text);
        let error = Client::connect_by(&Unix, path.as_path(), &quick()).await.unwrap_err();
        check_error(&error.to_string(), "no connection to unix:/", &text);
        #[cfg(target_os = "linux")]
        {
            let mut tcp = Tcp::default();
            tcp.interface = Some(Arc::from(text.as_str()));
            let error = Client::connect_by(&tcp, "127.0.0.1:25", &quick()).await.unwrap_err();
            check_error(&error.to_string(), "the interface", &text);
        }
    }
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"l\xff\xc0\x8a\n"));
    let error = Client::connect_by(&Unix, Path::new(&odd), &quick()).await.unwrap_err();
    check_error(&error.to_string(), "no connection to unix:/", "octets");
}

/// The name of the server goes into the handshake, and into no line.
#[tokio::test]
async fn a_name_that_no_certificate_can_be_for_is_said_to_no_server() {
    for text in texts("mx{}.test") {
        let (server, _) = posthaste_testkit::pki::tls("mx.test");
        let (stream, heard) = serve(|_, line: &str| polite(line, &["STARTTLS"]), Some(server));
        let options = options(Policy::Required.tls(trusting()));
        if let Err(error) = Client::start(stream, &text, &options).await {
            check_error(&error.to_string(), "name", &text);
        }
        heard.all().iter().for_each(|(_, line)| check_line(line, &text));
    }
}
