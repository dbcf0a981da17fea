//! Reading the log: records, bodies, and the open segments that hold both.

pub(in crate::log) mod body;
pub(in crate::log) mod readers;
pub(in crate::log) mod scan;
