//! Example programs, in `src/bin`. The examples of the workspace's README are compiled here.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod front_page {}
