//! Layers: what they leave out changes nothing, and what they refuse is refused.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{self, Poll},
    time::Duration,
};

use crate::support::{self, Names};
use bytes::Bytes;
use futures_core::Stream;
use posthaste_server::{
    Asked, Body, BodyError, Context, Envelope, Layer, Listener, Login, Refusal, SaslError, Server, Service, refusal,
    session::{
        ServerSettings,
        server::{OtherCommand, Protocol},
    },
    wire::{EhloName, Mail, Mechanism, MechanismSet, Rcpt},
};
use posthaste_testkit::talk::Talk;

/// Names no method.
#[derive(Clone)]
struct Empty;

impl Layer for Empty {}

fn settings(protocol: Protocol) -> ServerSettings {
    let mut settings = support::settings();
    settings.protocol = protocol;
    settings.timeouts.verdict = Duration::from_millis(100);
    settings.offers.other_commands = true;
    settings.offers.auth = MechanismSet::of(&[
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::OauthBearer,
        Mechanism::Anonymous,
        Mechanism::ScramSha256,
    ]);
    settings.offers.auth_in_clear = true;
    settings.limits.errors = 1_000;
    settings.limits.idle_commands = 1_000;
    settings.limits.auth_failures = 1_000;
    settings
}

async fn serve<V: Service>(service: V, settings: ServerSettings) -> Talk<tokio::net::TcpStream> {
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(Server::new(service).listen(listener).serve());
    Talk::connect(address).await
}

/// Everything that a client can ask, each with every way in which the handler decides.
fn questions(protocol: Protocol) -> Vec<String> {
    let hello = if protocol == Protocol::Lmtp { "LHLO" } else { "EHLO" };
    let mut lines = Vec::new();
    let mut say = |line: String| lines.push(line);
    for way in ["refuse", "late", "good"] {
        say(format!("{hello} {way}-hello.test"));
    }
    // PLAIN, LOGIN, OAUTHBEARER and ANONYMOUS: right, wrong, late.
    for login in [
        "AUTH PLAIN AG1lAHdyb25n",
        "AUTH PLAIN AGxhdGUAcmlnaHQ=",
        "AUTH ANONYMOUS bm8=",
        "AUTH OAUTHBEARER bixhPW1lLAFhdXRoPUJlYXJlciB3cm9uZwEB",
        "AQ==",
        "AUTH SCRAM-SHA-256 biwsbj1icm9rZW4scj1jbGllbnQ=",
        "AUTH PLAIN AG1lAHJpZ2h0",
    ] {
        say(login.to_owned());
    }
    say("VRFY someone".to_owned());
    for way in ["refuse", "late", "good"] {
        say(format!("MAIL FROM:<{way}-mail@b.test>"));
        say("RSET".to_owned());
        for point in ["data", "early", "half", "end"] {
            say(format!("MAIL FROM:<{way}-{point}@b.test>"));
            say(format!("RCPT TO:<{way}-rcpt@d.test>"));
            say("RCPT TO:<a@d.test>".to_owned());
            say("DATA".to_owned());
            say("x\r\n.".to_owned());
            say("RSET".to_owned());
        }
    }
    lines
}

async fn replies<V: Service>(service: V, protocol: Protocol) -> Vec<String> {
    let mut talk = serve(service, settings(protocol)).await;
    let mut replies = vec![talk.reply().await];
    let (mut recipients, mut is_content) = (0, false);
    for line in questions(protocol) {
        if line.ends_with('.') && !is_content {
            continue;
        }
        let reply = talk.ask(&line).await;
        // Under LMTP each recipient has a reply.
        let more = if is_content && protocol == Protocol::Lmtp { recipients - 1 } else { 0 };
        is_content = reply.starts_with("354");
        match line.split(' ').next() {
            Some("MAIL") => recipients = 0,
            Some("RCPT") => recipients += usize::from(reply.starts_with("250")),
            _ => {}
        }
        replies.push(format!("{line}: {reply}"));
        for _ in 0..more {
            replies.push(talk.reply().await);
        }
    }
    replies
}

