//! Mail to a Postfix whose domain publishes what TLS it has: by TLSA records in a signed zone,
//! which is validated here, and by MTA-STS. Postfix itself says what it has got.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use posthaste::client::mta_sts::{HttpsFetch, MtaSts};
use posthaste::client::tls::{Observer as Judge, verified_by};
use posthaste::client::tls_rpt::{Recorder, Tally};
use posthaste::client::{
    Client, ClientOptions, HickoryResolver, Mx, MxOptions, Published, RecipientOutcome, Tcp, Tls, TrustAnchors,
};
use posthaste::queue::{Owner, memory::MemoryQueue};
use posthaste::relay::{Event, NextHop as To, Observer, Relay, RelayOptions, Route, RouteTable};
use posthaste::server::Envelope;
use posthaste_testkit::dns::{Kind, Signed};
use posthaste_testkit::https::{self, Answer};
use posthaste_testkit::pki::Authority;
use support::next_hops::NextHop;
use support::{PATIENCE, run, tool, wait_for};
use tokio_util::sync::CancellationToken;

const HOST: &str = "mx.dest.test";

/// What Postfix shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    NoTls,
    /// A certificate of the authority for its name.
    Good,
    /// One for another name.
    OtherName,
    /// One of another authority.
    Stranger,
}
use Shows::{Good, NoTls, OtherName, Stranger};

/// The TLSA record of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tlsa {
    None,
    /// It is about the key that Postfix has.
    Right,
    /// It is about another.
    Wrong,
}

/// What comes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It arrives, from a host that is proved.
    Proved,
    /// It arrives over TLS that proves nothing.
    Tls,
    Clear,
    /// It waits, and these words say why.
    Waits(&'static str),
}
use End::{Clear, Proved, Waits};

