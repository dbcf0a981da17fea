use std::{
    io,
    sync::{Arc, Mutex},
};

use posthaste_server::{Layer as _, Service as _, layers::Recipients, wire::ForwardPath};
use tokio::time::advance;

use super::{SECOND, cx, rcpt, said, talk_with, user};
use crate::support::{self, Names};

/// Knows `jo`, and fails for `broken`. Returns the mailboxes that it is asked about as well.
fn known() -> (Recipients, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let layer = Recipients::new(move |mailbox| {
        log.lock().unwrap().push(mailbox.to_string());
        async move {
            match mailbox.local_part() {
                "broken" => Err(io::Error::other("the database is away"))?,
                name => Ok(name == "jo"),
            }
        }
    });
    (layer, asked)
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_its_time_and_an_error_is_not() {
    let (layer, asked) = known();
    let no = |address: &str| format!("550 5.1.1 No mailbox {address}");
    // Seconds since the row before; recipient; the reply; is the closure asked?
    for (row, (wait, address, expected, is_asked)) in [
        (0, "jo@d.test", "ok".to_owned(), true),
        (0, "jo@D.Test", "ok".to_owned(), false),
        (299, "jo@d.test", "ok".to_owned(), false),
        (1, "jo@d.test", "ok".to_owned(), true),
        // Local parts are not the same in another case (RFC 5321 section 2.4).
        (0, "Jo@d.test", no("Jo@d.test"), true),
        (59, "Jo@d.test", no("Jo@d.test"), false),
        (1, "Jo@d.test", no("Jo@d.test"), true),
        (0, "jo@e.test", "ok".to_owned(), true),
        (0, "broken@d.test", "451 4.3.0 Local error, try again later".to_owned(), true),
        (0, "broken@d.test", "451 4.3.0 Local error, try again later".to_owned(), true),
        (0, "postmaster@d.test", no("postmaster@d.test"), true),
    ]
    .into_iter()
    .enumerate()
    {
        advance(wait * SECOND).await;
        asked.lock().unwrap().clear();
        assert_eq!(said(layer.clone().rcpt(&cx("192.0.2.1"), &rcpt(address)).await), expected, "row {row}");
        let expected: &[&str] = if is_asked { &[address] } else { &[] };
        assert_eq!(*asked.lock().unwrap(), expected, "row {row}");
    }
}

#[tokio::test]
async fn an_error_has_its_cause_and_no_times_keep_nothing() {
    let (mut layer, asked) = known();
    (layer.known_for, layer.unknown_for) = Default::default();
    let error = layer.rcpt(&cx("192.0.2.1"), &rcpt("broken@d.test")).await.unwrap_err();
    assert_eq!(error.cause(), Some("the database is away"));
    for _ in 0..2 {
        layer.rcpt(&cx("192.0.2.1"), &rcpt("jo@d.test")).await.unwrap();
        layer.rcpt(&cx("192.0.2.1"), &rcpt("other@d.test")).await.unwrap_err();
    }
    assert_eq!(asked.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn the_postmaster_is_always_taken_and_users_are_asked_about_too() {
    let (mut layer, asked) = known();
    let mut postmaster = rcpt("x@d.test");
    postmaster.forward_path = ForwardPath::Postmaster;
    assert_eq!(said(layer.rcpt(&cx("192.0.2.1"), &postmaster).await), "ok");
    assert!(asked.lock().unwrap().is_empty());
    assert!(said(layer.rcpt(&user("192.0.2.1", "jo"), &rcpt("no@d.test")).await).starts_with("550"));
}

#[tokio::test]
async fn a_client_hears_which_recipient_does_not_exist() {
    let mut talk = talk_with(Names::default().layer(known().0), "192.0.2.1", support::settings()).greeted().await;
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    talk.expect("RCPT TO:<kim@d.test>", "550 5.1.1 No mailbox kim@d.test").await;
    talk.expect("RCPT TO:<jo@d.test>", "250").await;
    talk.expect("RCPT TO:<Postmaster>", "250").await;
    talk.expect("RCPT TO:<broken@d.test>", "451 4.3.0").await;
    talk.expect("DATA", "354").await;
    talk.expect("x\r\n.", "250").await;
}
