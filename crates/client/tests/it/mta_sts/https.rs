//! A policy comes over HTTPS from a host that proves its name, or does not count.

use std::{sync::Arc, time::Duration};

use posthaste_client::{
    mta_sts::{FetchError, HttpsFetch, MtaSts, Problem},
    rustls::ServerConfig,
};
use posthaste_testkit::{
    https::{Answer, End, serve},
    pki::{Authority, self_signed},
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{POLICY, Zone, seen};

const HOST: &str = "mta-sts.d.test";

fn good() -> Answer {
    Answer::ok("text/plain", POLICY)
}

fn fetch(authority: &Authority, port: u16) -> HttpsFetch {
    let mut fetch = HttpsFetch::new(authority.roots().into()).unwrap();
    (fetch.allow_private, fetch.port) = (true, port);
    fetch
}

/// What becomes of the domain's policy, and the requests that the policy host got.
async fn outcome(
    authority: &Authority,
    config: Arc<ServerConfig>,
    answer: Answer,
) -> ((Option<u64>, String), Vec<String>) {
    let (address, requests) = serve(config, move |_| answer.clone()).await;
    let sts = MtaSts::new(fetch(authority, address.port()));
    let found = sts.policy(&Zone::with("1"), "D.test").await;
    let requests = requests.lock().unwrap().clone();
    (seen(&found), requests)
}

#[tokio::test]
async fn a_policy_is_asked_for_once_as_the_rfc_says() {
    let authority = Authority::new("one");
    for answer in [
        good(),
        Answer::ok("text/plain; charset=utf-8", POLICY),
        Answer::ok("Text/Plain ;x=y", &POLICY.replace("\r\n", "\n")),
        Answer::whole(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n{POLICY}")),
        Answer::whole(format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{POLICY}\r\n0\r\n\r\n",
            POLICY.len()
        )),
    ] {
        let (found, requests) = outcome(&authority, authority.server(&[HOST], 2020, 2120), answer.clone()).await;
        assert_eq!(found, (Some(604_800), String::new()), "{answer:?}");
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert!(request.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nhost: mta-sts.d.test\r\n"), "{request}");
        assert!(!request.to_ascii_lowercase().contains("encoding"), "{request}");
    }
}

#[tokio::test]
async fn a_policy_host_without_a_good_certificate_is_asked_for_nothing() {
    let (authority, other) = (Authority::new("one"), Authority::new("one"));
    for (config, words) in [
        (authority.server(&["d.test"], 2020, 2120), "for another name"),
        (authority.server(&["mta-sts.other.test"], 2020, 2120), "for another name"),
        (authority.server(&["*.mta-sts.d.test"], 2020, 2120), "for another name"),
        (authority.server(&[HOST], 2020, 2021), "has expired"),
        (authority.server(&[HOST], 2100, 2120), "not valid yet"),
        (other.server(&[HOST], 2020, 2120), "not the server's own"),
        (Authority::new("two").server(&[HOST], 2020, 2120), "no authority that is trusted"),
        (self_signed(HOST, false), "no authority that is trusted"),
        (self_signed(HOST, true), "an authority's own"),
    ] {
        let (found, requests) = outcome(&authority, config, good()).await;
        assert!(found.0.is_none() && found.1.contains(words), "{words}: {found:?}");
        assert!(found.1.starts_with("the certificate of the policy host proves nothing"), "{found:?}");
        assert!(requests.is_empty(), "{words}");
    }
    let wildcard = authority.server(&["*.d.test"], 2020, 2120);
    assert_eq!(outcome(&authority, wildcard, good()).await.0.0, Some(604_800));
}

#[tokio::test]
async fn a_wrong_response_is_no_policy() {
    let authority = Authority::new("one");
    let config = authority.server(&[HOST], 2020, 2120);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let status = |status: &str| Answer::ok("text/plain", POLICY).octets_with("200 OK", status);
    let file = |file: &str| Answer::ok("text/plain", file);
    let cut = |octets: String| Answer { octets: octets.into(), end: End::Cut };
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    for (answer, words) in [
        (status("301 Moved\r\nLocation: /.well-known/mta-sts.txt"), "status 301"),
        (status("302 Found\r\nLocation: https://mta-sts.d.test/"), "status 302"),
        (status("307 Here\r\nLocation: https://127.0.0.1/"), "status 307"),
        (status("201 Made"), "status 201"),
        (status("206 Part"), "status 206"),
        (status("404 Not Found"), "status 404"),
        (status("500 Broken"), "status 500"),
        (Answer::whole("HTTP/1.1 204 None\r\n\r\n"), "status 204"),
        (Answer::ok("text/html", POLICY), "text/plain"),
        (Answer::ok("text/plainer", POLICY), "text/plain"),
        (Answer::ok("application/octet-stream; text/plain", POLICY), "text/plain"),
        (Answer::whole(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{POLICY}", POLICY.len())), "text/plain"),
        (Answer::whole(format!("{head}Content-Length: 65537\r\n\r\n")), "more than 65536"),
        (Answer::whole(format!("{head}Content-Length: 18446744073709551615\r\n\r\n")), "broke HTTP"),
        (Answer::whole(format!("{head}Content-Length: -1\r\n\r\n")), "broke HTTP"),
        (Answer::whole(format!("{head}\r\n{}", "x".repeat(65_537))), "more than 65536"),
        (Answer::whole(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(3))), "more than 65536"),
        (Answer::whole(format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n")), "broke HTTP"),
        (Answer::whole(format!("{head}X: {}\r\n\r\n{POLICY}", "x".repeat(20_000))), "broke HTTP"),
        (Answer::whole(format!("{head}{}\r\n{POLICY}", "X: y\r\n".repeat(100))), "broke HTTP"),
        (Answer::whole("HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000)), "broke HTTP"),
        (Answer::whole(format!("{head}Content-Length: 500\r\n\r\n{POLICY}")), "broke HTTP"),
        (cut(format!("{head}\r\n{POLICY}")), "broke HTTP"),
        (cut(head.to_owned()), "broke HTTP"),
        (Answer::whole(""), "broke HTTP"),
        (Answer::whole("220 mx.d.test ESMTP\r\n"), "broke HTTP"),
        (file(""), "no line `version: STSv1`"),
        (file("<html>no</html>"), "line 1"),
        (file(&POLICY.replace("enforce", "maybe")), "line 2 of the policy has an unknown mode"),
        (file(&POLICY.replace("max_age: 604800\r\n", "")), "no line `max_age: 604800`"),
        (file(&POLICY.replace("STSv1", "STSv2")), "line 1 of the policy has another version"),
        (file(&format!("{POLICY}{}", "mx: a.b\r\n".repeat(1_000))), "beyond the first 1000"),
        (
            Answer::whole(
                [format!("{head}Content-Length: 6\r\n\r\n").as_bytes(), b"\x1f\x8b\x08\xff\xfe\xfd"].concat(),
            ),
            "not UTF-8",
        ),
    ] {
        let (found, requests) = outcome(&authority, Arc::clone(&config), answer).await;
        assert!(found.0.is_none() && found.1.contains(words), "{words}: {found:?}");
        assert_eq!(requests.len(), 1, "{words}");
    }
}

#[tokio::test]
async fn a_policy_host_that_cannot_be_reached_has_no_policy() {
    let authority = Authority::new("one");
    let found = async |zone: &Zone, fetch: HttpsFetch| seen(&MtaSts::new(fetch).policy(zone, "d.test").await).1;
    let (address, requests) = serve(authority.server(&[HOST], 2020, 2120), |_| good()).await;

    let mut public = fetch(&authority, address.port());
    public.allow_private = false;
    assert!(found(&Zone::with("1"), public).await.ends_with("it has no public address"));
    let nowhere = Zone { no_addresses: true, ..Zone::with("1") };
    assert!(found(&nowhere, fetch(&authority, address.port())).await.ends_with("it has none"));
    assert!(requests.lock().unwrap().is_empty());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert!(found(&Zone::with("1"), fetch(&authority, port)).await.starts_with("no connection to the policy host"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    });
    assert!(found(&Zone::with("1"), fetch(&authority, port)).await.contains("no TLS"));
}

#[tokio::test]
async fn a_policy_host_that_is_slow_is_left_after_a_minute() {
    let authority = Authority::new("one");
    for octets in ["", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nversion: STSv1\r\n"] {
        let answer = Answer { octets: octets.into(), end: End::Silent };
        let (address, requests) = serve(authority.server(&[HOST], 2020, 2120), move |_| answer.clone()).await;
        let sts = MtaSts::new(fetch(&authority, address.port()));
        let asked = tokio::spawn(async move { sts.policy(&Zone::with("1"), "d.test").await });
        while requests.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::pause();
        let found = asked.await.unwrap();
        assert!(matches!(found.problem.as_deref(), Some(Problem::Fetch(FetchError::Timeout))), "{found:?}");
        tokio::time::resume();
    }
}

/// Changes a response.
trait With {
    fn octets_with(self, from: &str, to: &str) -> Self;
}

impl With for Answer {
    fn octets_with(self, from: &str, to: &str) -> Self {
        Self::whole(String::from_utf8(self.octets).unwrap().replace(from, to))
    }
}
