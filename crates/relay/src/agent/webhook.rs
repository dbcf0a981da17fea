//! Mail to an HTTP server.

mod answer;
mod connections;
mod request;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use hyper::{Request, Uri, header};
use posthaste_client::{
    rustls::{ClientConfig, Error as TlsFault, pki_types::ServerName},
    tls::{Roots, TlsError, explain, verified_by},
};
use posthaste_server::{Refusal, refusal, wire::Rcpt};
use thiserror::Error;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Agent, AgentLetter, Decision};
use answer::Answer;
use connections::{Connection, Pool};
use request::{Outgoing, envelope, sign};

/// Hands mail to an HTTP server: one POST for each message, with the content as it came as its
/// body, of the type `message/rfc822`.
///
/// The URL begins with `https://`: the certificate must be valid for its host. `http://` is taken
/// for a host of this machine alone, `localhost` or a loopback address. The server is asked over
/// HTTP/1.1. A connection is [kept](Self::idle) for the next message, at most 20 at once. If it
/// breaks before an answer, since the server has just closed it, the request is sent once more over
/// a new one.
///
/// Two fields of the request are ours:
///
/// - `X-Posthaste-Envelope` is JSON in ASCII, such as
///   `{"id":"1a2b","from":"a@b.test","to":["c@d.test"],"age":3}`. `from` is empty for a report,
///   `age` has the seconds since the message was accepted. A message with the same id and
///   recipients may come again: if the answer was lost, and after a crash. Recipients are in
///   several requests if their names have more than 4 KiB.
/// - `X-Posthaste-Signature` is `t=SECONDS,v1=HEX`: the time since 1970, and an HMAC-SHA256 with
///   the secret over `SECONDS.ENVELOPE.BODY`, as they are in the request. The server should refuse
///   other signatures, and times that are more than 5 minutes away.
///
/// | status | what follows for the recipients |
/// |---|---|
/// | 2yz | taken, but for those that the answer names |
/// | 429 | the server rests, for as long as `Retry-After` says in seconds, at most an hour |
/// | 408, 425, 5yz | tried again later, after `Retry-After` at the soonest |
/// | 413 | refused for ever, 552 5.3.4 |
/// | other 4yz | refused for ever, 554 5.7.1 |
/// | 3yz | tried again later: redirects are not followed |
///
/// An answer of 2yz may name recipients that are not taken, in a body of the type
/// `application/json` and of 64 KiB at most:
///
/// ```json
/// {"refused": {"gone@d.test": "5.1.1 There is no such list"}, "later": {"busy@d.test": "Not now"}}
/// ```
///
/// Each address is one of `to`. `refused` are refused for ever, `later` are tried again later, and
/// all others are taken. The words go to the sender. They may begin with an enhanced status code;
/// otherwise it is 5.7.1 or 4.3.0. A body without these two members counts for nothing. If one of
/// them has another form, or an address that is none of the recipients, all recipients are tried
/// again later.
///
/// The first line of a text that comes with a refusal goes to the sender, 200 octets at most. If
/// there is no connection, or its TLS fails, all mail of the server is deferred.
///
/// ```no_run
/// use posthaste_relay::{Route, agent::Webhook, client::tls::Roots};
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // The line end of the file is no part of the secret, here and at the server.
/// let text = std::fs::read_to_string("webhook.secret")?;
/// let secret = text.trim_end_matches(['\r', '\n']);
/// let inbound = Route::agent("inbound", Webhook::new("https://app.example.org/inbound", secret, Roots::system()?)?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Webhook {
    /// How long the server may take, from the connection to its answer. Default 60 seconds. To it
    /// comes the time that the content takes at 16 KiB a second. Beyond it the message is tried
    /// again later.
    pub timeout: Duration,
    /// How long a connection is kept without a request. Default 4 seconds: many servers close
    /// theirs after 5. Zero: each request has a connection of its own.
    pub idle: Duration,
    host: String,
    port: u16,
    /// The host, with the port if it is in the URL.
    authority: String,
    path: String,
    /// `None`: HTTP.
    tls: Option<TlsConnector>,
    secret: Arc<[u8]>,
    pool: Arc<Pool>,
}