#[tokio::test]
async fn a_layer_that_names_no_method_changes_no_decision() {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let (bare, wrapped) = (Names::default(), Names::default());
        let expected = replies(bare.clone(), protocol).await;
        let layered = replies(wrapped.clone().layer(Empty).layer(Empty), protocol).await;
        assert_eq!(expected, layered);
        // It is a real mixture of decisions.
        for code in ["250", "451", "454", "535", "550", "235"] {
            assert!(expected.iter().any(|line| line.contains(&format!(": {code}"))), "{code}: {expected:#?}");
        }
        let asked = |names: &Names| names.log.lock().unwrap().clone();
        assert_eq!(asked(&bare), asked(&wrapped));
    }
}

/// Refuses one kind of question, and remembers what was decided.
#[derive(Clone, Default)]
struct Refuses {
    what: &'static str,
    decided: Arc<Mutex<Vec<(Asked, bool)>>>,
}

impl Refuses {
    fn decide(&self, what: &str) -> Result<(), Refusal> {
        if self.what == what { Err(refusal!("554 5.7.0 Not past the layer")) } else { Ok(()) }
    }
}

impl Layer for Refuses {
    async fn connect(&mut self, _: &Context) -> Result<(), Refusal> {
        self.decide("connect")
    }

    async fn hello(&mut self, _: &Context, _: &EhloName) -> Result<(), Refusal> {
        self.decide("hello")
    }

    async fn login(&mut self, _: &Context, login: Login<'_>) -> Result<(), SaslError> {
        let name = match login {
            Login::Password(_) => "password",
            Login::Token(_) => "token",
            Login::Anonymous(_) => "anonymous",
            _ => "other",
        };
        if self.what == name { Err(SaslError::Credentials) } else { Ok(()) }
    }

    async fn mail(&mut self, _: &Context, _: &Mail) -> Result<(), Refusal> {
        self.decide("mail")
    }

    async fn rcpt(&mut self, cx: &Context, _: &Rcpt) -> Result<(), Refusal> {
        assert!(cx.envelope.is_some());
        self.decide("rcpt")
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        assert_eq!(cx.envelope.as_ref().unwrap().recipients.len(), 1);
        self.decide("data")
    }

    async fn message<'b>(&mut self, _: &Context, _: &mut Envelope, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        self.decide("message").map(|()| body)
    }

    async fn other(&mut self, _: &Context, _: &OtherCommand) -> Result<(), Refusal> {
        self.decide("other")
    }

    fn decided(&mut self, _: &Context, asked: Asked, refusal: Option<&Refusal>) {
        self.decided.lock().unwrap().push((asked, refusal.is_none()));
    }
}

#[tokio::test]
async fn a_refusal_of_a_layer_reaches_the_client_and_not_the_handler() {
    let lines = [
        ("hello", "EHLO c.test"),
        ("password", "AUTH PLAIN AG1lAHdyb25n"),
        ("anonymous", "AUTH ANONYMOUS YUBiLmM="),
        ("mail", "MAIL FROM:<a@b.test>"),
        ("rcpt", "RCPT TO:<a@d.test>"),
        ("data", "DATA"),
        ("message", "x\r\n."),
    ];
    for (what, _) in lines {
        let (names, layer) = (Names::default(), Refuses { what, ..Refuses::default() });
        let mut talk =
            serve(names.clone().layer(Some(layer.clone())).layer(None::<Refuses>), settings(Protocol::Smtp)).await;
        assert!(talk.reply().await.starts_with("220"));
        for (question, line) in lines {
            if question == "anonymous" && what != "anonymous" {
                continue;
            }
            let said = talk.ask(line).await;
            if question == what {
                let code = if matches!(what, "password" | "anonymous") { "535" } else { "554 5.7.0" };
                assert!(said.starts_with(code), "{what}: {said}");
                break;
            }
        }
        let log = names.log.lock().unwrap().join("\n");
        assert!(!log.contains(&format!("{what} ")), "{what}: {log}");
        assert!(names.seen.lock().unwrap().is_empty());
        if !matches!(what, "password" | "anonymous") {
            let decided = layer.decided.lock().unwrap().clone();
            assert_eq!(decided.iter().filter(|(_, accepted)| !accepted).count(), 1, "{what}: {decided:?}");
            assert!(!decided.last().unwrap().1);
        }
    }
}

