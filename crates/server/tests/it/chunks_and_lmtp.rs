//! Messages in chunks, and messages with a reply for each recipient.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Refusal, accepted, handlers, refusal,
    session::{ServerSettings, server::OtherCommand},
    test::Client,
};

use crate::support::{NO, Names, settings};

fn chunking() -> ServerSettings {
    let mut settings = settings();
    settings.offers.chunking = true;
    settings
}

/// A client of these names, after EHLO.
async fn client(names: &Names) -> Client {
    let mut client = Client::connect(names.clone()).settings(chunking()).await;
    client.ehlo().await;
    client
}

async fn opened(client: &mut Client, from: &str) {
    client.says(&format!("MAIL FROM:<{from}>")).await.expect("250");
    client.says("RCPT TO:<a@d.test>").await.expect("250");
}

#[tokio::test(start_paused = true)]
async fn chunks_make_one_message() {
    let names = Names::default();
    let mut client = client(&names).await;
    opened(&mut client, "good@b.test").await;
    client.write("BDAT 5\r\n.\r\nab").await;
    client.reply().await.expect("250 2.0.0 Chunk taken");
    client.says("NOOP").await.expect("250 2.0.0");
    client.write("BDAT 2 LAST\r\nxxNOOP\r\n").await;
    client.reply().await.expect("250 2.0.0 Yes");
    client.reply().await.expect("250 2.0.0 Ok");
    let seen = names.seen.lock().unwrap();
    assert_eq!(seen.iter().map(|(_, _, octets)| *octets).collect::<Vec<_>>(), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_refuses_or_errs_at_any_point() {
    let names = Names::default();
    let mut client = client(&names).await;
    for (name, code) in [("refuse", "550 5.7.1"), ("late", "451 4.3.0")] {
        for point in ["data", "early", "half"] {
            opened(&mut client, &format!("{name}-{point}@b.test")).await;
            client.write("BDAT 6\r\nRSET\r\n").await;
            let said = client.reply().await;
            // The handler's refusal is the reply to this chunk if it came in time, or else to the
            // next.
            if said.code() == 250 {
                client.write("BDAT 6 LAST\r\nRSET\r\n").await;
                client.reply().await.expect(code);
            } else {
                said.expect(code);
                client.write("BDAT 6 LAST\r\nRSET\r\n").await;
                client.reply().await.expect("503 5.5.1 Send RSET first");
                client.says("RSET").await.expect("250");
            }
        }
        opened(&mut client, &format!("{name}-end@b.test")).await;
        client.write("BDAT 6 LAST\r\nRSET\r\n").await;
        client.reply().await.expect(code);
    }
    assert!(names.seen.lock().unwrap().is_empty());
    client.send("good@b.test", ["a@d.test"], "x\r\n").await.expect("250 2.0.0 Yes");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_client_gives_up_between_chunks_is_not_delivered() {
    let names = Names::default();
    let mut first = client(&names).await;
    for ending in ["RSET", "EHLO c.test", "QUIT", "<close>"] {
        let mut client = first.another().await;
        client.ehlo().await;
        opened(&mut client, "good@b.test").await;
        client.write("BDAT 2\r\nab").await;
        client.reply().await.expect("250 2.0.0 Chunk taken");
        match ending {
            "<close>" => drop(client),
            "QUIT" => client.quit().await,
            _ => {
                client.says(ending).await.expect("250");
                client.send("good@b.test", ["a@d.test"], "x\r\n").await.expect("250 2.0.0 Yes");
            }
        }
    }
    first.drain();
    first.drained().await;
    let octets: Vec<_> = names.seen.lock().unwrap().iter().map(|(_, _, octets)| *octets).collect();
    assert_eq!(octets, [3, 3]);
}

/// Polls the body only when it was woken, and not whenever its task is.
#[derive(Clone)]
struct Reads;

impl Handler for Reads {
    async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let mut reading: FuturesUnordered<_> = std::iter::once(body.collect(1_000)).collect();
        reading.next().await.transpose()?;
        Ok(accepted!("250 2.0.0 Yes"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pauses_between_chunks_costs_the_handler_no_time() {
    let mut settings = chunking();
    settings.timeouts.content_block = Duration::from_millis(100);
    settings.timeouts.verdict = Duration::from_millis(100);
    let mut client = Client::connect(handlers::cloned(Reads)).settings(settings).await;
    client.ehlo().await;
    opened(&mut client, "good@b.test").await;
    client.write("BDAT 3\r\nx\r\n").await;
    client.reply().await.expect("250");
    client.wait(Duration::from_secs(60)).await;
    client.write("BDAT 3 LAST\r\ny\r\n").await;
    client.reply().await.expect("250 2.0.0 Yes");
}

/// Delivers to all mailboxes but those named `full`.
#[derive(Clone)]
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

fn lmtp() -> ServerSettings {
    let mut settings = ServerSettings::lmtp("mda.test".parse().expect("a domain"));
    settings.offers.other_commands = true;
    settings
}

#[tokio::test(start_paused = true)]
async fn under_lmtp_each_recipient_has_a_reply() {
    let mut client = Client::connect(handlers::cloned(Mailboxes)).settings(lmtp()).await;
    assert_eq!(*client.greeting(), "220 mda.test LMTP ready");
    client.ehlo().await;
    let sent = client.send("a@b.test", ["one@d.test", "full@d.test", "two@d.test"], "x\r\n").await;
    sent.expect_each(["250 2.0.0 Yes", "550 5.7.1 No", "250 2.0.0 Yes"]);
    client.quit().await;
}

#[tokio::test(start_paused = true)]
async fn under_lmtp_a_reply_for_everyone_is_said_to_each() {
    let mut client = Client::connect(Names::default()).settings(lmtp()).peer("local").await;
    client.ehlo().await;
    for (from, code) in [("good@b.test", "250 2.0.0 Yes"), ("refuse-early@b.test", "550 5.7.1 No")] {
        client.send(from, ["a@d.test", "c@d.test"], "x\r\n").await.expect_each([code, code]);
    }
}

#[tokio::test(start_paused = true)]
async fn other_commands_are_the_handlers() {
    let mut client = Client::connect(handlers::cloned(Mailboxes)).settings(lmtp()).await;
    client.ehlo().await;
    client.says("VRFY someone").await.expect("250 2.1.5 <someone@d.test>");
    client.says("EXPN list").await.expect("550 5.1.1");
    client.says("XYZZY").await.expect("550 5.1.1");
}
