//! From a draft to stable storage: drafts, lanes, batches, segments, and the threads that write.

pub(in crate::log) mod apply;
pub(in crate::log) mod checkpointer;
pub(in crate::log) mod draft;
pub(in crate::log) mod lanes;
mod pace;
pub(in crate::log) mod segment;
pub(in crate::log) mod shared;
pub(in crate::log) mod slot;
pub(in crate::log) mod store;
pub(in crate::log) mod sync;
