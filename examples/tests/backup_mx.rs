//! A relay for domains of others: domains and mailboxes from files.

mod support;

use std::fs;

use support::client::Smtp;
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::{data, token};

/// A relay that takes mail from every client for the domains in `ours.txt`, and leads it to the
/// sink. The rest of the route is `more`.
fn backup(sink: &Sink, more: &str, mailboxes: &str) -> Relay {
    let mut relay = Relay::prepare(&Config::default());
    let text = format!(
        "hostname = \"relay.test\"\nqueue = \"queue\"\nrelay_domains = {{ file = \"ours.txt\" }}\n\
         [[listener]]\naddress = \"127.0.0.1:{}\"\n\
         [[route]]\ndomains = {{ file = \"ours.txt\" }}\nto = [\"127.0.0.1:{}\"]\n{more}\n",
        relay.port, sink.port
    );
    for (name, text) in
        [("relay.toml", &*text), ("ours.txt", "# ours\nour.test # one\n*.our.test\r\n"), ("boxes.txt", mailboxes)]
    {
        fs::write(relay.folder().join(name), text).expect("the folder is ours");
    }
    relay.start_again();
    relay
}

#[test]
fn domains_of_a_file_are_taken_and_led_to_their_route() {
    let mut sink = Sink::start();
    let relay = backup(&sink, "mailboxes = \"unknown\"", "");
    let mut client = Smtp::ehlo(relay.port);
    for to in ["jo@our.test", "any@sub.our.test"] {
        let token = token();
        client.open("me@sender.test", to);
        client.send(data(&token));
        assert_eq!(client.reply().code, 250);
        assert_eq!(sink.one(&token).recipients[0].0, to);
    }
    client.expect("MAIL FROM:<me@sender.test>", 250);
    for to in ["jo@other.test", "jo@xour.test"] {
        client.expect(&format!("RCPT TO:<{to}>"), 550);
    }
}

#[test]
fn mail_to_unknown_mailboxes_is_refused_while_the_client_has_it() {
    let mut sink = Sink::start();
    let mailboxes = "jo@our.test\n# all of it\nlists.our.test\n";
    let relay = backup(&sink, "mailboxes = { file = \"boxes.txt\" }", mailboxes);
    let mut client = Smtp::ehlo(relay.port);
    client.expect("MAIL FROM:<forged@sender.test>", 250);
    for to in ["gone@our.test", "jo@sub.our.test"] {
        let reply = client.expect(&format!("RCPT TO:<{to}>"), 550);
        assert!(client.log().contains("550 5.1.1 There is no such mailbox"), "{to} {reply:?}");
    }
    for to in ["Jo@our.test", "any@lists.our.test", "postmaster@sub.our.test"] {
        client.expect(&format!("RCPT TO:<{to}>"), 250);
    }
    let token = token();
    client.expect("DATA", 354);
    client.send(data(&token));
    assert_eq!(client.reply().code, 250);
    let mut recipients: Vec<_> =
        sink.wait(&token, 3).into_iter().flat_map(|taken| taken.recipients).map(|(path, _)| path).collect();
    recipients.sort();
    assert_eq!(recipients, ["Jo@our.test", "any@lists.our.test", "postmaster@sub.our.test"]);
}
