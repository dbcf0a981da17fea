//! What clients are refused for by the operator's limits and lists.

mod support;

use std::fs;

use posthaste::client::session::sasl::Credentials;
use posthaste::client::{Client, ClientOptions, Identity, Tls};
use support::client::Smtp;
use support::relay::{Config, PASSWORD, Relay, SECOND_PASSWORD, SECOND_USER, USER};

/// A relay that takes mail for dest.test from all, and relays for 198.51.100.0/24. A proxy on
/// loopback names the clients.
fn relay(listener: &str, rest: &str) -> Relay {
    let mut relay = Relay::prepare(&Config::default());
    let text = format!(
        "hostname = \"relay.test\"\nqueue = \"queue\"\nrelay_from = [\"198.51.100.0/24\"]\nrelay_domains = [\"dest.test\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{}\"\nproxies = [\"127.0.0.1/32\"]\n{listener}\n\
         [[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:9\"]\ntls = \"off\"\n{rest}\n",
        relay.port
    );
    fs::write(relay.config(), text).expect("the folder is ours");
    relay.start_again();
    relay
}

/// What the proxy says of a client.
fn header(client: &str) -> String {
    format!("PROXY TCP4 {client} 192.0.2.1 5678 25\r\n")
}

/// A client at this address, after EHLO.
fn client(relay: &Relay, address: &str) -> Smtp {
    let mut client = Smtp::through(relay.port, header(address).as_bytes());
    client.expect("EHLO client.test", 250);
    client
}

#[test]
fn one_network_has_as_many_connections_as_the_operator_allows() {
    let relay = relay("", "[limits]\nconnections_per_network = 2");
    let _two = [(); 2].map(|()| client(&relay, "203.0.113.7"));
    let mut third = Smtp::silent(relay.port);
    third.send(header("203.0.113.7"));
    assert_eq!(third.reply().code, 421);
    // Three times as many from the /24.
    let _four = [1, 1, 2, 2].map(|host| client(&relay, &format!("203.0.113.{host}")));
    let mut seventh = Smtp::silent(relay.port);
    seventh.send(header("203.0.113.3"));
    assert_eq!(seventh.reply().code, 421);
    client(&relay, "192.0.2.7");
}

#[test]
fn a_client_that_does_not_wait_for_the_greeting_is_turned_away() {
    let relay = relay("greeting_delay = \"2s\"", "");
    let mut hasty = Smtp::silent(relay.port);
    hasty.send(header("203.0.113.7") + "EHLO client.test\r\n");
    let reply = hasty.reply();
    assert_eq!(reply.code, 554, "{}", hasty.log());
    assert!(hasty.is_closed());
    client(&relay, "203.0.113.7");
}

#[test]
fn strangers_have_a_number_of_recipients_an_hour_and_clients_of_ours_do_not() {
    let relay = relay("", "[limits]\nrecipients_per_hour = 2");
    let mut stranger = client(&relay, "203.0.113.7");
    stranger.expect("MAIL FROM:<a@sender.test>", 250);
    // An unknown domain costs as much.
    stranger.expect("RCPT TO:<a@elsewhere.test>", 550);
    stranger.expect("RCPT TO:<b@dest.test>", 250);
    let refused = stranger.expect("RCPT TO:<c@dest.test>", 451).text;
    assert!(refused.contains("4.7.1 Too many recipients, try again in "), "{refused}");
    // Its network counts, and not the connection.
    let mut again = client(&relay, "203.0.113.7");
    again.expect("MAIL FROM:<a@sender.test>", 250);
    again.expect("RCPT TO:<c@dest.test>", 451);
    for address in ["203.0.113.8", "198.51.100.7"] {
        let mut other = client(&relay, address);
        other.expect("MAIL FROM:<a@sender.test>", 250);
        for recipient in ["a", "b"] {
            other.expect(&format!("RCPT TO:<{recipient}@dest.test>"), 250);
        }
        let code = if address == "198.51.100.7" { 250 } else { 451 };
        other.expect("RCPT TO:<c@dest.test>", code);
    }
}

#[tokio::test]
async fn a_user_has_a_number_of_recipients_an_hour() {
    let mut relay = Relay::prepare(&Config { next_hops: vec![9], tls: true, ..Config::default() });
    let text = fs::read_to_string(relay.config()).expect("it was written");
    fs::write(relay.config(), text + "user_recipients_per_hour = 2\n").expect("the folder is ours");
    relay.start_again();
    for (user, password, taken) in
        [(USER, PASSWORD, true), (USER, PASSWORD, false), (SECOND_USER, SECOND_PASSWORD, true)]
    {
        let mut options = ClientOptions::new("client.test".parse().expect("a name"));
        options.tls = Tls::Implicit(Identity::unverified().expect("the features choose a provider"));
        options.credentials = Some(Credentials::new(user, password).into());
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", relay.implicit)).await.expect("the relay listens");
        let mut client = Client::start(stream, "localhost", &options).await.expect("the password is right");
        let content = bytes::Bytes::from_static(b"Subject: x\r\n\r\nHello\r\n");
        let to = ["a@elsewhere.test", "b@elsewhere.test"];
        let sent = client.send("me@sender.test", to, content).await.expect("they are addresses");
        assert_eq!(sent.is_complete(), taken, "{user}: {sent:?}");
        client.quit().await;
    }
    // Without a login the networks of relay_from have no limit.
    let mut own = Smtp::ehlo(relay.port);
    own.expect("MAIL FROM:<a@sender.test>", 250);
    for recipient in ["a", "b", "c"] {
        own.expect(&format!("RCPT TO:<{recipient}@elsewhere.test>"), 250);
    }
}

