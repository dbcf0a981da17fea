//! Credentials: their messages are base64 within a line, and have marks of their own within that.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_client::{
    Client, Credentials,
    session::sasl::{BearerToken, ClientCredentials},
    wire::Secret,
};
use posthaste_testkit::{
    pki::tls,
    script::{Scripted, polite, verb},
};
use tokio::net::TcpStream;

use super::{check_error, check_line, texts};
use crate::support::{Policy, options};

fn password(who: Option<&str>, user: &str, password: &str) -> ClientCredentials {
    ClientCredentials::Password(Credentials {
        authorization_identity: who.map(str::to_owned),
        authentication_identity: user.to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

fn token(who: &str, token: &str, host: Option<&str>) -> ClientCredentials {
    ClientCredentials::Token(BearerToken {
        authorization_identity: Some(who.to_owned()),
        token: Secret::new(token.to_owned()),
        host: host.map(str::to_owned),
        port: Some(25),
    })
}

#[tokio::test]
async fn no_part_of_a_login_is_a_line_or_a_field_of_its_own() {
    type Make = fn(&str) -> ClientCredentials;
    // The mark that separates the fields of a message, and how often it is there.
    type Row = (&'static str, &'static str, Make, Option<(char, usize)>);
    let rows: &[Row] = &[
        ("PLAIN", "user{}", |text| password(None, text, "secret"), Some(('\0', 2))),
        ("PLAIN", "secret{}", |text| password(None, "me", text), Some(('\0', 2))),
        ("PLAIN", "other{}", |text| password(Some(text), "me", "secret"), Some(('\0', 2))),
        ("LOGIN", "user{}", |text| password(None, text, "secret"), None),
        ("LOGIN", "secret{}", |text| password(None, "me", text), None),
        ("CRAM-MD5", "user{}", |text| password(None, text, "secret"), None),
        ("SCRAM-SHA-256", "user{}", |text| password(None, text, "secret"), Some((',', 3))),
        ("SCRAM-SHA-256", "other{}", |text| password(Some(text), "me", "secret"), Some((',', 3))),
        ("XOAUTH2", "me{}", |text| token(text, "secret", None), Some(('\u{1}', 3))),
        ("XOAUTH2", "secret{}", |text| token("me", text, None), Some(('\u{1}', 3))),
        ("OAUTHBEARER", "me{}", |text| token(text, "secret", Some("mx.test")), Some(('\u{1}', 5))),
        ("OAUTHBEARER", "secret{}", |text| token("me", text, Some("mx.test")), Some(('\u{1}', 5))),
        ("OAUTHBEARER", "mx{}.test", |text| token("me", "secret", Some(text)), Some(('\u{1}', 5))),
        ("EXTERNAL", "other{}", |text| ClientCredentials::External(Some(text.to_owned())), Some(('\0', 0))),
        ("ANONYMOUS", "trace{}", |text| ClientCredentials::Anonymous(text.to_owned()), None),
    ];
    let (server_tls, client_tls) = tls("mx.test");
    for (mechanism, template, make, fields) in rows {
        for text in texts(template) {
            let context = format!("{mechanism} {text:?}");
            let mut asked = 0;
            let offer = format!("AUTH {mechanism}");
            let server = Scripted::with_tls(server_tls.clone(), move |_, line| {
                match verb(line) {
                    "EHLO" => return polite(line, &["STARTTLS", &offer]),
                    "AUTH" => {}
                    _ if asked == 0 => return polite(line, &[]),
                    _ => {}
                }
                asked += 1;
                // One more challenge than a mechanism has, for what would follow.
                if asked > 3 { "535 no\r\n".to_owned() } else { "334 \r\n".to_owned() }
            })
            .await;
            let mut options = options(Policy::Verified.tls(client_tls.clone()));
            options.credentials = Some(make(&text).into());
            let stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
            let error = Client::start(stream, "mx.test", &options).await.unwrap_err().to_string();
            check_error(&error, "", &context);
            let said = server.heard.all().into_iter().map(|(_, line)| line);
            let said: Vec<_> = said.skip_while(|line| line != "STARTTLS").skip(2).filter(|it| it != "<eof>").collect();
            let Some(first) = said.first() else {
                check_error(&error, "the mechanism cannot carry these credentials", &context);
                continue;
            };
            assert!(first.starts_with(&format!("AUTH {mechanism}")), "{context}: {said:?}");
            let is_line = |octet: u8| octet.is_ascii_alphanumeric() || b"+/=*".contains(&octet);
            let mut messages = Vec::new();
            for line in first.split(' ').skip(2).chain(said.iter().skip(1).map(String::as_str)) {
                check_line(line, &context);
                assert!(line.bytes().all(is_line), "{context}: {line:?}");
                messages.push(STANDARD.decode(line).unwrap_or_default());
            }
            if let Some((mark, count)) = fields {
                let message = String::from_utf8(messages[0].clone()).unwrap();
                assert_eq!(message.matches(*mark).count(), *count, "{context}: {message:?}");
            }
        }
    }
}
