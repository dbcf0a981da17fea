//! The rules for submitted mail: who may send from which address, the field that names a campaign,
//! and the size that the policy lets a client send.

use posthaste_queue::Queue as _;
use posthaste_relay::{
    AccountTable, AddFields, Policy, Relay, RelayOptions, Route, RouteTable, Rule, SenderRule, Senders,
};
use posthaste_server::{
    Context, Refusal, UnknownUsers, refusal,
    wire::{Domain, Mailbox, Secret},
};

use crate::support::{self, Client, Log, options};

const RECIPIENT: &str = "RCPT TO:<a@d.test>\r\n";
const MAIL: &str = "MAIL FROM:<jo@b.test> BODY=8BITMIME\r\n";

/// A relay whose users are `jo@b.test` and `robot`, both with the password `secret`.
fn with_users(change: impl FnOnce(&mut RelayOptions)) -> RelayOptions {
    let mut accounts = AccountTable::new(UnknownUsers::new(Secret::new([7; 32]), 4_096));
    for name in ["jo@b.test", "robot"] {
        accounts.add(name, "secret").unwrap();
    }
    let mut options = options(&[1]);
    options.accounts = Some(accounts);
    options.add_fields = AddFields::Never;
    change(&mut options);
    options
}

const JO: &str = "AUTH PLAIN AGpvQGIudGVzdABzZWNyZXQ=\r\n";
const ROBOT: &str = "AUTH PLAIN AHJvYm90AHNlY3JldA==\r\n";

async fn logged_in(user: &str, options: RelayOptions) -> Client {
    let (relay, log) = support::relay(options);
    with(user, relay, log).await
}

async fn with(
    user: &str,
    relay: Relay<posthaste_queue::memory::MemoryQueue, posthaste_relay::client::SystemResolver>,
    log: Log,
) -> Client {
    let mut client = Client::in_clear(relay, log).await;
    assert!(client.talk(&["EHLO c.test\r\n", user]).await.starts_with("235"));
    client
}

/// Sends a content in pieces of this size, and returns the reply.
async fn send(client: &mut Client, mail: &str, content: &[u8], size: usize) -> String {
    assert!(client.talk(&[mail, RECIPIENT, "DATA\r\n"]).await.starts_with("354"));
    for piece in content.chunks(size) {
        client.send_octets(piece).await;
    }
    client.talk(&[".\r\n"]).await
}

/// What follows our Received field.
fn content(taken: &str) -> &str {
    taken.split_once("+0000\r\n").unwrap().1
}

fn own(options: &mut RelayOptions) {
    options.submission.senders.others = SenderRule::Own;
    let more = ["list@b.test", "c.test"].map(|text| text.parse().unwrap());
    options.submission.senders.push("jo@b.test", more.into_iter().collect());
}

/// RFC 6409 section 6.1.
#[tokio::test]
async fn a_user_sends_from_its_own_addresses_alone() {
    let refused = "550 5.7.1 You may not send from <";
    for (user, path, limited, free) in [
        (JO, "<jo@b.test>", "250", "250"),
        (JO, "<JO@B.test>", "250", "250"),
        (JO, "<list@b.test>", "250", "250"),
        (JO, "<any@c.test>", "250", "250"),
        (JO, "<>", "250", "250"),
        (JO, "<you@b.test>", refused, "250"),
        (JO, "<jo@x.c.test>", refused, "250"),
        (ROBOT, "<robot@b.test>", refused, "250"),
        (ROBOT, "<>", "250", "250"),
    ] {
        for (options, wanted) in [(with_users(own), limited), (with_users(|_| ()), free)] {
            let mut client = logged_in(user, options).await;
            let said = client.talk(&[&format!("MAIL FROM:{path}\r\n")]).await;
            assert!(said.starts_with(wanted), "{path}: {said}");
        }
    }
    // A client that may relay without a login has no identity to compare with.
    let mut options = with_users(own);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    let mut client = Client::of(options).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    let said = send(&mut client, "MAIL FROM:<you@b.test>\r\n", b"From: me@b.test\r\n\r\n", 100).await;
    assert!(said.starts_with("250"), "{said}");
}