/// A relay with submission, with this text after its configuration, in tables of its own.
fn with_rules(limits: &str, tables: &str) -> Relay {
    let mut relay = Relay::prepare(&Config { next_hops: vec![9], tls: true, ..Config::default() });
    let text = fs::read_to_string(relay.config()).expect("it was written");
    fs::write(relay.config(), format!("{text}{limits}\n{tables}")).expect("the folder is ours");
    relay.start_again();
    relay
}

/// Sends a message of a user, and returns what the relay refuses.
async fn sent(relay: &Relay, user: (&str, &str), sender: &str, content: &str) -> String {
    let mut options = ClientOptions::new("client.test".parse().expect("a name"));
    options.tls = Tls::Implicit(Identity::unverified().expect("the features choose a provider"));
    options.credentials = Some(Credentials::new(user.0, user.1).into());
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", relay.implicit)).await.expect("the relay listens");
    let mut client = Client::start(stream, "localhost", &options).await.expect("the password is right");
    let content = bytes::Bytes::from(content.to_owned());
    let sent = client.send(sender, ["a@elsewhere.test"], content).await.expect("they are addresses");
    client.quit().await;
    if sent.is_complete() { "taken".to_owned() } else { format!("{sent:?}") }
}

#[tokio::test]
async fn users_send_from_their_addresses_within_their_limits() {
    let tables = "[submission]\nsenders = \"own\"\ntag_field = \"X-Campaign\"\n[[account]]\n\
                  name = \"jo@sender.test\"\npassword = \"a long one\"\nsenders = [\"list.test\"]\nmessage_size = 65536\n";
    let limits = "sender_messages_per_hour = 4\nuser_messages_per_hour = 7\nexcess = \"refuse\"\nheader_fields = 5";
    let relay = with_rules(limits, tables);
    let jo = ("jo@sender.test", "a long one");
    let large = format!("From: Jo@Sender.test\r\n\r\n{}", format!("{}\r\n", "x".repeat(98)).repeat(700));
    let fields = format!("From: jo@sender.test\r\n{}\r\n", "A: b\r\n".repeat(5));
    for (user, sender, content, wanted) in [
        (jo, "jo@sender.test", "From: jo@sender.test\r\nX-Campaign: a\r\n\r\nx\r\n", "taken"),
        (jo, "any@list.test", "From: Jo <jo@sender.test>\r\n\r\nx\r\n", "taken"),
        (jo, "other@sender.test", "From: jo@sender.test\r\n\r\nx\r\n", "You may not send from <other@sender.test>"),
        ((USER, PASSWORD), "jo@sender.test", "From: jo@sender.test\r\n\r\nx\r\n", "You may not send from"),
        (jo, "jo@sender.test", "From: other@sender.test\r\n\r\nx\r\n", "in the From field"),
        (jo, "jo@sender.test", &large, "larger than this client may send"),
        (jo, "jo@sender.test", "From: jo@sender.test\r\n\r\nx\r\n", "Too many messages, none is taken for"),
        (jo, "any@list.test", &fields, "The header section has more than 5 fields"),
        (jo, "new@list.test", "From: jo@sender.test\r\n\r\nx\r\n", "Too many messages, none is taken for"),
    ] {
        let said = sent(&relay, user, sender, content).await;
        assert!(said.contains(wanted), "{sender} {wanted}: {said}");
    }
}

#[test]
fn listed_networks_names_and_senders_are_refused_at_the_first_command_that_shows_them() {
    let lists = "[refuse]\nnetworks = [\"203.0.113.0/24\"]\nhello = [\"ylmf-pc\", \"*.dyn.test\"]\n\
                 senders = [\"offers@sender.test\", \"bad.test\"]";
    let relay = relay("", lists);
    let mut denied = Smtp::silent(relay.port);
    denied.send(header("203.0.113.7"));
    assert_eq!(denied.reply().text.trim(), "5.7.1 No SMTP service for 203.0.113.7");
    assert!(denied.is_closed());
    let mut client = Smtp::through(relay.port, header("192.0.2.7").as_bytes());
    for name in ["YLMF-PC", "a.dyn.test"] {
        let refused = client.expect(&format!("EHLO {name}"), 550).text;
        assert_eq!(refused.trim(), "5.7.1 No SMTP service under this name");
    }
    client.expect("EHLO client.test", 250);
    for sender in ["Offers@sender.test", "jo@bad.test"] {
        let refused = client.expect(&format!("MAIL FROM:<{sender}>"), 550).text;
        assert_eq!(refused.trim(), "5.7.1 No mail from this sender is taken here");
    }
    for sender in ["", "jo@sender.test"] {
        client.expect(&format!("MAIL FROM:<{sender}>"), 250);
        client.expect("RCPT TO:<a@dest.test>", 250);
        client.expect("RSET", 250);
    }
    for words in ["client refused", "sender refused"] {
        // The first is at debug.
        assert_eq!(relay.log().contains(words), words == "sender refused", "{}", relay.log());
    }
}
