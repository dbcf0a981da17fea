//! An engine that keeps everything in PostgreSQL, shared by several owners: to show that the trait of `posthaste-queue` fits one.
//!
//! It is not shipped. It passes the contract with several owners, of whom some are killed; it is not fast: a claim sorts all that is
//! due, statements are prepared anew, every finish and every commit waits for its own sync.
//!
//! * Everything that counts is in the database, and every step is one short transaction. No row is locked while a delivery runs: a
//!   lease is a generation and a time at which it ends, by the database's clock.
//! * `NOTIFY` is a hint to look again. A connection that is lost ends the engine, so no hint is lost without a word.
//! * A body is rows of at most 64 KiB. They stay for a while when a message is gone, for those who still read it.
//! * An owner has a number and holds an advisory lock on it, which ends with its connection: so the drafts of dead owners are known.
//!   Their leases are not taken away from them but expire: who is cut off from the database may still be delivering.
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
