//! Mail to an HTTP server.

use std::{
    fmt::Write as _,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::{
    Request, Response, Uri,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{Builder, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use posthaste_client::{
    Content as _,
    rustls::{ClientConfig, Error as TlsFault, pki_types::ServerName},
    tls::{Roots, TlsError, explain, verified_by},
};
use posthaste_server::{
    Refusal, accepted, refusal,
    wire::{Rcpt, ReversePath},
};
use sha2::Sha256;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Agent, AgentContent, AgentLetter, Decision};

/// Hands mail to an HTTP server: one POST for each message, with the content as it came as its
/// body, of the type `message/rfc822`.
///
/// The URL begins with `https://`: the certificate must be valid for its host. `http://` is taken
/// for a host of this machine alone, `localhost` or a loopback address. The server is asked over
/// HTTP/1.1, over a connection for each message.
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
/// | 2yz | taken |
/// | 429 | the server rests, for as long as `Retry-After` says in seconds, at most an hour |
/// | 408, 425, 5yz | tried again later, after `Retry-After` at the soonest |
/// | 413 | refused for ever, 552 5.3.4 |
/// | other 4yz | refused for ever, 554 5.7.1 |
/// | 3yz | tried again later: redirects are not followed |
///
/// The first line of a text that comes with a refusal goes to the sender, 200 octets at most. If
/// there is no connection, or its TLS fails, all mail of the server is deferred.
///
/// ```no_run
/// use posthaste_relay::{Route, agent::Webhook, client::tls::Roots};
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = std::fs::read("webhook.secret")?;
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
    host: String,
    port: u16,
    /// The host, with the port if it is in the URL.
    authority: String,
    path: String,
    /// `None`: HTTP.
    tls: Option<TlsConnector>,
    secret: Arc<[u8]>,
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
/// The most octets of a response's head, and of what is read at a time.
const HEAD: usize = 16 << 10;
/// The most header fields of a response.
const FIELDS: usize = 64;
/// The most octets that are read of a response's body, and the longest wait for them.
const BODY: usize = 1 << 10;
const BODY_WAIT: Duration = Duration::from_secs(5);
/// The most octets of it that the sender sees.
const WORDS: usize = 200;
/// The most octets of the recipients in one request: servers take fields of 8 KiB.
const RECIPIENTS: usize = 4 << 10;
/// The longest `Retry-After` that is heeded.
const MAX_WAIT: u64 = 3_600;

/// The server has not answered with a status.
#[derive(Debug)]
enum Failure {
    /// There is no connection: it takes no mail at all.
    Unreachable(String),
    /// The conversation broke off.
    Broken(String),
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
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            host,
            tls,
            secret: secret.into(),
        })
    }

    /// Hands the message over for some recipients.
    async fn post(&self, letter: &AgentLetter<'_>, group: &[Rcpt]) -> Decision {
        let envelope = envelope(letter, group);
        let signature = self.sign(letter, &envelope).await?;
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "message/rfc822")
            .header(header::USER_AGENT, concat!("posthaste/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .header("X-Posthaste-Envelope", envelope)
            .header("X-Posthaste-Signature", signature)
            .body(Outgoing(letter.content().await?))
            .map_err(io::Error::other)?;
        let bound = self.timeout.saturating_add(Duration::from_secs(letter.octets / RATE));
        match timeout(bound, self.exchange(request)).await {
            Ok(Ok(answer)) => answer.decision(),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => Err(refusal!("451 4.4.2 No answer from the application within {} s", bound.as_secs())),
        }
    }

    /// The signature over the time, the envelope and the content, which is read for that.
    async fn sign(&self, letter: &AgentLetter<'_>, envelope: &str) -> io::Result<String> {
        let time = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).map_err(io::Error::other)?;
        mac.update(format!("{time}.{envelope}.").as_bytes());
        let mut content = letter.content().await?;
        while let Some(piece) = content.chunk().await? {
            mac.update(&piece);
        }
        let mut field = format!("t={time},v1=");
        mac.finalize().into_bytes().iter().for_each(|octet| {
            let _ = write!(field, "{octet:02x}");
        });
        Ok(field)
    }

    async fn exchange(&self, request: Request<Outgoing>) -> Result<Answer, Failure> {
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return ask(stream, request).await };
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| unreachable("no certificate can be for its name"))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            let fault = error.get_ref().and_then(|error| error.downcast_ref::<TlsFault>());
            unreachable(&format!("its TLS failed: {}", fault.map_or_else(|| error.to_string(), explain)))
        })?;
        ask(stream, request).await
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
            let decision = self.post(letter, group).await;
            decisions.extend(group.iter().map(|_| decision.clone()));
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

/// hyper's texts are its own and have no words of the server.
fn broken(error: &hyper::Error) -> Failure {
    Failure::Broken(format!("The application broke off: {error}"))
}

/// The envelope of some recipients as JSON in ASCII.
fn envelope(letter: &AgentLetter<'_>, group: &[Rcpt]) -> String {
    let from = match &letter.envelope.mail.reverse_path {
        ReversePath::Null => String::new(),
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let to = group.iter().map(|rcpt| rcpt.forward_path.mailbox().map_or_else(String::new, ToString::to_string));
    let mut json = format!("{{\"id\":{},\"from\":{},\"to\":[", quoted(&letter.id.to_string()), quoted(&from));
    for (index, mailbox) in to.enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        json.push_str(&quoted(&mailbox));
    }
    let _ = write!(json, "],\"age\":{}}}", letter.age.as_secs());
    json
}