/// What the header says, and the reply.
const HEADERS: &[(&str, &str)] = &[
    ("From: jo@b.test\r\n", "250"),
    ("From: Jo <JO@B.test>\r\n", "250"),
    ("from:\r\n\tJo\r\n <jo@\r\n b.test> (Jo)\r\n", "250"),
    ("Subject: x\r\nFrom : jo@b.test\r\nTo: you@d.test\r\n", "250"),
    ("From: Jo <jo@b.test>, list@b.test, any@c.test\r\n", "250"),
    ("From: Us: jo@b.test, list@b.test;\r\n", "250"),
    ("From: \"you@d.test\" <jo@b.test>\r\n", "250"),
    ("From: =?utf-8?q?you=40d.test?= <jo@b.test>\r\n", "250"),
    ("From: J\u{f6} <jo@b.test>\r\n", "250"),
    ("From: <@d.test,@e.test:jo@b.test>\r\n", "250"),
    ("From: jo@b.test\r\nSender: jo@b.test\r\n", "250"),
    ("From: jo@b.test\r\nResent-From: you@d.test\r\nReply-To: you@d.test\r\n", "250"),
    ("From: you@d.test\r\n", "550 5.7.1 You may not send from <you@d.test> in the From"),
    ("From: jo@b.test, you@d.test\r\n", "550 5.7.1 You may not send from <you@d.test> in the From"),
    ("From: \"jo@b.test\" <you@d.test>\r\n", "550 5.7.1 You may not"),
    ("From: <@b.test:you@d.test>\r\n", "550 5.7.1 You may not"),
    ("From: you@d.test (jo@b.test)\r\n", "550 5.7.1 You may not"),
    ("From: Us: jo@b.test, you@d.test;\r\n", "550 5.7.1 You may not"),
    ("From: jo@b.test\r\nSender: you@d.test\r\n", "550 5.7.1 You may not send from <you@d.test> in the Sender"),
    ("From: jo@b.test\r\nSender: jo@b.test, list@b.test\r\n", "550 5.7.1 The Sender field has 2 addresses"),
    ("From: jo@b.test\r\nSender:\r\n", "550 5.7.1 The Sender field has 0 addresses"),
    ("From: you@d.test\r\nSender: jo@b.test\r\n", "550 5.7.1 You may not send from <you@d.test> in the From"),
    ("From: jo@b.test\r\nFROM: jo@b.test\r\n", "550 5.7.1 The message has two From fields"),
    ("From: jo@b.test\r\nSubject: x\r\nFrom: you@d.test\r\n", "550 5.7.1 The message has two From fields"),
    ("From: jo@b.test\r\nSender: jo@b.test\r\nSender: jo@b.test\r\n", "550 5.7.1 The message has two Sender fields"),
    ("From: jo@b.test you@d.test\r\n", "550 5.7.1 The From field cannot be read"),
    ("From: you@d.test <jo@b.test>\r\n", "550 5.7.1 The From field cannot be read"),
    ("From: <jo@b.test> <you@d.test>\r\n", "550 5.7.1 The From field cannot be read"),
    ("From: Jo\r\n", "550 5.7.1 The From field cannot be read"),
    ("From: =?utf-8?q?jo=40b.test?=\r\n", "550 5.7.1 The From field cannot be read"),
    ("From: (jo@b.test\r\n", "550 5.7.1 The From field cannot be read"),
    ("From:\r\n", "550 5.7.1 The message has no From field"),
    ("From: Us:;\r\n", "550 5.7.1 The message has no From field"),
    ("Subject: x\r\n From: jo@b.test\r\n", "550 5.7.1 The message has no From field"),
    ("X-From: jo@b.test\r\nResent-From: jo@b.test\r\n", "550 5.7.1 The message has no From field"),
    ("", "550 5.7.1 The message has no From field"),
    ("no header\r\nFrom: jo@b.test\r\n", "550 5.7.1 The message has no From field"),
    (" From: jo@b.test\r\nFrom: jo@b.test\r\n", "550 5.7.1 The message has no From field"),
];

