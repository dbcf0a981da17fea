//! The octets of FORMAT.md, encoded and decoded. No file is opened here.

pub(in crate::log) mod frame;
pub(in crate::log) mod place;
pub(in crate::log) mod record;
