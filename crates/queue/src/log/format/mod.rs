//! The bytes of FORMAT.md, encoded and decoded. This folder opens no file.

pub(in crate::log) mod frame;
pub(in crate::log) mod place;
pub(in crate::log) mod record;