#[tokio::test]
async fn the_header_names_addresses_of_the_user() {
    let (relay, log) = support::relay(with_users(own));
    let mut free = logged_in(JO, with_users(|_| ())).await;
    for (header, wanted) in HEADERS {
        let mut client = with(JO, relay.clone(), log.clone()).await;
        let content_sent = format!("{header}\r\nFrom: body@d.test\r\n");
        for size in [1, content_sent.len() / 2 + 1, content_sent.len()] {
            let said = send(&mut client, MAIL, content_sent.as_bytes(), size).await;
            assert!(said.starts_with(wanted), "{header:?} by {size}: {said}");
            if said.starts_with("250") {
                let (_, taken) = client.take().await;
                assert_eq!(content(&taken), content_sent, "by {size}");
            }
        }
        let said = send(&mut free, MAIL, content_sent.as_bytes(), content_sent.len()).await;
        assert!(said.starts_with("250"), "{header:?}: {said}");
    }
}

#[tokio::test]
async fn a_from_field_outside_utf_8_and_a_header_without_an_end_are_refused() {
    let mut client = logged_in(JO, with_users(own)).await;
    let said = send(&mut client, MAIL, b"From: J\xf6 <jo@b.test>\r\n\r\n", 100).await;
    assert!(said.starts_with("550 5.7.1 The From field cannot be read"), "{said}");
    let line = format!("X: {}\r\n", "x".repeat(95));
    for (lines, wanted) in [(600, "250"), (700, "552 5.3.4 The header section has more than 65536 octets")] {
        for ending in ["\r\nbody\r\n", ""] {
            let content = format!("From: jo@b.test\r\n{}{ending}", line.repeat(lines));
            let said = send(&mut client, MAIL, content.as_bytes(), 30_000).await;
            assert!(said.starts_with(wanted), "{lines} {ending:?}: {said}");
        }
    }
    // 100 addresses are read, and no more.
    for (authors, wanted) in [(100, "250"), (101, "550 5.7.1 The From field has more than 100")] {
        let content = format!("From: {}\r\n\r\n", vec!["jo@b.test"; authors].join(",\r\n "));
        let said = send(&mut client, MAIL, content.as_bytes(), 30_000).await;
        assert!(said.starts_with(wanted), "{authors}: {said}");
    }
}

/// RFC 5322 section 3.6.2: a secretary.
#[tokio::test]
async fn a_sender_field_suffices_where_the_operator_says_so() {
    let options = with_users(|options| {
        own(options);
        options.submission.sender_suffices = true;
    });
    let mut client = logged_in(JO, options).await;
    for (header, wanted) in [
        ("From: you@d.test\r\nSender: jo@b.test\r\n", "250"),
        ("From: you@d.test, me@d.test\r\nSender: jo@b.test\r\n", "250"),
        ("From: you@d.test\r\nSender: you@d.test\r\n", "550 5.7.1 You may not"),
        ("From: you@d.test\r\n", "550 5.7.1 You may not"),
        ("From: jo@b.test\r\n", "250"),
        ("From: you@d.test\r\nFrom: me@d.test\r\nSender: jo@b.test\r\n", "550 5.7.1 The message has two"),
    ] {
        let said = send(&mut client, MAIL, format!("{header}\r\n").as_bytes(), 1_000).await;
        assert!(said.starts_with(wanted), "{header:?}: {said}");
    }
}

/// Asks about each address, and fails for some.
struct Database;

