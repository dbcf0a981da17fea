//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod agents;
mod broken_offers;
mod damaged_bodies;
mod delivery;
mod endings;
mod failover;
mod fairness;
mod host_names;
mod hosts_that_stop;
mod limits;
#[cfg(unix)]
mod lmtp;
mod loops;
mod maildirs;
mod missing_fields;
mod one_dead;
mod one_provider;
mod one_report;
mod open_relay;
mod operator;
mod order_of_events;
mod outcomes;
mod overload;
mod own_name;
mod own_routes;
mod panics;
mod parameters;
mod published;
mod reception;
mod recipient_limits;
mod relabeling;
mod reload;
mod reports;
mod require_tls;
mod rules;
#[cfg(feature = "dkim")]
mod signatures;
mod silence;
mod source_certificates;
mod source_limits;
mod sources;
mod strangers;
mod submission;
mod support;
mod throttling;
mod tls_mishaps;
mod truth;
mod unrecordable;
#[cfg(feature = "webhook")]
mod webhooks;
