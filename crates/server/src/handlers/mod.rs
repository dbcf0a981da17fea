//! Services from closures and from handlers.
//!
//! A program that takes messages and decides nothing else is a closure with the arguments of
//! [`Handler::message`]. What it does with the [`Body`] is the same everywhere:
//!
//! | call | the content |
//! |---|---|
//! | [`body.collect(limit)`](Body::collect) | in memory, as `Bytes` |
//! | [`body.next()`](Body::next), or as a `Stream` | piece by piece, in constant memory |
//! | [`body.into_reader()`](Body::into_reader) | as an `AsyncRead` |
//! | [`body.spool(&options)`](Body::spool), with the feature `spool` | in memory, or in a temporary file if it is large |
//!
//! Checks in front of it are [layers](crate::Layer), so that a program with a closure can check
//! recipients and count connections too:
//!
//! ```
//! use posthaste_server::{Server, Service as _, accepted, handlers};
//! # use posthaste_server::{Context, Layer, Refusal, refusal, wire::Rcpt};
//! # #[derive(Clone)] struct Recipients(&'static [&'static str]);
//! # impl Layer for Recipients {
//! #     async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
//! #         let known = |name: &&str| rcpt.forward_path.to_string() == format!("<{name}>");
//! #         if self.0.iter().any(known) { Ok(()) } else { Err(refusal!("550 5.1.1 No such mailbox")) }
//! #     }
//! # }
//!
//! let service = handlers::message(async |_, envelope, body| {
//!     let content = body.collect(16 << 20).await?;
//!     println!("{} octets from {}", content.len(), envelope.mail.reverse_path);
//!     Ok(accepted!("250 2.0.0 Taken"))
//! });
//! let server = Server::new(service.layer(Recipients(&["you@example.net"])));
//! ```
//!
//! A program that decides more, such as who may log in, implements [`Handler`], with the closure's
//! body as its `message`. [`cloned`] makes a service of it.

mod lend;

use std::{future::Future, sync::Arc};

use posthaste_tokio::wire::{Accepted, Refusal};

use crate::{Body, Context, Envelope, Handler, Service};

/// A service that takes messages with a closure, which has the arguments and the contract of
/// [`Handler::message`]. It accepts every client and envelope; [layers](Service::layer) check them
/// before.
///
/// All connections share the closure. State in it is cloned for each message:
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use posthaste_server::{accepted, handlers};
///
/// let inbox = Arc::new(Mutex::new(Vec::new()));
/// let service = handlers::message({
///     let inbox = Arc::clone(&inbox);
///     move |_, envelope, body| {
///         let inbox = Arc::clone(&inbox);
///         async move {
///             let content = body.collect(1 << 20).await?;
///             inbox.lock().expect("no panic under the lock").push((envelope, content));
///             Ok(accepted!("250 2.0.0 Taken"))
///         }
///     }
/// });
/// # posthaste_server::Server::new(service);
/// ```
pub fn message<F, D>(decide: F) -> Cloned<OnMessage<F>>
where
    F: Fn(Context, Envelope, Body<'static>) -> D + Send + Sync + 'static,
    D: Future<Output = Result<Accepted, Refusal>> + Send,
{
    cloned(OnMessage(Arc::new(decide)))
}

/// A service whose connections each have a clone of this handler. An `Arc` among its fields is
/// shared by all connections, and other fields are the state of one.
///
/// ```
/// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, Server, accepted};
/// #[derive(Clone)]
/// struct Discard;
///
/// impl Handler for Discard {
///     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
///         body.collect(1 << 20).await?;
///         Ok(accepted!("250 2.0.0 Thrown away"))
///     }
/// }
///
/// let server = Server::new(posthaste_server::handlers::cloned(Discard));
/// ```
///
/// A handler that has to know its client when it is made is made by a closure:
/// `Server::new(|cx| async { .. })`, see [`Service`].
pub const fn cloned<H: Handler + Clone + Sync + 'static>(handler: H) -> Cloned<H> {
    Cloned(handler)
}

/// A service of clones; see [`cloned`].
#[derive(Debug, Clone)]
pub struct Cloned<H>(H);

impl<H: Handler + Clone + Sync + 'static> Service for Cloned<H> {
    type Handler = H;

    async fn connect(&self, _: &Context) -> Result<H, Refusal> {
        Ok(self.0.clone())
    }
}

/// A handler that is a closure; see [`message`].
#[derive(Debug)]
pub struct OnMessage<F>(Arc<F>);

impl<F> Clone for OnMessage<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F, D> Handler for OnMessage<F>
where
    F: Fn(Context, Envelope, Body<'static>) -> D + Send + Sync,
    D: Future<Output = Result<Accepted, Refusal>> + Send,
{
    async fn message(&mut self, cx: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        lend::lend(body, |body| (self.0)(cx.clone(), envelope, body)).await
    }
}