impl Senders for Database {
    async fn may_use(&self, _: &Context, identity: &str, sender: &Mailbox) -> Result<bool, Refusal> {
        assert_eq!(identity, "robot");
        match sender.local_part() {
            "away" => Err(refusal!("451 4.3.0 Try again later")),
            "panic" => panic!("as the test wants it"),
            name => Ok(name == "known"),
        }
    }
}

#[tokio::test]
async fn an_application_decides_about_senders() {
    let log = Log::default();
    let relay = Relay::builder(
        posthaste_queue::memory::MemoryQueue::default(),
        posthaste_relay::client::SystemResolver,
        with_users(|_| ()),
    );
    let relay = relay.senders(Database).observer(log.clone()).build();
    let mut client = with(ROBOT, relay, log).await;
    for (name, wanted) in
        [("known", "250"), ("other", "550 5.7.1"), ("away", "451 4.3.0"), ("panic", "451 4.3.0"), ("known", "250")]
    {
        let said = client.talk(&["RSET\r\n", &format!("MAIL FROM:<{name}@d.test>\r\n")]).await;
        assert!(said.starts_with(wanted), "{name}: {said}");
        client.talk(&["RSET\r\n"]).await;
        let header = format!("From: known@d.test, {name}@d.test\r\n\r\n");
        let said = send(&mut client, "MAIL FROM:<known@d.test>\r\n", header.as_bytes(), 100).await;
        assert!(said.starts_with(wanted), "{name}: {said}");
    }
}

fn tagged(options: &mut RelayOptions) {
    options.submission.tag_field = Some("X-Campaign".parse().unwrap());
}

/// The content as it is sent, as it is stored, and the owner.
const TAGGED: &[(&str, &str, &str)] = &[
    (
        "X-Campaign: spring\r\nSubject: x\r\n\r\nX-Campaign: body\r\n",
        "Subject: x\r\n\r\nX-Campaign: body\r\n",
        "spring",
    ),
    (
        "Subject: x\r\nx-campaign :\r\n\tspring\r\n sale\r\nTo: a\r\n b\r\n\r\n",
        "Subject: x\r\nTo: a\r\n b\r\n\r\n",
        "spring sale",
    ),
    ("Subject: x\r\nX-Campaign:spring\r\n", "Subject: x\r\n", "spring"),
    ("X-Campaign: spring\r\n\r\n body\r\n", "\r\n body\r\n", "spring"),
    ("Subject: x\r\nX-Campaign: \r\n\r\n", "Subject: x\r\n\r\n", "jo@b.test"),
    ("Subject: x\r\n\r\nX-Campaign: body\r\n", "Subject: x\r\n\r\nX-Campaign: body\r\n", "jo@b.test"),
    ("Subject: x\r\n X-Campaign: folded\r\n\r\n", "Subject: x\r\n X-Campaign: folded\r\n\r\n", "jo@b.test"),
    ("X-Campaign: spr\u{fc}che\r\n\r\n\u{e4}\r\n", "\r\n\u{e4}\r\n", "spr\u{fc}che"),
    ("no header\r\nX-Campaign: body\r\n", "no header\r\nX-Campaign: body\r\n", "jo@b.test"),
    ("", "", "jo@b.test"),
];

