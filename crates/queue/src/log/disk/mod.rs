//! The border to the operating system: files, folders, locks, free space.

pub(in crate::log) mod counting;
pub(in crate::log) mod folder;
pub(in crate::log) mod names;
pub(in crate::log) mod quarantine;
pub(in crate::log) mod vfs;
pub(in crate::log) mod watermark;
pub(in crate::log) mod whereabouts;
