#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "dkim")]
pub mod dkim;

#[cfg(feature = "dkim")]
pub use posthaste_wire as wire;