#[tokio::test]
async fn the_field_of_a_campaign_becomes_the_owner_and_is_not_stored() {
    let mut client = logged_in(JO, with_users(tagged)).await;
    for (sent, stored, owner) in TAGGED {
        for size in [1, 7, sent.len() / 2 + 1, sent.len().max(1)] {
            let said = send(&mut client, MAIL, sent.as_bytes(), size).await;
            assert!(said.starts_with("250"), "{sent:?}: {said}");
            let newest = client.relay.queue().list(None, 1_000).await.unwrap().pop().unwrap();
            assert_eq!(newest.owner.as_str(), *owner, "{sent:?}");
            let (_, taken) = client.take().await;
            assert_eq!(content(&taken), *stored, "{sent:?} by {size}");
        }
    }
    for (sent, wanted) in [
        ("X-Campaign: a\r\nX-CAMPAIGN: b\r\n\r\n", "554 5.6.0 The message has two X-Campaign fields"),
        ("X-Campaign: a\u{7f}b\r\n\r\n", "554 5.6.0 The X-Campaign field has control"),
        (&format!("X-Campaign: {}\r\n\r\n", "x".repeat(256)), "554 5.6.0 The X-Campaign field has 256 octets"),
        (&format!("{}X-Campaign: a\r\n\r\n", "A: b\r\n".repeat(11_000)), "552 5.3.4 The header section has more than"),
    ] {
        let said = send(&mut client, MAIL, sent.as_bytes(), 40_000).await;
        assert!(said.starts_with(wanted), "{wanted}: {said}");
    }
}

#[tokio::test]
async fn content_of_any_octets_loses_the_field_too() {
    let mut client = logged_in(JO, with_users(tagged)).await;
    client.talk(&["MAIL FROM:<jo@b.test> BODY=BINARYMIME\r\n", RECIPIENT]).await;
    let said = client.chunk(b"A: b\nX-Campaign: spring\n folded\nC: d\r\n\n\0X-Campaign: body", true).await;
    assert!(said.starts_with("250"), "{said}");
    let (_, taken) = client.take().await;
    assert_eq!(content(&taken), "A: b\nC: d\r\n\n\0X-Campaign: body");
}

#[tokio::test]
async fn the_field_has_no_meaning_in_mail_of_strangers() {
    let mut options = with_users(tagged);
    options.policy.relay_domains.push("d.test".parse().unwrap());
    let mut client = Client::of(options).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    let sent = "X-Campaign: spring\r\nX-Campaign: summer\r\n\r\nbody\r\n";
    assert!(send(&mut client, MAIL, sent.as_bytes(), 1_000).await.starts_with("250"));
    let newest = client.relay.queue().list(None, 1_000).await.unwrap().pop().unwrap();
    assert_eq!(newest.owner.as_str(), "127.0.0.1");
    assert_eq!(content(&client.take().await.1), sent);
}

#[tokio::test]
async fn fields_are_added_to_a_message_whose_campaign_was_removed() {
    let options = with_users(|options| {
        tagged(options);
        own(options);
        options.add_fields = AddFields::Submitted;
    });
    let mut client = logged_in(JO, options).await;
    for size in [1, 1_000] {
        let said = send(&mut client, MAIL, b"X-Campaign: spring\r\nFrom: jo@b.test\r\n\r\nbody\r\n", size).await;
        assert!(said.starts_with("250"), "{said}");
        let (_, taken) = client.take().await;
        let content = content(&taken);
        assert!(content.starts_with("Date: ") && content.contains("\r\nMessage-ID: <"), "{content}");
        assert!(content.ends_with("@relay.test>\r\nFrom: jo@b.test\r\n\r\nbody\r\n"), "{content}");
    }
}

#[tokio::test]
async fn the_campaign_of_a_message_decides_its_route() {
    let options = with_users(|options| {
        tagged(options);
        let mut rule = Rule::new("summer".parse().unwrap(), Route::hosts(vec![("[127.0.0.1]", 1)]));
        rule.tags = Some(["summer".to_owned()].into());
        options.routes = RouteTable::empty();
        options.routes.push_rule(rule).unwrap();
        options.routes.push(["*".parse().unwrap()], Route::hosts(vec![("[127.0.0.1]", 1)]));
    });
    let mut client = logged_in(JO, options).await;
    for (header, key) in
        [("X-Campaign: summer\r\n", "d.test summer"), ("X-Campaign: winter\r\n", "d.test"), ("", "d.test")]
    {
        let said = send(&mut client, MAIL, format!("{header}\r\nbody\r\n").as_bytes(), 100).await;
        assert!(said.starts_with("250"), "{said}");
        let newest = client.relay.queue().list(None, 1_000).await.unwrap().pop().unwrap();
        assert_eq!(newest.deliveries[0].key.as_str(), key, "{header}");
    }
}

