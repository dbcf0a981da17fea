//! A mail trap for developers: takes every message, sends none, and shows them on a page.
//!
//! ```text
//! cargo run --bin capture -- 127.0.0.1:2525 127.0.0.1:8025
//! ```

use std::{collections::VecDeque, convert::Infallible, error::Error, fmt::Write as _, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use hyper::{Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use posthaste::server::{Body, Envelope, Listener, Server, Service, accepted, handlers, session::ServerSettings};
use tokio::sync::{Mutex, Semaphore};
use tokio::{net::TcpListener, time::timeout};

/// Messages that are kept, and the octets of each: 250 MiB at most. Then the oldest makes room.
const MESSAGES: usize = 50;
const SIZE: u32 = 5 << 20;
/// Requests at a time, for 10 s each. More of them wait.
const REQUESTS: usize = 16;

/// The messages, with their numbers.
type Trap = Mutex<VecDeque<(u64, Envelope, Bytes)>>;

/// The page at a path, as HTML. `None`: there is none.
fn page(messages: &VecDeque<(u64, Envelope, Bytes)>, path: &str) -> Option<String> {
    let mut html = "<!doctype html><title>Captured</title>".to_owned();
    if path == "/" {
        for (number, envelope, content) in messages.iter().rev() {
            let content = String::from_utf8_lossy(content);
            let mut header = content.lines().take_while(|line| !line.is_empty());
            let subject = header.find(|line| line.to_ascii_lowercase().starts_with("subject:"));
            let (subject, from) = (escaped(subject.unwrap_or("No subject")), escaped(&envelope.mail.reverse_path));
            let _ = write!(html, "<p>{number} <a href=/{number}>{subject}</a> from {from}");
        }
        return Some(html);
    }
    let wanted: u64 = path.strip_prefix('/')?.parse().ok()?;
    let (_, envelope, content) = messages.iter().find(|(number, ..)| *number == wanted)?;
    let _ = write!(html, "<p><a href=/>All</a><p>From {}", escaped(&envelope.mail.reverse_path));
    for rcpt in &envelope.recipients {
        let _ = write!(html, "<br>To {}", escaped(&rcpt.forward_path));
    }
    let _ = write!(html, "<pre>{}</pre>", escaped(String::from_utf8_lossy(content)));
    Some(html)
}

/// Text that can stand in an element, and in no attribute.
fn escaped(text: impl ToString) -> String {
    text.to_string().replace('&', "&amp;").replace('<', "&lt;")
}

fn service(trap: Arc<Trap>) -> impl Service {
    handlers::message(move |_, envelope: Envelope, body: Body<'static>| {
        let trap = Arc::clone(&trap);
        async move {
            let content = body.collect(SIZE as usize).await?;
            let mut messages = trap.lock().await;
            let number = messages.back().map_or(1, |(number, ..)| number + 1);
            messages.push_back((number, envelope, content));
            if messages.len() > MESSAGES {
                messages.pop_front();
            }
            Ok(accepted!("250 2.0.0 Captured as {}", number))
        }
    })
}

async fn respond(trap: &Trap, request: &Request<Incoming>) -> Response<String> {
    // A site elsewhere can point its own name at this address, and would be let in by the browser.
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_ours = host.starts_with("localhost:") || host.parse::<SocketAddr>().is_ok();
    let page = if is_ours { page(&*trap.lock().await, request.uri().path()) } else { None };
    let status = if page.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(page.unwrap_or_default());
    *response.status_mut() = status;
    let mut set = |name, value| response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    response
}

async fn show(trap: Arc<Trap>, listener: TcpListener) -> Result<(), Box<dyn Error>> {
    let requests = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let permit = Arc::clone(&requests).acquire_owned().await?;
        let (stream, _) = listener.accept().await?;
        let trap = Arc::clone(&trap);
        tokio::spawn(async move {
            let page = service_fn(async |request| Ok::<_, Infallible>(respond(&trap, &request).await));
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), page);
            let _ = timeout(std::time::Duration::from_secs(10), connection).await;
            drop(permit);
        });
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, page] = &arguments[..] else { return Err("usage: capture ADDRESS PAGE-ADDRESS".into()) };
    let page = TcpListener::bind(page).await?;
    if !page.local_addr()?.ip().is_loopback() {
        return Err("the page shows every message to all that reach it; give it a loopback address".into());
    }
    let mut settings = ServerSettings::new("localhost".parse()?);
    settings.limits.message_size = SIZE.into();
    let listener = Listener::bind(address, settings).await?;
    println!("listening on {}", listener.local_address()?);
    println!("the page is http://{}/", page.local_addr()?);
    let trap = Arc::default();
    tokio::select! {
        () = Server::new(service(Arc::clone(&trap))).listen(listener).serve() => Ok(()),
        ended = show(trap, page) => ended,
    }
}
