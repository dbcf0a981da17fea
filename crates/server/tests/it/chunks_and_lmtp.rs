//! Messages in chunks, and messages with a reply for each recipient.

use std::{sync::Arc, time::Duration};

use crate::support::{self, NO, Running, settings, start};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Peer, PeerAddress, Refusal, Server, ServerOptions, Tls,
    accepted, refusal,
    session::{
        ServerSettings,
        server::{OtherCommand, Protocol},
    },
};
use posthaste_testkit::talk::Talk;

async fn chunking() -> Running {
    let mut settings = settings();
    settings.offers.chunking = true;
    settings.timeouts.verdict = Duration::from_millis(200);
    start(settings, Tls::Off, ServerOptions::default()).await
}

async fn opened(talk: &mut Talk<tokio::net::TcpStream>, from: &str) {
    talk.expect(&format!("MAIL FROM:<{from}>"), "250").await;
    talk.expect("RCPT TO:<a@d.test>", "250").await;
}

#[tokio::test]
async fn chunks_make_one_message() {
    let server = chunking().await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    opened(&mut talk, "good@b.test").await;
    talk.send("BDAT 5\r\n.\r\nab").await;
    assert_eq!(talk.reply().await, "250 2.0.0 Chunk taken");
    talk.expect("NOOP", "250 2.0.0").await;
    talk.send("BDAT 2 LAST\r\nxxNOOP\r\n").await;
    assert_eq!((talk.reply().await.as_str(), talk.reply().await.as_str()), ("250 2.0.0 Yes", "250 2.0.0 Ok"));
    let seen = server.names.seen.lock().unwrap();
    assert_eq!(seen.iter().map(|(_, _, octets)| *octets).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn a_handler_refuses_or_errs_at_any_point() {
    let server = chunking().await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    for (name, code) in [("refuse", "550 5.7.1"), ("late", "451 4.3.0")] {
        for point in ["data", "early", "half"] {
            opened(&mut talk, &format!("{name}-{point}@b.test")).await;
            talk.send("BDAT 6\r\nRSET\r\n").await;
            let said = talk.reply().await;
            // The handler's refusal is the reply to this chunk if it came in time, or else to the
            // next.
            if said.starts_with("250") {
                talk.send("BDAT 6 LAST\r\nRSET\r\n").await;
                let said = talk.reply().await;
                assert!(said.starts_with(code), "{name}-{point}: {said}");
            } else {
                assert!(said.starts_with(code), "{name}-{point}: {said}");
                talk.send("BDAT 6 LAST\r\nRSET\r\n").await;
                assert_eq!(talk.reply().await, "503 5.5.1 Send RSET first", "{name}-{point}");
                talk.expect("RSET", "250").await;
            }
        }
        opened(&mut talk, &format!("{name}-end@b.test")).await;
        talk.send("BDAT 6 LAST\r\nRSET\r\n").await;
        let said = talk.reply().await;
        assert!(said.starts_with(code), "{name}-end: {said}");
    }
    assert!(server.names.seen.lock().unwrap().is_empty());
    assert_eq!(talk.message("good@b.test", "x").await, "250 2.0.0 Yes");
}

#[tokio::test]
async fn a_message_that_the_client_gives_up_between_chunks_is_not_delivered() {
    let server = chunking().await;
    for ending in ["RSET", "EHLO c.test", "QUIT", "<close>"] {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        opened(&mut talk, "good@b.test").await;
        talk.send("BDAT 2\r\nab").await;
        assert_eq!(talk.reply().await, "250 2.0.0 Chunk taken");
        match ending {
            "<close>" => drop(talk),
            "QUIT" => talk.expect(ending, "221").await,
            _ => {
                talk.expect(ending, "250").await;
                assert_eq!(talk.message("good@b.test", "x").await, "250 2.0.0 Yes", "{ending}");
            }
        }
    }
    server.drain.cancel();
    server.task.await.unwrap();
    let octets: Vec<_> = server.names.seen.lock().unwrap().iter().map(|(_, _, octets)| *octets).collect();
    assert_eq!(octets, [3, 3]);
}

/// Polls the body only when it was woken, and not whenever its task is.
struct Reads;

impl Handler for Reads {
    async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let mut reading: FuturesUnordered<_> = std::iter::once(body.collect(1_000)).collect();
        reading.next().await.transpose()?;
        Ok(accepted!("250 2.0.0 Yes"))
    }
}

#[tokio::test]
async fn a_client_that_pauses_between_chunks_costs_the_handler_no_time() {
    let mut settings = settings();
    settings.offers.chunking = true;
    settings.timeouts.content_block = Duration::from_millis(100);
    settings.timeouts.verdict = Duration::from_millis(100);
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(Server::new(|_| async { Ok(Reads) }).listen(listener).serve());
    let mut talk = Talk::connect(address).await.greeted().await;
    opened(&mut talk, "good@b.test").await;
    talk.send("BDAT 3\r\nx\r\n").await;
    assert!(talk.reply().await.starts_with("250"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    talk.send("BDAT 3 LAST\r\ny\r\n").await;
    assert_eq!(talk.reply().await, "250 2.0.0 Yes");
}

/// Delivers to all mailboxes but those named `full`.
struct Mailboxes;

impl Handler for Mailboxes {
    async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
        Err(NO)
    }

    async fn deliver(
        &mut self,
        _: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> Result<Vec<Result<Accepted, Refusal>>, Refusal> {
        body.collect(1_000).await?;
        let full = |name: String| name.contains("full");
        let mailboxes = envelope.recipients.iter().map(|rcpt| full(rcpt.forward_path.to_string()));
        Ok(mailboxes.map(|full| if full { Err(NO) } else { Ok(accepted!("250 2.0.0 Yes")) }).collect())
    }

    async fn other(&mut self, _: &Context, command: &OtherCommand) -> Result<Accepted, Refusal> {
        match command {
            OtherCommand::Vrfy(name) if name == "someone" => Ok(accepted!("250 2.1.5 <someone@d.test>")),
            _ => Err(refusal!("550 5.1.1 No such user")),
        }
    }
}

async fn mailboxes() -> Talk<tokio::net::TcpStream> {
    let mut settings = ServerSettings::lmtp("mda.test".parse().expect("a domain"));
    settings.offers.other_commands = true;
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(Server::new(|_| async { Ok(Mailboxes) }).listen(listener).serve());
    let mut talk = Talk::connect(address).await;
    assert_eq!(talk.reply().await, "220 mda.test LMTP ready");
    talk.expect("LHLO c.test", "250").await;
    talk
}

#[tokio::test]
async fn under_lmtp_each_recipient_has_a_reply() {
    let mut talk = mailboxes().await;
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    for name in ["one", "full", "two"] {
        talk.expect(&format!("RCPT TO:<{name}@d.test>"), "250").await;
    }
    talk.expect("DATA", "354").await;
    assert_eq!(talk.ask("x\r\n.").await, "250 2.0.0 Yes");
    assert_eq!(talk.reply().await, "550 5.7.1 No");
    assert_eq!(talk.reply().await, "250 2.0.0 Yes");
    talk.expect("QUIT", "221").await;
}

#[tokio::test]
async fn under_lmtp_a_reply_for_everyone_is_said_to_each() {
    let settings = Arc::new({
        let mut settings = settings();
        settings.protocol = Protocol::Lmtp;
        settings
    });
    let (ours, theirs) = tokio::io::duplex(4_096);
    let peer = Peer::new(PeerAddress::Local, PeerAddress::Local);
    tokio::spawn(async move {
        let names = support::Names::default();
        posthaste_server::converse(theirs, peer, &names, settings, Tls::Off, std::future::pending()).await
    });
    let mut talk = Talk::new(ours);
    assert!(talk.reply().await.starts_with("220"));
    talk.expect("LHLO c.test", "250").await;
    for (from, code) in [("good@b.test", "250 2.0.0 Yes"), ("refuse-early@b.test", "550 5.7.1 No")] {
        talk.expect(&format!("MAIL FROM:<{from}>"), "250").await;
        talk.expect("RCPT TO:<a@d.test>", "250").await;
        talk.expect("RCPT TO:<c@d.test>", "250").await;
        talk.expect("DATA", "354").await;
        assert_eq!(talk.ask("x\r\n.").await, code);
        assert_eq!(talk.reply().await, code);
    }
}

#[tokio::test]
async fn other_commands_are_the_handlers() {
    let mut talk = mailboxes().await;
    talk.expect("VRFY someone", "250 2.1.5 <someone@d.test>").await;
    talk.expect("EXPN list", "550 5.1.1").await;
    talk.expect("XYZZY", "550 5.1.1").await;
}
