//! Example programs; they stand in `src/bin`. The examples of the workspace's front page are compiled here.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod front_page {}
