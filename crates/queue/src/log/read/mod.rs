//! Reading what the log holds: records, bodies, and the open segments that both come from.

pub(in crate::log) mod body;
pub(in crate::log) mod readers;
pub(in crate::log) mod scan;
