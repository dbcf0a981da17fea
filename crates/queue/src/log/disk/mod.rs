//! What the engine asks of an operating system, and what it sees of its folder.

pub(in crate::log) mod counting;
pub(in crate::log) mod folder;
pub(in crate::log) mod names;
pub(in crate::log) mod quarantine;
pub(in crate::log) mod vfs;
pub(in crate::log) mod watermark;
pub(in crate::log) mod whereabouts;
