//! The texts of a message and of EHLO.

use posthaste_client::{
    Client, ClientOptions, Tls,
    wire::{
        EhloName, Mail, Mailbox, OriginalRecipient, Parameters, Rcpt, SyntaxError, Xtext,
        parameter::{DateTime, Hold, Rrvs, Solicitation},
    },
};
use posthaste_testkit::script::{Scripted, polite, verb};

use super::{check_error, check_line, texts};
use crate::support::options;

const OFFERS: &[&str] = &[
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "SIZE 1000000",
    "DELIVERBY",
    "MT-PRIORITY",
    "FUTURERELEASE 9999999 2099-01-01T00:00:00Z",
    "AUTH PLAIN",
    "NO-SOLICITING",
    "RRVS",
    "REQUIRETLS",
    "X-FOO",
];

/// Makes a value that the client takes, or says why not.
type Make<T> = fn(&str) -> Result<T, String>;

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn mail(text: &str) -> Result<Mail, String> {
    text.parse().map_err(say)
}

fn rcpt(text: &str) -> Result<Rcpt, String> {
    text.parse().map_err(say)
}

fn built<T>(value: Result<T, SyntaxError>, set: impl FnOnce(&mut Mail, T)) -> Result<Mail, String> {
    let mut mail = mail("me@s.test").unwrap();
    set(&mut mail, value.map_err(say)?);
    Ok(mail)
}

fn built_rcpt<T>(value: Result<T, SyntaxError>, set: impl FnOnce(&mut Rcpt, T)) -> Result<Rcpt, String> {
    let mut rcpt = rcpt("you@d.test").unwrap();
    set(&mut rcpt, value.map_err(say)?);
    Ok(rcpt)
}

/// Sends a message over TCP, and checks what the server heard: the commands of a message, or none.
async fn send(mail: Mail, rcpt: Rcpt, context: &str) {
    let server = Scripted::start(|_, line| polite(line, OFFERS)).await;
    let mut client = Client::connect(("127.0.0.1", server.port), &options(Tls::Off)).await.unwrap();
    let sent = client.send(mail, [rcpt], "Subject: x\r\n\r\nhello\r\n").await.unwrap();
    client.quit().await;
    let heard: Vec<_> = server.heard.all().into_iter().map(|(_, line)| line).collect();
    let commands: Vec<_> = heard.iter().filter(|line| !line.starts_with("<octets>")).collect();
    commands.iter().for_each(|line| check_line(line, context));
    let verbs: Vec<_> = commands.iter().map(|line| verb(line)).collect();
    let expected: &[&str] = match sent.is_complete() {
        true => &["<connect>", "EHLO", "MAIL", "RCPT", "DATA", "<end>", "QUIT"],
        false => &["<connect>", "EHLO", "QUIT"],
    };
    assert_eq!(verbs, expected, "{context}: {sent:?}");
}

#[tokio::test]
async fn no_text_of_a_message_is_a_line_of_its_own() {
    let mails: &[(&str, &str, Make<Mail>)] = &[
        ("me{}@s.test", "sender", mail),
        ("{}me@s.test", "sender", mail),
        ("me@s{}.test", "sender", mail),
        ("me@s.test{}", "sender", mail),
        ("<me@s.test{}>", "sender", mail),
        ("<me@s.test>{}", "sender", mail),
        ("\"me{}\"@s.test", "sender", mail),
        ("me@[x:{}]", "sender", mail),
        ("me@[192.0.2.1{}]", "sender", mail),
        ("<@a{}.test:me@s.test>", "sender", mail),
        ("<me@s.test> ENVID=a{}", "sender", mail),
        ("<me@s.test> AUTH=me@s.test{}", "sender", mail),
        ("<me@s.test> SOLICIT=net.test:a{}", "sender", mail),
        ("<me@s.test> BY=100;R{}", "sender", mail),
        ("<me@s.test> SIZE=100{}", "sender", mail),
        ("<me@s.test> BODY=8BITMIME{}", "sender", mail),
        ("<me@s.test> X-FOO=a{}", "sender", mail),
        ("<me@s.test> X-FOO{}", "sender", mail),
        ("a{}", "octet", |text| built(Xtext::parse(text).map(Xtext::into_owned), |mail, it| mail.envid = Some(it))),
        ("a{}", "octet", |text| built(Xtext::encode(text.as_bytes()), |mail, it| mail.envid = Some(it))),
        ("a{}", "octet", |text| built(Xtext::encode(text.as_bytes()), |mail, it| mail.auth = Some(it))),
        ("net.test:a{}", "octet", |text| {
            built(Solicitation::parse(text).map(Solicitation::into_owned), |mail, it| mail.solicit = Some(it))
        }),
        ("2030-01-01T00:00:00Z{}", "octet", |text| {
            let time = DateTime::parse(text).map(|time| time.into_owned());
            built(time, |mail, it| mail.hold = Some(Hold::Until(it)))
        }),
        (" X-FOO=a{}", "octet", |text| {
            built(Parameters::parse(text).map(Parameters::into_owned), |mail, it| mail.parameters = it)
        }),
    ];
    let rcpts: &[(&str, &str, Make<Rcpt>)] = &[
        ("you{}@d.test", "recipient", rcpt),
        ("{}you@d.test", "recipient", rcpt),
        ("you@d{}.test", "recipient", rcpt),
        ("<you@d.test{}>", "recipient", rcpt),
        ("<you@d.test>{}", "recipient", rcpt),
        ("\"you{}\"@d.test", "recipient", rcpt),
        ("you@[IPv6:::1{}]", "recipient", rcpt),
        ("<Postmaster{}>", "recipient", rcpt),
        ("<you@d.test> ORCPT=rfc822;a{}", "recipient", rcpt),
        ("<you@d.test> ORCPT=x{};a", "recipient", rcpt),
        ("<you@d.test> NOTIFY=NEVER{}", "recipient", rcpt),
        ("<you@d.test> RRVS=2030-01-01T00:00:00Z;C{}", "recipient", rcpt),
        ("<you@d.test> X-FOO=a{}", "recipient", rcpt),
        ("rfc822;a{}", "octet", |text| {
            built_rcpt(OriginalRecipient::parse(text).map(OriginalRecipient::into_owned), |rcpt, it| {
                rcpt.orcpt = Some(it)
            })
        }),
        ("\"a{}\"@d.test", "octet", |text| {
            let mailbox = Mailbox::parse(text).and_then(OriginalRecipient::new);
            built_rcpt(mailbox, |rcpt, it| rcpt.orcpt = Some(it))
        }),
        ("2030-01-01T00:00:00Z;C{}", "octet", |text| {
            built_rcpt(Rrvs::parse(text).map(Rrvs::into_owned), |rcpt, it| rcpt.rrvs = Some(it))
        }),
    ];
    let (plain_mail, plain_rcpt) = (mail("me@s.test").unwrap(), rcpt("you@d.test").unwrap());
    let (mut rows, mut sent) = (0, 0);
    for (template, words, make) in mails {
        for text in texts(template) {
            rows += 1;
            match make(&text) {
                Ok(mail) => send(mail, plain_rcpt.clone(), &format!("MAIL {text:?}")).await,
                Err(error) => check_error(&error, words, &format!("MAIL {text:?}")),
            }
            sent += usize::from(make(&text).is_ok());
        }
    }
    for (template, words, make) in rcpts {
        for text in texts(template) {
            rows += 1;
            match make(&text) {
                Ok(rcpt) => send(plain_mail.clone(), rcpt, &format!("RCPT {text:?}")).await,
                Err(error) => check_error(&error, words, &format!("RCPT {text:?}")),
            }
            sent += usize::from(make(&text).is_ok());
        }
    }
    assert!(rows > 1_000 && sent > 50, "{rows} {sent}");
}

