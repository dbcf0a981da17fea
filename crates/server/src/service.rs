//! Services, which make the handlers of connections.

use std::{future::Future, sync::Arc};

use posthaste_tokio::{session::ServerSettings, wire::Refusal};

use crate::{Context, Handler, Layer, Layered};

/// An SMTP service: decides about connections and makes a [`Handler`] for each.
///
/// A closure or an `async fn` from [`Context`] to a handler is a service, and so is an `Arc` of
/// one:
///
/// ```
/// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, Service, accepted};
/// struct Discard;
///
/// impl Handler for Discard {
///     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
///         body.collect(1 << 20).await?;
///         Ok(accepted!("250 2.0.0 Thrown away"))
///     }
/// }
///
/// fn service() -> impl Service {
///     |_| async { Ok(Discard) }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no SMTP service",
    label = "this makes no handlers",
    note = "use a closure that makes a handler for each connection: `|_| async {{ Ok(MyHandler) }}`",
    note = "handlers that can be cloned are a service: `handlers::cloned(handler)`",
    note = "or implement `Service` for a type that makes them"
)]
pub trait Service: Send + Sync + 'static {
    /// The handler of one connection.
    type Handler: Handler;

    /// The offers to a client, and its limits. Default: the listener's settings, which
    /// [`Context::settings`] holds when this is called. The listener alone decides about STARTTLS.
    fn settings(&self, cx: &Context) -> Arc<ServerSettings> {
        Arc::clone(&cx.settings)
    }

    /// A client has connected. Timeout, panic and abort are as for a [`Handler`].
    ///
    /// # Errors
    /// The refusal that the client gets in place of a greeting; the connection then closes.
    fn connect(&self, cx: &Context) -> impl Future<Output = Result<Self::Handler, Refusal>> + Send;

    /// Puts a layer around each handler. The layer that was added last decides first.
    fn layer<L: Layer>(self, layer: L) -> Layered<Self, L>
    where
        Self: Sized,
    {
        Layered { inner: self, layer }
    }
}

impl<F, C, H> Service for F
where
    F: Fn(Context) -> C + Send + Sync + 'static,
    C: Future<Output = Result<H, Refusal>> + Send,
    H: Handler,
{
    type Handler = H;

    fn connect(&self, cx: &Context) -> impl Future<Output = Result<H, Refusal>> + Send {
        self(cx.clone())
    }
}

impl<V: Service> Service for Arc<V> {
    type Handler = V::Handler;

    fn settings(&self, cx: &Context) -> Arc<ServerSettings> {
        V::settings(self, cx)
    }

    fn connect(&self, cx: &Context) -> impl Future<Output = Result<Self::Handler, Refusal>> + Send {
        V::connect(self, cx)
    }
}