#[tokio::test]
async fn a_connection_that_a_layer_refuses_gets_its_reply() {
    let layer = Refuses { what: "connect", ..Refuses::default() };
    let mut talk = serve(Names::default().layer(layer), settings(Protocol::Smtp)).await;
    assert_eq!(talk.reply().await, "554 5.7.0 Not past the layer");
    assert_eq!(talk.reply().await, "<eof>");
}

/// Makes capitals of the content as it passes.
#[derive(Clone)]
struct Capitals;

struct Upper<'b>(Body<'b>);

impl Stream for Upper<'_> {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let upper = |piece: Bytes| Bytes::from(piece.to_ascii_uppercase());
        Pin::new(&mut self.0).poll_next(cx).map(|piece| piece.map(|piece| piece.map(upper)))
    }
}

impl Layer for Capitals {
    async fn message<'b>(&mut self, _: &Context, envelope: &mut Envelope, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        envelope.mail.size = Some(7);
        Ok(Body::new(Upper(body)))
    }
}

/// The SIZE and content of each message.
type Kept = Arc<Mutex<Vec<(Option<u64>, Bytes)>>>;

struct Keep(Kept);

impl posthaste_server::Handler for Keep {
    async fn message(
        &mut self,
        _: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> Result<posthaste_server::Accepted, Refusal> {
        let content = body.collect(1_000).await?;
        self.0.lock().unwrap().push((envelope.mail.size, content));
        Ok(posthaste_server::Accepted::OK)
    }
}

#[tokio::test]
async fn a_layer_changes_content_and_envelope_on_their_way() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let kept = Arc::clone(&kept);
        move |_| std::future::ready(Ok(Keep(Arc::clone(&kept))))
    };
    let talk = serve(service.layer(Capitals), settings(Protocol::Smtp)).await;
    let said = talk.greeted().await.message("a@b.test", "Subject: hi\r\n\r\nyou").await;
    assert_eq!(said, "250 2.0.0 OK");
    assert_eq!(*kept.lock().unwrap(), [(Some(7), Bytes::from_static(b"SUBJECT: HI\r\n\r\nYOU\r\n"))]);
}

#[tokio::test]
async fn what_a_layer_refuses_is_the_reply_by_every_way_to_read() {
    let bodies = || {
        let refused = || Err(BodyError::Refused(refusal!("554 5.6.0 No Date field")));
        Body::new(futures_util::stream::iter([Ok(Bytes::from_static(b"a")), refused()]))
    };
    let collected = bodies().collect(10).await.map_err(Refusal::from).unwrap_err();
    let read = tokio::io::copy(&mut bodies().into_reader(), &mut Vec::new()).await.map_err(Refusal::from).unwrap_err();
    for refusal in [collected, read] {
        assert_eq!(refusal.to_string(), "554 5.6.0 No Date field");
    }
}

/// A stream of a layer that has no octets and no end.
#[tokio::test]
async fn a_body_of_empty_pieces_can_be_given_up_by_every_reader() {
    let empty = || Body::new(futures_util::stream::iter(std::iter::repeat_with(|| Ok(Bytes::new()))));
    let brief = Duration::from_millis(50);
    assert!(tokio::time::timeout(brief, empty().collect(10)).await.is_err());
    assert!(tokio::time::timeout(brief, async { empty().next().await.map(drop) }).await.is_err());
    let mut all = Vec::new();
    let mut reader = empty().into_reader();
    assert!(tokio::time::timeout(brief, tokio::io::copy_buf(&mut reader, &mut all)).await.is_err());
}
