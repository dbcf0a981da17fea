use std::{
    future::pending,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use posthaste_server::{Layer as _, Service as _, layers::BlockList};

use super::{SECOND, cx, rcpt, said, talk_with, timed, user};
use crate::support::{self, Names};

type Asked = Arc<Mutex<Vec<String>>>;

/// A list that answers each name with these addresses; `error` and `late` do as they say. Returns
/// the names that it is asked about as well.
fn list(answer: &'static str) -> (BlockList, Asked) {
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let list = BlockList::new("bl.test", move |name| {
        log.lock().unwrap().push(name);
        async move {
            match answer {
                "error" => Err(io::Error::other("SERVFAIL")),
                "late" => pending().await,
                answer => Ok(answer.split_whitespace().map(|text| text.parse::<IpAddr>().unwrap()).collect::<Vec<_>>()),
            }
        }
    });
    (list, asked)
}

#[tokio::test(start_paused = true)]
async fn an_answer_refuses_if_it_is_a_code_of_the_list() {
    for (answer, is_listed) in [
        ("127.0.0.2", true),
        ("127.0.0.11", true),
        ("127.1.2.3", true),
        ("127.255.254.255", true),
        ("192.0.2.1 127.0.0.4", true),
        ("", false),
        // A resolver that invents answers.
        ("192.0.2.1", false),
        ("126.255.255.255", false),
        ("128.0.0.0", false),
        ("::2", false),
        // The list does not answer this resolver.
        ("127.0.0.1", false),
        ("127.255.255.254", false),
        ("127.255.255.255 127.255.255.252", false),
        ("error", false),
        ("late", false),
    ] {
        let said = said(list(answer).0.rcpt(&cx("192.0.2.99"), &rcpt("you@d.test")).await);
        let expected = if is_listed { "550 5.7.1 192.0.2.99 is listed by bl.test" } else { "ok" };
        assert_eq!(said, expected, "{answer}");
    }
    let (mut list, _) = list("127.0.0.10");
    list.codes = "127.0.0.2, 127.0.0.3".parse().unwrap();
    assert_eq!(said(list.rcpt(&cx("192.0.2.99"), &rcpt("you@d.test")).await), "ok");
}

#[tokio::test]
async fn an_address_is_looked_up_in_reverse() {
    for (address, name) in [
        ("192.0.2.99", "99.2.0.192.bl.test"),
        ("::ffff:192.0.2.99", "99.2.0.192.bl.test"),
        // The example of RFC 5782 section 2.4.
        ("2001:db8:1:2:3:4:567:89ab", "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test"),
    ] {
        let (mut list, asked) = list("127.0.0.2");
        list.rcpt(&cx(address), &rcpt("you@d.test")).await.unwrap_err();
        assert_eq!(*asked.lock().unwrap(), [name]);
    }
}

#[tokio::test]
async fn some_clients_are_not_looked_up() {
    for (cx, recipient) in [
        (user("192.0.2.99", "jo"), "you@d.test"),
        (cx("192.0.2.99"), "Postmaster@d.test"),
        (cx("127.0.0.1"), "you@d.test"),
        (cx("local"), "you@d.test"),
        (cx("10.1.2.3"), "you@d.test"),
        (cx("172.31.0.1"), "you@d.test"),
        (cx("192.168.1.1"), "you@d.test"),
        (cx("169.254.1.1"), "you@d.test"),
        (cx("100.64.0.1"), "you@d.test"),
        (cx("::1"), "you@d.test"),
        (cx("fe80::1"), "you@d.test"),
        (cx("fd00::1"), "you@d.test"),
    ] {
        let (mut list, asked) = list("127.0.0.2");
        assert_eq!(said(list.rcpt(&cx, &rcpt(recipient)).await), "ok");
        assert!(asked.lock().unwrap().is_empty(), "{:?}", cx.peer);
    }
}

#[tokio::test]
async fn the_entries_for_tests_show_if_a_list_works() {
    let works = BlockList::new("bl.test", |name: String| async move {
        let listed = name == "2.0.0.127.bl.test";
        if listed { Ok(vec![IpAddr::from([127, 0, 0, 2])]) } else { Err("NXDOMAIN") }
    });
    assert_eq!(said(works.test().await), "ok");
    for (answer, error) in [
        ("", "does not name 127.0.0.2"),
        ("error", "does not name 127.0.0.2"),
        ("127.255.255.254", "does not name 127.0.0.2"),
        ("127.0.0.2", "names 127.0.0.1"),
    ] {
        let said = said(list(answer).0.test().await);
        assert!(said.contains(error), "{answer}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_looked_up_once_and_a_silent_list_lets_it_pass() {
    for (answer, code, wait) in [("127.0.0.2", "550", 0), ("late", "250", 5)] {
        let (list, asked) = list(answer);
        let mut talk = talk_with(Names::default().layer(list), "192.0.2.99", support::settings()).greeted().await;
        for wait in [wait, 0] {
            talk.expect("MAIL FROM:<a@b.test>", "250").await;
            let (said, waited) = timed(&mut talk, "RCPT TO:<a@d.test>").await;
            assert_eq!((&said[..3], waited), (code, wait));
            talk.expect("RCPT TO:<postmaster@d.test>", "250").await;
            talk.expect("RSET", "250").await;
        }
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_list_never_costs_a_client_its_verdict() {
    let mut settings = support::settings();
    settings.timeouts.verdict = 4 * SECOND;
    let mut talk = talk_with(Names::default().layer(list("late").0), "192.0.2.99", settings).greeted().await;
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    let (said, waited) = timed(&mut talk, "RCPT TO:<a@d.test>").await;
    assert_eq!((&said[..3], waited), ("250", 2));
}
