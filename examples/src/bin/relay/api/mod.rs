//! What operators ask a running relay, as HTTP with JSON: the one way for commands and pages.
//!
//! ```text
//! GET  /status                        counts, the rung of overload, the state of the queue
//! GET  /sites                         the next hops, and what they have taught
//! GET  /messages?FILTER&after=&limit= a page of queued messages
//! GET  /messages/ID                   one of them
//! GET  /messages/ID/content           its content, as its next hop gets it
//! POST /messages                      {"action", "ids" or a filter}: changes a page of messages
//! GET  /destinations                  queued mail, summed up by destination
//! ```
//!
//! An answer that is no success has `{"error": TEXT}`.

pub(crate) mod forms;
mod messages;
mod state;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::FromRef,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use posthaste::{client::Resolver, queue::Queue, relay::Relay};
use serde_json::json;
use tokio::sync::Semaphore;

/// Answers that may be made at once beside those that only look at counts: each holds a page of
/// messages in memory.
const AT_ONCE: usize = 8;

/// What each answer is made of.
pub(crate) struct App<Q, R> {
    pub(crate) relay: Relay<Q, R>,
    slots: Arc<Semaphore>,
}

impl<Q, R> Clone for App<Q, R> {
    fn clone(&self) -> Self {
        Self { relay: self.relay.clone(), slots: Arc::clone(&self.slots) }
    }
}

impl<Q, R> FromRef<App<Q, R>> for Relay<Q, R> {
    fn from_ref(app: &App<Q, R>) -> Self {
        app.relay.clone()
    }
}

/// Everything that can be asked.
pub(crate) fn router<Q: Queue, R: Resolver>(relay: Relay<Q, R>) -> Router {
    let app = App { relay, slots: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new()
        .route("/status", get(state::status::<Q, R>))
        .route("/sites", get(state::sites::<Q, R>))
        .route("/destinations", get(messages::destinations::<Q, R>))
        .route("/messages", get(messages::find::<Q, R>).post(messages::change::<Q, R>))
        .route("/messages/{id}", get(messages::show::<Q, R>))
        .route("/messages/{id}/content", get(messages::content::<Q, R>))
        .fallback(async || Problem(StatusCode::NOT_FOUND, "there is nothing at this path".to_owned()))
        .with_state(app)
}

/// Why there is no better answer.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) StatusCode, pub(crate) String);

impl Problem {
    fn wrong(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

impl From<posthaste::queue::Error> for Problem {
    fn from(error: posthaste::queue::Error) -> Self {
        let status = match error {
            posthaste::queue::Error::NoSuchMessage(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
