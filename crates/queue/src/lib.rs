#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;
mod clock;
#[cfg(feature = "contract")]
pub mod contract;
mod core;
mod error;
mod id;
mod index;
mod limits;
#[cfg(unix)]
pub mod log;
mod manage;
pub mod memory;
mod queue;
mod signal;

pub use call::{
    Change, Claim, Claimed, Derived, DueClass, Gather, GatherWhen, Lease, NewDelivery, NewMessage, Outcome, Stats,
};
pub use clock::{Clock, ManualClock, SystemClock, Wake};
pub use error::{Broken, Error, Full, LeaseError, PutError, TooLarge};
pub use id::{MAX_NAME, MessageId, NameError, Owner, Priority, RoutingKey};
pub use limits::{MAX_DELAY, MAX_DELIVERIES, MAX_DERIVED, MAX_ENVELOPE, MAX_STATES};
pub use manage::{Alteration, DeliverySummary, Page, Search, Summary};
pub use queue::{Body, Draft, Queue};