/// Lets users send what their name says.
struct Sizes;

impl Policy for Sizes {
    async fn trusts(&self, cx: &Context) -> Result<bool, Refusal> {
        Ok(cx.peer.identity.is_some())
    }

    async fn serves(&self, _: &Context, _: &Domain<&str>) -> Result<bool, Refusal> {
        Ok(true)
    }

    async fn message_size(&self, cx: &Context, trusted: bool) -> Result<Option<u64>, Refusal> {
        assert_eq!(trusted, cx.peer.identity.is_some());
        match cx.peer.identity.as_deref() {
            Some("robot") => Err(refusal!("451 4.3.0 Try again later")),
            Some(_) => Ok(Some(100)),
            None => Ok(None),
        }
    }
}

const TOO_LARGE: &str = "552 5.3.4 The message is larger than this client may send";

#[tokio::test]
async fn a_message_has_the_size_that_the_policy_says() {
    for chunked in [false, true] {
        let options = with_users(|options| {
            options.policy.user_sizes.insert("jo@b.test".to_owned(), 100);
            options.policy.stranger_size = Some(10);
            options.policy.relay_domains.push("d.test".parse().unwrap());
        });
        let (relay, log) = support::relay(options);
        let jo = with(JO, relay.clone(), log.clone()).await;
        let robot = with(ROBOT, relay.clone(), log.clone()).await;
        let mut stranger = Client::with(relay, log).await;
        stranger.talk(&["EHLO c.test\r\n"]).await;
        let mut clients = [jo, robot, stranger];
        for (client, size, is_taken) in
            [(0, 100, true), (0, 101, false), (1, 5_000, true), (2, 10, true), (2, 12, false)]
        {
            let client: &mut Client = &mut clients[client];
            let declared = format!("MAIL FROM:<jo@b.test> SIZE={size}\r\n");
            let said = client.talk(&[&declared]).await;
            assert_eq!(said.starts_with(TOO_LARGE), !is_taken, "{size}: {said}");
            client.talk(&["RSET\r\n"]).await;
            // It says a smaller size, or none.
            for mail in ["MAIL FROM:<jo@b.test> SIZE=1\r\n", MAIL] {
                let content = format!("{}{}\r\n", "x".repeat(size % 10 + 8), "\r\n12345678".repeat(size / 10 - 1));
                let said = if chunked {
                    client.talk(&[mail, RECIPIENT]).await;
                    client.chunk(content.as_bytes(), true).await
                } else {
                    send(client, mail, content.as_bytes(), 40).await
                };
                let wanted = if is_taken { "250" } else { TOO_LARGE };
                assert!(said.starts_with(wanted), "{size}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn an_application_decides_about_sizes() {
    let log = Log::default();
    let relay = Relay::builder(
        posthaste_queue::memory::MemoryQueue::default(),
        posthaste_relay::client::SystemResolver,
        with_users(|_| ()),
    );
    let relay = relay.policy(Sizes).observer(log.clone()).build();
    let mut jo = with(JO, relay.clone(), log.clone()).await;
    assert!(jo.talk(&["MAIL FROM:<a@b.test> SIZE=101\r\n"]).await.starts_with(TOO_LARGE));
    assert!(jo.talk(&["MAIL FROM:<a@b.test> SIZE=100\r\n"]).await.starts_with("250"));
    let mut robot = with(ROBOT, relay.clone(), log.clone()).await;
    assert!(robot.talk(&[MAIL]).await.starts_with("451 4.3.0"));
    let mut stranger = Client::with(relay, log).await;
    assert!(stranger.talk(&["EHLO c.test\r\n", "MAIL FROM:<a@b.test> SIZE=5000\r\n"]).await.starts_with("250"));
}