/// A JSON string (RFC 8259 section 7), with escapes for all that is not printable ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        match char::from_u32(unit.into()) {
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some(c @ ' '..='~') => out.push(c),
            _ => {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.push('"');
    out
}

/// The content as the body of a request.
struct Outgoing(AgentContent);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(Pin::new(&mut self.0).poll_next(context));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What the server answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Seconds.
    retry_after: Option<u64>,
    words: String,
}

impl Answer {
    fn decision(&self) -> Decision {
        let Self { status, retry_after, words } = self;
        let wait = retry_after.map(|seconds| format!(", try again in {seconds} seconds")).unwrap_or_default();
        let said = if words.is_empty() { String::new() } else { format!(": {words}") };
        Err(match status {
            200..300 => return Ok(accepted!("250 2.0.0 Taken with status {}", status)),
            300..400 => refusal!("451 4.3.5 Status {}: the redirect is not followed; name its target", status),
            429 => refusal!("450 4.7.1 Status 429, rate limited{}{}", wait, said),
            408 | 425 => refusal!("451 4.3.2 Status {}{}{}", status, wait, said),
            413 => refusal!("552 5.3.4 Status 413, the message is too large{}", said),
            400..500 => refusal!("554 5.7.1 Status {}, the message is not taken{}", status, said),
            _ => refusal!("451 4.3.0 Status {}{}{}", status, wait, said),
        })
    }
}

/// Sends the request. The connection is driven here and ends with the future.
async fn ask<S>(stream: S, request: Request<Outgoing>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new();
    builder.max_buf_size(HEAD).max_headers(FIELDS);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let (mut connection, mut answer) = (pin!(connection), pin!(answer(sender, request)));
    let mut is_open = true;
    poll_fn(|context| {
        // Its error reaches the answer as well.
        is_open = is_open && connection.as_mut().poll(context).is_pending();
        answer.as_mut().poll(context)
    })
    .await
}

async fn answer(mut sender: SendRequest<Outgoing>, request: Request<Outgoing>) -> Result<Answer, Failure> {
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|value| value.trim().parse::<u64>().ok()).filter(|seconds| *seconds > 0);
    let retry_after = retry_after.map(|seconds| seconds.min(MAX_WAIT));
    let words = if (400..600).contains(&status) { words(response).await } else { String::new() };
    Ok(Answer { status, retry_after, words })
}

/// The first line of a text. Anything else is left out.
async fn words(response: Response<Incoming>) -> String {
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !media_type.is_some_and(|media_type| media_type.to_ascii_lowercase().starts_with("text/plain")) {
        return String::new();
    }
    let mut octets = Vec::new();
    let read = async {
        let mut body = pin!(response.into_body());
        while octets.len() < BODY
            && let Some(Ok(frame)) = poll_fn(|context| body.as_mut().poll_frame(context)).await
        {
            let Ok(data) = frame.into_data() else { continue };
            octets.extend_from_slice(data.get(..BODY.min(data.len())).unwrap_or_default());
        }
    };
    // What has come until then counts.
    let _ = timeout(BODY_WAIT, read).await;
    let text = String::from_utf8_lossy(&octets);
    crate::event::shortened(text.trim().lines().next().unwrap_or_default().trim(), WORDS).into_owned()
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(why) => refusal!("421 4.4.1 {}", why),
            Failure::Broken(why) => refusal!("451 4.4.2 {}", why),
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

    #[test]
    fn a_status_decides() {
        for (status, retry_after, words, reply) in [
            (200, None, "", "250 2.0.0 Taken with status 200"),
            (204, Some(9), "", "250 2.0.0 Taken with status 204"),
            (301, None, "", "451 4.3.5 Status 301: the redirect is not followed; name its target"),
            (400, None, "no such list", "554 5.7.1 Status 400, the message is not taken: no such list"),
            (404, Some(9), "", "554 5.7.1 Status 404, the message is not taken"),
            (408, None, "", "451 4.3.2 Status 408"),
            (413, None, "", "552 5.3.4 Status 413, the message is too large"),
            (425, Some(7), "", "451 4.3.2 Status 425, try again in 7 seconds"),
            (429, Some(7), "wait", "450 4.7.1 Status 429, rate limited, try again in 7 seconds: wait"),
            (500, None, "a\u{7}b", "451 4.3.0 Status 500: a?b"),
            (503, Some(60), "", "451 4.3.0 Status 503, try again in 60 seconds"),
            (999, None, "", "451 4.3.0 Status 999"),
        ] {
            let answer = Answer { status, retry_after, words: words.to_owned() };
            let said = match answer.decision() {
                Ok(accepted) => accepted.to_string(),
                Err(refusal) => refusal.to_string(),
            };
            assert_eq!(said, reply);
        }
    }

    #[test]
    fn json_is_printable_ascii() {
        for (text, json) in [
            ("a@b.test", r#""a@b.test""#),
            ("\"a\\\"b\"@c", r#""\"a\\\"b\"@c""#),
            ("\u{e4}@\u{1f600}", r#""\u00e4@\ud83d\ude00""#),
            ("\r\n\u{7f}", r#""\u000d\u000a\u007f""#),
        ] {
            assert_eq!(quoted(text), json);
        }
    }
}
