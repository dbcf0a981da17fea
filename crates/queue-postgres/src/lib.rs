//! An engine that keeps everything in PostgreSQL, shared by several processes. It shows that the
//! trait of `posthaste-queue` fits such an engine, and is not published.
//!
//! An *owner* here is an open queue, mostly one for each process. It has nothing to do with
//! `posthaste_queue::Owner`, which says whose mail a message is. The engine passes the contract,
//! with several owners of which some are killed. It is not fast: each
//! statement is prepared again, and each finish and commit waits for its own sync.
//!
//! * All state is in the database, and each step is one short transaction. No row is locked while a
//!   delivery runs: a lease is a generation and an end time on the database's clock.
//! * An index has the classes in their order, and the deliveries of each. So a look reads one row
//!   for each class that it lists or passes over, and a claim passes over leased deliveries only.
//! * `NOTIFY` is a hint to look again. A lost connection ends the engine, so no hint is lost
//!   unnoticed.
//! * A body has at most 256 MiB, in rows of at most 64 KiB. They stay for ten minutes after the
//!   message is gone, for callers that still read it.
//! * An owner has a number, and holds an advisory lock on it that ends with its connection. So the
//!   drafts of dead owners are known. The leases of dead owners are not taken back, but expire: an
//!   owner cut off from the database may still be delivering.
#![cfg_attr(not(feature = "postgres"), doc = "\nWithout the feature `postgres` there is nothing here.")]

#[cfg(feature = "postgres")]
mod body;
#[cfg(feature = "postgres")]
mod database;
#[cfg(feature = "postgres")]
mod draft;
#[cfg(feature = "postgres")]
mod keeper;
#[cfg(feature = "postgres")]
mod queue;

#[cfg(feature = "postgres")]
pub use self::{body::PostgresBody, draft::PostgresDraft, queue::PostgresQueue};