/// The mode of the policy, and the host that it names.
type Sts = Option<(&'static str, &'static str)>;
/// How many connections have succeeded and failed, and the kind of failure.
type Counts = (u64, u64, &'static str);

const NO_RECORD: &str = "no TLSA record in the DNS is about the certificate";
const NO_STARTTLS: &str = "the server does not offer STARTTLS";
const OTHER_NAME: &str = "the certificate is for another name";
const NOT_NAMED: &str = "the MTA-STS policy of the domain does not name the host";
const NOT_TRUSTED: &str = "the certificate is signed by no authority that is trusted here";

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_the_mail_that_its_domain_lets_it_have() {
    let named = |mode| Some((mode, HOST));
    let not_named = |mode| Some((mode, "other.dest.test"));
    let rows: [(&str, Tlsa, Sts, Shows, End, Counts); 19] = [
        ("nothing", Tlsa::None, None, Stranger, End::Tls, (2, 0, "")),
        ("nothing, no TLS", Tlsa::None, None, NoTls, Clear, (0, 2, "StarttlsNotSupported")),
        ("the right key", Tlsa::Right, None, Good, Proved, (2, 0, "")),
        ("the right key, no authority", Tlsa::Right, None, Stranger, Proved, (2, 0, "")),
        ("the right key, another name", Tlsa::Right, None, OtherName, Proved, (2, 0, "")),
        ("another key", Tlsa::Wrong, None, Good, Waits(NO_RECORD), (0, 2, "CertificateNotTrusted")),
        ("a record, no TLS", Tlsa::Wrong, None, NoTls, Waits(NO_STARTTLS), (0, 2, "StarttlsNotSupported")),
        ("enforce", Tlsa::None, named("enforce"), Good, Proved, (2, 0, "")),
        ("enforce, another host", Tlsa::None, not_named("enforce"), Good, Waits(NOT_NAMED), (0, 0, "")),
        (
            "enforce, another name",
            Tlsa::None,
            named("enforce"),
            OtherName,
            Waits(OTHER_NAME),
            (0, 2, "CertificateHostMismatch"),
        ),
        (
            "enforce, no authority",
            Tlsa::None,
            named("enforce"),
            Stranger,
            Waits(NOT_TRUSTED),
            (0, 2, "CertificateNotTrusted"),
        ),
        ("enforce, no TLS", Tlsa::None, named("enforce"), NoTls, Waits(NO_STARTTLS), (0, 2, "StarttlsNotSupported")),
        ("testing", Tlsa::None, named("testing"), Good, End::Tls, (2, 0, "")),
        ("testing, another host", Tlsa::None, not_named("testing"), Good, End::Tls, (0, 2, "ValidationFailure")),
        ("testing, another name", Tlsa::None, named("testing"), OtherName, End::Tls, (0, 2, "CertificateHostMismatch")),
        ("testing, no authority", Tlsa::None, named("testing"), Stranger, End::Tls, (0, 2, "CertificateNotTrusted")),
        ("testing, no TLS", Tlsa::None, named("testing"), NoTls, Clear, (0, 2, "StarttlsNotSupported")),
        // TLSA records come first.
        ("the right key, enforce", Tlsa::Right, not_named("enforce"), Stranger, Proved, (2, 0, "")),
        (
            "another key, enforce",
            Tlsa::Wrong,
            named("enforce"),
            Good,
            Waits(NO_RECORD),
            (0, 2, "CertificateNotTrusted"),
        ),
    ];
    let (authority, stranger) = (Authority::new("one"), Authority::new("two"));
    let certificates = [
        (NoTls, None),
        (Good, Some(authority.pem(&[HOST]))),
        (OtherName, Some(authority.pem(&["other.test"]))),
        (Stranger, Some(stranger.pem(&[HOST]))),
    ];
    let other_key = digest_of_key(&authority.pem(&[HOST])[0]);
    let mut servers = Vec::new();
    for (shows, certificate) in &certificates {
        let Some(mut postfix) = NextHop::postfix_mx(certificate.as_ref()) else { return };
        let (_, port) = postfix.address();
        servers.push((*shows, postfix, port, certificate.as_ref().map(|[certificate, _]| digest_of_key(certificate))));
    }
    for (row, tlsa, sts, shows, expected, counts) in rows {
        let (_, postfix, port, own_key) = servers.iter().find(|server| server.0 == shows).expect("all are there");
        let (port, before) = (*port, heard(postfix));
        let record = match tlsa {
            Tlsa::None => None,
            Tlsa::Right => own_key.as_ref(),
            Tlsa::Wrong => Some(&other_key),
        };
        let world = World::new(&authority, port, record, sts).await;

        let deferred = world.by_relay(row).await;
        let (outcome, is_proved) = world.by_client(row).await;
        for why in [&deferred, &outcome] {
            match (why, expected) {
                (None, Proved | End::Tls | Clear) => {}
                (Some(why), Waits(words)) => assert!(why.contains(words), "{row}: {why}"),
                _ => panic!("{row}: {why:?}"),
            }
        }
        assert_eq!(is_proved, expected == Proved, "{row}");

        // Postfix's side. A message that leaves all policies aside comes last, so that nothing can
        // come later.
        let options = ClientOptions::new("client.test".parse().expect("a name"));
        let mut client = Client::connect(("127.0.0.1", port), &options).await.expect("Postfix is ready");
        let sent = client.send("me@sender.test", ["you@dest.test"], content("the last")).await;
        assert!(sent.expect("the arguments are good").is_complete(), "{row}");
        client.quit().await;
        let mut arrived = arrived_until_the_last(postfix, before);
        arrived.sort();
        match expected {
            Waits(_) => assert_eq!(arrived, Vec::<(String, bool)>::new(), "{row}"),
            _ => {
                let is_tls = expected != Clear;
                assert_eq!(arrived, [("client".to_owned(), is_tls), ("relay".to_owned(), is_tls)], "{row}");
            }
        }
        assert_eq!(heard(postfix) - before, arrived.len() + 1, "{row}: {}", postfix.log());
        let tallies = world.reports.take();
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
        let found = (sum(Tally::successful_sessions), sum(Tally::failed_sessions));
        assert_eq!(found, (counts.0, counts.1), "{row}: {tallies:?}");
        assert!(format!("{tallies:?}").contains(counts.2), "{row}: {tallies:?}");
    }
}

/// The domain `dest.test` as the DNS and its policy host show it, and what follows its policies.
struct World {
    resolver: HickoryResolver,
    published: Published,
    reports: Recorder,
    port: u16,
    _zones: Signed,
}

impl World {
    /// `record`: the digest in the TLSA record of the host.
    async fn new(authority: &Authority, port: u16, record: Option<&String>, sts: Sts) -> Self {
        let mut zone = "dest MX 10 mx.dest\nmx.dest A 127.0.0.1\nmta-sts.dest A 127.0.0.1\n".to_owned();
        if let Some(digest) = record {
            zone += &format!("_{port}._tcp.mx.dest TLSA 3 1 1 {digest}\n");
        }
        let policy = sts.map(|(mode, mx)| format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n"));
        if policy.is_some() {
            zone += "_mta-sts.dest TXT \"v=STSv1; id=1;\"\n";
        }
        let zones = Signed::start(&[("test", Kind::Nsec, &zone)]).await;
        let resolver = HickoryResolver::with_servers(&[zones.address]).expect("it asks nothing yet");
        let anchor = TrustAnchors::from_dnskeys(&zones.anchor).expect("a key");
        let resolver = resolver.validating(&anchor).expect("there is a provider");

        let policy = policy.unwrap_or_default();
        let answer = move |_: &str| Answer::ok("text/plain", &policy);
        let (policy_host, _) = https::serve(authority.server(&["mta-sts.dest.test"], 2020, 2120), answer).await;
        let verified = verified_by(authority.roots().into()).expect("one authority");
        let mut fetch = HttpsFetch::with_config(&verified);
        (fetch.allow_private, fetch.port) = (true, policy_host.port());
        let (judge, reports) = (Judge::new(authority.roots().into()).expect("one authority"), Recorder::default());
        let published = Published::default().with_dane().with_mta_sts(MtaSts::new(fetch), verified);
        let published = published.with_observer(judge).with_reports(reports.clone());
        Self { resolver, published, reports, port, _zones: zones }
    }

    /// Sends a message as a relay does. `None`: it was delivered; otherwise why it was deferred.
    async fn by_relay(&self, row: &str) -> Option<String> {
        let mut options = RelayOptions::new("relay.test".parse().expect("a name"));
        let mut route = Route::new(To::Mx);
        route.tls = Tls::opportunistic().expect("a provider");
        options.routes = RouteTable::all(route);
        options.delivery.mx_port = self.port;
        options.delivery.allow_private = true;
        options.delivery.published = self.published.clone();
        options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
        let (ends, drain) = (Ends::default(), CancellationToken::new());
        let relay = Relay::builder(MemoryQueue::default(), self.resolver.clone(), options).observer(ends.clone());
        let relay = relay.build();
        let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
        let (from, to) = ("<me@sender.test>".parse().expect("MAIL"), "<you@dest.test>".parse().expect("RCPT"));
        let envelope = Envelope::from_commands(from, vec![to]);
        relay.submit(Owner::default(), &envelope, Bytes::from(content("relay"))).await.expect("there is room");
        let end = tokio::task::block_in_place(|| wait_for(row, PATIENCE, || ends.0.lock().expect("whole").pop()));
        drain.cancel();
        delivering.await.expect("it does not panic").expect("the queue works");
        end
    }

    /// Sends a message over [`Mx`]. Returns why it did not go, and if the host was proved.
    async fn by_client(&self, row: &str) -> (Option<String>, bool) {
        let mut client = ClientOptions::new("client.test".parse().expect("a name"));
        client.tls = Tls::opportunistic().expect("a provider");
        let mut options = MxOptions::default();
        (options.port, options.allow_private) = (self.port, true);
        options.published = self.published.clone();
        let mx = Mx::with(self.resolver.clone(), client, options, Tcp::default());
        let sent = mx.send("me@sender.test", ["you@dest.test"], content("client")).await.expect("good arguments");
        mx.close().await;
        let [one] = &sent.recipients[..] else { panic!("{row}: {sent:?}") };
        match &one.outcome {
            RecipientOutcome::Accepted(_) => (None, one.server.as_ref().is_some_and(|server| server.is_verified)),
            RecipientOutcome::Unreachable(why) => (Some(why.to_string()), false),
            _ => panic!("{row}: {sent:?}"),
        }
    }
}

/// What comes of a relay's message.
#[derive(Debug, Clone, Default)]
struct Ends(Arc<Mutex<Vec<Option<String>>>>);

impl Observer for Ends {
    fn observe(&self, event: &Event<'_>) {
        let end = match event {
            Event::Delivered { .. } => None,
            Event::Deferred { diagnostic, .. } | Event::Failed { diagnostic, .. } => Some(diagnostic.to_string()),
            _ => return,
        };
        self.0.lock().expect("whole").push(end);
    }
}

fn content(subject: &str) -> String {
    format!("Subject: {subject}\r\n\r\nhello\r\n")
}

/// The transactions of which Postfix has heard: it writes this when MAIL and RCPT are good.
fn heard(postfix: &NextHop) -> usize {
    postfix.log().matches(": client=").count()
}

/// What Postfix has got since then and before the message `the last`: the subjects, and if each
/// came over TLS.
fn arrived_until_the_last(postfix: &NextHop, before: usize) -> Vec<(String, bool)> {
    let mut arrived = Vec::new();
    // Postfix delivers messages in any order.
    let (mut has_last, mut wanted) = (false, usize::MAX);
    while !has_last || arrived.len() < wanted {
        let message = String::from_utf8(postfix.taken()).expect("it is ASCII");
        let subject = message.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("it has one");
        if subject == "the last" {
            has_last = true;
            wanted = heard(postfix) - before - 1;
        } else {
            arrived.push((subject.to_owned(), message.contains("(using TLSv1.")));
        }
    }
    arrived
}

/// The SHA-256 digest of a certificate's key, as operators make it for `TLSA 3 1 1`.
fn digest_of_key(certificate: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [pem, key, der] = ["cert.pem", "key.pem", "key.der"].map(|name| folder.path().join(name));
    std::fs::write(&pem, certificate).expect("the folder is ours");
    run(tool("openssl").args(["x509", "-noout", "-pubkey", "-in"]).arg(&pem).arg("-out").arg(&key));
    run(tool("openssl").args(["pkey", "-pubin", "-outform", "der", "-in"]).arg(&key).arg("-out").arg(&der));
    let said = run(tool("openssl").args(["dgst", "-sha256", "-r"]).arg(&der));
    said.split_whitespace().next().expect("it begins with the digest").to_owned()
}