/// A text goes straight into `send`, and nothing is sent if it is no address.
#[tokio::test]
async fn a_text_that_is_no_address_is_an_error_before_anything_is_sent() {
    let server = Scripted::start(|_, line| polite(line, OFFERS)).await;
    let mut client = Client::connect(("127.0.0.1", server.port), &options(Tls::Off)).await.unwrap();
    for (from, to, words) in
        [("me\r\nNOOP@s.test", "you@d.test", "sender"), ("me@s.test", "you\r\nNOOP@d.test", "recipient")]
    {
        let error = client.send(from, ["a@d.test", to], "hello\r\n").await.unwrap_err().to_string();
        check_error(&error, words, from);
    }
    client.quit().await;
    let heard: Vec<_> = server.heard.all().into_iter().map(|(_, line)| line).collect();
    assert_eq!(heard, ["<connect>", "EHLO client.test", "QUIT"]);
}

#[tokio::test]
async fn no_name_in_ehlo_is_a_line_of_its_own() {
    let parse: Make<EhloName> = |text| text.parse().map_err(say);
    let lossy: Make<EhloName> = |text| EhloName::lossy(text.as_bytes()).map_err(say);
    for (template, words, make) in [
        ("client{}.test", "host name", parse),
        ("{}client.test", "host name", parse),
        ("[192.0.2.1{}]", "host name", parse),
        ("client{}.test", "octet", lossy),
    ] {
        for text in texts(template) {
            let context = format!("EHLO {text:?}");
            let hello = match make(&text) {
                Ok(hello) => hello,
                Err(error) => {
                    check_error(&error, words, &context);
                    continue;
                }
            };
            let server = Scripted::polite().await;
            Client::connect(("127.0.0.1", server.port), &ClientOptions::new(hello)).await.unwrap().quit().await;
            let heard: Vec<_> = server.heard.all().into_iter().map(|(_, line)| line).collect();
            heard.iter().for_each(|line| check_line(line, &context));
            assert_eq!(heard.iter().map(|line| verb(line)).collect::<Vec<_>>(), ["<connect>", "EHLO", "QUIT"]);
            assert!(!heard[1].contains(['\u{85}', '\u{9b}', '\u{2028}', '\u{2029}']), "{context}");
        }
    }
}

/// Octets that are no UTF-8, or would be a line end if a peer decoded them carelessly.
#[tokio::test]
async fn octets_that_a_careless_decoder_reads_as_a_line_end_stay_within_their_line() {
    for octets in [
        &b"a\xc0\x8d\xc0\x8aNOOP"[..],
        b"a\xe0\x80\x8d\xe0\x80\x8aNOOP",
        b"a\xf0\x80\x80\x8dNOOP",
        b"a\xc0\x80NOOP",
        b"a\xc2\x85NOOP",
        b"a\x85NOOP",
        b"a\xed\xa0\x80NOOP",
        b"a\xffNOOP",
        // U+010D and U+010A, whose low octets are CR and LF.
        "a\u{10d}\u{10a}NOOP".as_bytes(),
    ] {
        let hello = EhloName::lossy(octets).unwrap();
        let server = Scripted::polite().await;
        Client::connect(("127.0.0.1", server.port), &ClientOptions::new(hello)).await.unwrap().quit().await;
        assert_eq!(server.heard.all().len(), 3, "{octets:?}");
        let envid = Xtext::encode(octets).unwrap();
        assert!(envid.as_str().bytes().all(|octet| octet.is_ascii_graphic()), "{octets:?}");
        let mut mail = mail("me@s.test").unwrap();
        mail.envid = Some(envid);
        send(mail, rcpt("you@d.test").unwrap(), &format!("{octets:?}")).await;
    }
}
