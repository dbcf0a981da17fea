//! The client delivers to mail servers of others: the messages arrive octet for octet after the
//! server's trace fields, and a recipient that the server refuses has that outcome.

mod support;

use posthaste::client::session::client::downgrade::Undeliverable;
use posthaste::client::wire::{BodyType, Mail, Notify, Rcpt, Ret, Xtext, capability::Keyword};
use posthaste::client::{Client, ClientOptions, Credentials, RecipientOutcome, RefusedAt, Tls};
use support::next_hops::NextHop;
use support::{added, corpus};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use Keyword::{Chunking, Dsn, EightBitMime, Pipelining, SmtpUtf8};

/// What servers put in front of a message.
const TRACE: &[&str] = &[
    "Received:",
    "Authentication-Results:",
    "Return-path:",
    "Return-Path:",
    "Delivered-To:",
    "X-Original-To:",
    "Envelope-to:",
    "Delivery-date:",
];

/// The extensions that make a difference to how a message goes.
const EXTENSIONS: [Keyword; 5] = [Pipelining, Chunking, EightBitMime, Dsn, SmtpUtf8];

/// Octets of a message that a server changes, and what it puts in their place.
type Changed = (&'static [u8], &'static [u8]);

#[tokio::test]
async fn postfix_takes_every_message() {
    let Some(server) = NextHop::postfix() else { return };
    // Postfix takes out the space before the colon of a header field.
    let changed: Changed = (b"X-B :c", b"X-B:c");
    deliver(server, &[Pipelining, Chunking, EightBitMime, Dsn, SmtpUtf8], &[changed]).await;
}

#[tokio::test]
async fn exim_takes_every_message() {
    let Some(server) = NextHop::exim() else { return };
    deliver(server, &[Pipelining, Chunking, EightBitMime, Dsn, SmtpUtf8], &[]).await;
}

// OpenSMTPD 6.8, which Debian 12 has, breaks off in each handshake. With opportunistic TLS the
// client then connects again without.
#[tokio::test]
async fn opensmtpd_takes_every_message_that_needs_no_smtputf8() {
    let Some(mut server) = NextHop::opensmtpd() else { return };
    let (address, mut options) = (server.address(), server.options());
    options.tls = Tls::opportunistic().expect("a provider");
    options.credentials = None;
    let mut client = Client::connect(address, &options).await.expect("the server is ready");
    assert!(client.is_tls() || client.is_tls_suspected());
    assert_eq!(offered(&client), [EightBitMime, Dsn]);
    send_corpus(&mut client, &server, &[]).await;
    client.quit().await;
}

#[tokio::test]
async fn aiosmtpd_takes_every_message() {
    deliver(NextHop::aiosmtpd(), &[EightBitMime, SmtpUtf8], &[]).await;
}

#[tokio::test]
async fn smtp_server_of_node_takes_every_message() {
    deliver(NextHop::smtp_server(), &[Pipelining, EightBitMime, Dsn, SmtpUtf8], &[]).await;
}

#[tokio::test]
async fn haraka_takes_every_message() {
    // Haraka takes header fields for UTF-8, and puts U+FFFD for each octet that is not.
    let changed: Changed = (b"caf\xE9\r\n\r\n", b"caf\xEF\xBF\xBD\r\n\r\n");
    deliver(NextHop::haraka(), &[Pipelining, EightBitMime, SmtpUtf8], &[changed]).await;
}

/// Sends the corpus over one connection with TLS and a login; and again by DATA, where it went by
/// BDAT.
async fn deliver(mut server: NextHop, extensions: &[Keyword], changed: &[Changed]) {
    let (address, mut options) = (server.address(), server.options());
    for chunking in [true, false] {
        options.session.chunking = chunking;
        let mut client = Client::connect(address, &options).await.expect("the server is ready");
        assert_eq!(offered(&client), extensions);
        assert!(client.facts().is_verified);
        send_corpus(&mut client, &server, changed).await;
        client.quit().await;
        if !extensions.contains(&Chunking) {
            break;
        }
    }
    refuses_mail_without_a_login(address, options).await;
}

fn offered<S: AsyncRead + AsyncWrite + Unpin>(client: &Client<S>) -> Vec<Keyword> {
    EXTENSIONS.into_iter().filter(|extension| client.capabilities().offers(*extension)).collect()
}

/// Sends each message to a recipient that the server knows and to one that it does not.
async fn send_corpus(client: &mut Client<TcpStream>, server: &NextHop, changed: &[Changed]) {
    let has_utf8 = client.capabilities().offers(SmtpUtf8);
    for (name, _, octets) in corpus() {
        let is_utf8 = name.starts_with("eai");
        let (from, to) = match name.as_str() {
            "eai-addresses" => ("用户@例え.test", "δοκιμή@παράδειγμα.test"),
            _ => ("me@sender.test", "you@dest.test"),
        };
        let mut mail: Mail = from.try_into().expect("an address");
        mail.body = (!octets.is_ascii()).then_some(BodyType::EightBitMime);
        mail.smtputf8 = is_utf8;
        mail.ret = Some(Ret::Headers);
        mail.envid = Some(Xtext::encode(b"corpus+1 of 9").expect("printable"));
        let recipients = [to, "gone@dest.test"].map(|to| {
            let mut rcpt: Rcpt = to.try_into().expect("an address");
            rcpt.notify = Some(Notify::NEVER);
            rcpt
        });
        let sent = client.send(mail, recipients, octets.clone()).await.expect("the arguments are good");
        let outcomes = sent.recipients.iter().map(|recipient| &recipient.outcome).collect::<Vec<_>>();
        if is_utf8 && !has_utf8 {
            let is_undeliverable =
                |outcome: &&_| matches!(outcome, RecipientOutcome::Undeliverable(Undeliverable::Utf8));
            assert!(outcomes.iter().all(is_undeliverable), "{name}: {sent:?}");
            continue;
        }
        let [RecipientOutcome::Accepted(_), RecipientOutcome::Refused(reply, RefusedAt::LaterRcpt)] = outcomes[..]
        else {
            panic!("{name}: {sent:?}");
        };
        assert_eq!(reply.code().get(), 550, "{name}: {reply}");
        assert!(outcomes[1].is_permanent(), "{name}: {reply}");
        let expected = changed.iter().fold(octets, |octets, (from, to)| replaced(&octets, from, to));
        added(&name, &server.taken(), &expected, TRACE);
    }
}

async fn refuses_mail_without_a_login(address: (&str, u16), mut options: ClientOptions) {
    options.credentials = None;
    let mut client = Client::connect(address, &options).await.expect("the server is ready");
    let sent = client.send("me@sender.test", ["you@dest.test"], "Subject: x\r\n\r\nHello\r\n").await.expect("good");
    assert!(matches!(sent.recipients[0].outcome, RecipientOutcome::Refused(..)), "{sent:?}");
    client.quit().await;

    options.credentials = Some(Credentials::new("me", "wrong").into());
    let error = Client::connect(address, &options).await.expect_err("the password is wrong");
    assert_eq!(error.reply().map(|reply| reply.code().get()), Some(535), "{error}");
}

/// The octets with the first occurrence of `from` replaced.
fn replaced(octets: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match octets.windows(from.len()).position(|window| window == from) {
        Some(at) => [&octets[..at], to, &octets[at + from.len()..]].concat(),
        None => octets.to_vec(),
    }
}
