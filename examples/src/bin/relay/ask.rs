//! Asks the running relay, through its control socket.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{Failure, config::Config, control};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Octets of an answer that are read: a page of a thousand messages with a thousand recipients each
/// has fewer.
const LONGEST: usize = 1 << 30;

/// The way to the relay that runs with a configuration.
#[derive(Debug)]
pub(crate) struct Ask<'c>(pub(crate) &'c Config);

#[derive(Deserialize)]
struct Problem {
    error: String,
}

impl Ask<'_> {
    /// Asks for text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        let octets = self.whole(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    /// Asks for a value.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let octets = self.whole(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&octets).map_err(|error| self.odd(&error))
    }

    /// Asks for a change.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::run)?;
        let octets = self.whole(Method::POST, path, body.into()).await?;
        serde_json::from_slice(&octets).map_err(|error| self.odd(&error))
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let answer = async {
            let body = self.send(method, path, body).await?;
            let whole = Limited::new(body, LONGEST).collect().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(whole.to_bytes())
        };
        let answered = tokio::time::timeout(PATIENCE, answer).await;
        answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| self.silent(&error))
    }

    /// The body of an answer. An error that the relay tells is one of the kind `Other`.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Bytes) -> io::Result<Incoming> {
        let stream = UnixStream::connect(self.0.queue.join(control::NAME)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, "relay");
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body));
        let answer = sender.send_request(request.map_err(io::Error::other)?).await.map_err(|error| match error {
            error if error.is_incomplete_message() => io::ErrorKind::UnexpectedEof.into(),
            error => io::Error::other(error),
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = Limited::new(answer.into_body(), 64 << 10).collect().await.map_err(io::Error::other)?;
        let problem = serde_json::from_slice::<Problem>(&body.to_bytes());
        let text = problem.map_or_else(|_| format!("it answers {status}"), |problem| problem.error);
        let kind = if status == StatusCode::NOT_FOUND { io::ErrorKind::NotFound } else { io::ErrorKind::InvalidInput };
        Err(io::Error::new(kind, Told(text)))
    }

    /// There is no answer, or it is an error.
    pub(crate) fn silent(&self, error: &io::Error) -> Failure {
        if let Some(Told(text)) = error.get_ref().and_then(|told| told.downcast_ref()) {
            return Failure::Run(text.clone());
        }
        let remedy = match error.kind() {
            io::ErrorKind::TimedOut => "it is busy or hangs; see its log",
            io::ErrorKind::PermissionDenied => "ask as the user who runs it",
            io::ErrorKind::UnexpectedEof => "it ended meanwhile, or another version of it runs; see its log",
            _ => "start it with `relay serve`",
        };
        let path = self.0.queue.join(control::NAME);
        Failure::Run(format!("no relay answers at {}: {error}; {remedy}", path.display()))
    }

    fn odd(&self, error: &serde_json::Error) -> Failure {
        Failure::Run(format!("the answer of the relay cannot be read: {error}; ask with the version that runs"))
    }
}

/// What the relay has told.
#[derive(Debug)]
struct Told(String);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Told {}