/// Why a webhook cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The text is no URL with a host.
    #[error("{0:?} is no URL with a host; write it as in https://app.example.org/inbound")]
    Url(String),
    /// It has another scheme than HTTPS.
    #[error("{0:?} does not begin with https://; write that, or http:// for a server on localhost")]
    Scheme(String),
    /// It has a user or a password.
    #[error("the URL has a user in it; requests are signed with the secret, so leave it out")]
    User,
    /// The secret is too short.
    #[error("the secret has {0} octets, at least {MIN_SECRET} are needed; use random ones")]
    Secret(usize),
    /// TLS cannot verify anything.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The fewest octets of a secret: 128 bits.
const MIN_SECRET: usize = 16;
/// The longest wait for one address to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The most addresses that are tried.
const ADDRESSES: usize = 5;
/// The slowest rate of content, in octets a second.
const RATE: u64 = 16 << 10;
/// The most octets of the recipients in one request: servers take fields of 8 KiB.
const RECIPIENTS: usize = 4 << 10;

/// The server has not answered with a status.
#[derive(Debug)]
enum Failure {
    /// There is no connection: it takes no mail at all.
    Unreachable(String),
    /// The conversation broke off.
    Broken(hyper::Error),
    /// The message cannot be read now.
    Unread(io::Error),
}

impl Webhook {
    /// Makes a webhook with this URL and secret. These authorities sign the server's certificate.
    ///
    /// # Errors
    /// The URL is wrong, the secret is short, or TLS cannot verify anything.
    pub fn new(url: &str, secret: impl AsRef<[u8]>, roots: Roots) -> Result<Self, WebhookError> {
        Self::with_config(url, secret, &verified_by(roots)?)
    }

    /// Makes a webhook whose connections have this configuration of TLS. It has to verify that a
    /// certificate is for the host's name.
    ///
    /// # Errors
    /// The URL is wrong, or the secret is short.
    pub fn with_config(url: &str, secret: impl AsRef<[u8]>, config: &Arc<ClientConfig>) -> Result<Self, WebhookError> {
        let parsed: Uri = url.parse().map_err(|_| WebhookError::Url(url.to_owned()))?;
        let authority = parsed.authority().ok_or_else(|| WebhookError::Url(url.to_owned()))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if authority.as_str().contains('@') {
            return Err(WebhookError::User);
        }
        if host.is_empty() {
            return Err(WebhookError::Url(url.to_owned()));
        }
        let (is_tls, port) = match parsed.scheme_str() {
            Some("https") => (true, 443),
            Some("http") if is_here(&host) => (false, 80),
            _ => return Err(WebhookError::Scheme(url.to_owned())),
        };
        let secret = secret.as_ref();
        if secret.len() < MIN_SECRET {
            return Err(WebhookError::Secret(secret.len()));
        }
        let tls = is_tls.then(|| {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Ok(Self {
            timeout: Duration::from_secs(60),
            idle: Duration::from_secs(4),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            host,
            tls,
            secret: secret.into(),
            pool: Arc::default(),
        })
    }

    /// Hands the message over for some recipients. Returns a decision for each.
    async fn post(&self, letter: &AgentLetter<'_>, group: &[Rcpt]) -> Vec<Decision> {
        let bound = self.timeout.saturating_add(Duration::from_secs(letter.octets / RATE));
        let refusal = match timeout(bound, self.exchange(letter, &envelope(letter, group))).await {
            Ok(Ok(answer)) => return answer.decisions(group),
            Ok(Err(failure)) => failure.into(),
            Err(_) => refusal!("451 4.4.2 No answer from the application within {} s", bound.as_secs()),
        };
        vec![Err(refusal); group.len()]
    }

    async fn exchange(&self, letter: &AgentLetter<'_>, envelope: &str) -> Result<Answer, Failure> {
        if let Some(kept) = self.pool.take().await {
            match self.ask(kept, letter, envelope).await {
                // The server may have closed it in the meantime.
                Err(Failure::Broken(error)) if !error.is_user() => {}
                done => return done,
            }
        }
        self.ask(self.start().await?, letter, envelope).await
    }

    async fn ask(
        &self,
        mut connection: Connection,
        letter: &AgentLetter<'_>,
        envelope: &str,
    ) -> Result<Answer, Failure> {
        let request = self.request(letter, envelope).await.map_err(Failure::Unread)?;
        let answer = connection.ask(request).await.map_err(Failure::Broken)?;
        self.pool.keep(connection, self.idle).await;
        Ok(answer)
    }

    async fn request(&self, letter: &AgentLetter<'_>, envelope: &str) -> io::Result<Request<Outgoing>> {
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "message/rfc822")
            .header(header::USER_AGENT, concat!("posthaste/", env!("CARGO_PKG_VERSION")))
            .header("X-Posthaste-Envelope", envelope)
            .header("X-Posthaste-Signature", sign(&self.secret, letter, envelope).await?);
        request.body(Outgoing(letter.content().await?)).map_err(io::Error::other)
    }

    async fn start(&self) -> Result<Connection, Failure> {
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return Connection::start(stream).await.map_err(Failure::Broken) };
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| unreachable("no certificate can be for its name"))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            let fault = error.get_ref().and_then(|error| error.downcast_ref::<TlsFault>());
            unreachable(&format!("its TLS failed: {}", fault.map_or_else(|| error.to_string(), explain)))
        })?;
        Connection::start(stream).await.map_err(Failure::Broken)
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let found = timeout(CONNECT, lookup_host((self.host.as_str(), self.port))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let found = found.map_err(|error| unreachable(&format!("its name was not found: {error}")))?;
        let mut failed = "its name has no address".to_owned();
        let is_tls = self.tls.is_some();
        for address in found.filter(|found| is_tls || found.ip().to_canonical().is_loopback()).take(ADDRESSES) {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = error.to_string(),
                Err(_) => failed = format!("no connection within {} s", CONNECT.as_secs()),
            }
        }
        Err(unreachable(&failed))
    }
}

