//! The state of the relay and of its next hops.

use axum::{Json, extract::State};
use posthaste::{client::Resolver, queue::Queue, relay::Relay};

use super::forms::Site;
use crate::control;

pub(super) async fn status<Q: Queue, R: Resolver>(State(relay): State<Relay<Q, R>>) -> String {
    control::status(&relay).await
}

/// The next hops, those with most mail first.
pub(super) async fn sites<Q: Queue, R: Resolver>(State(relay): State<Relay<Q, R>>) -> Json<Vec<Site>> {
    let mut sites: Vec<_> = relay.sites().into_iter().map(Site::of).collect();
    sites.sort_by(|one, other| (other.open, other.due, &one.name).cmp(&(one.open, one.due, &other.name)));
    Json(sites)
}