impl Agent for Webhook {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(letter.envelope.recipients.len());
        let mut rest = &letter.envelope.recipients[..];
        while !rest.is_empty() {
            let mut octets = 0_usize;
            let fits = |rcpt: &&Rcpt| {
                octets = octets.saturating_add(rcpt.forward_path.to_string().len());
                octets <= RECIPIENTS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (group, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            decisions.extend(self.post(letter, group).await);
            rest = others;
        }
        decisions
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", self.authority, self.path);
        f.debug_struct("Webhook").field("url", &url).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Returns `true` for a host that is this machine.
fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn unreachable(why: &str) -> Failure {
    Failure::Unreachable(format!("The application is not reached: {why}"))
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(why) => refusal!("421 4.4.1 {}", why),
            // hyper's texts are its own and have no words of the server.
            Failure::Broken(error) => refusal!("451 4.4.2 The application broke off: {}", error),
            Failure::Unread(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(url: &str, secret: &str) -> Result<Webhook, WebhookError> {
        Webhook::with_config(url, secret, &posthaste_testkit::pki::tls("app.test").1)
    }

    #[test]
    fn a_url_is_https_or_leads_to_this_machine() {
        let secret = "0123456789abcdef";
        for (url, shown) in [
            ("https://app.test/inbound?x=1", "https://app.test/inbound?x=1"),
            ("https://app.test", "https://app.test/"),
            ("https://[::1]:8443/a", "https://[::1]:8443/a"),
            ("http://localhost:80/a", "http://localhost:80/a"),
            ("http://127.0.0.2/a", "http://127.0.0.2/a"),
            ("http://[::1]/a", "http://[::1]/a"),
        ] {
            let debug = format!("{:?}", made(url, secret).unwrap());
            assert!(debug.contains(&format!("{shown:?}")) && !debug.contains(secret), "{url} {debug}");
        }
        for (url, error) in [
            ("http://app.test/a", "does not begin with https://"),
            ("http://192.0.2.1/a", "does not begin with https://"),
            ("http://localhost.evil.test/a", "does not begin with https://"),
            ("ftp://localhost/a", "does not begin with https://"),
            ("/inbound", "no URL with a host"),
            ("", "no URL with a host"),
            ("https://", "no URL with a host"),
            ("https://me:pw@app.test/a", "has a user in it"),
        ] {
            assert!(made(url, secret).unwrap_err().to_string().contains(error), "{url}");
        }
        assert!(made("https://app.test/", "short").unwrap_err().to_string().contains("5 octets, at least 16"));
    }
}
