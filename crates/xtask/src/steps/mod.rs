//! The steps of `cargo xtask test`, one file each unless a step is a single command.

pub(crate) mod cargo;
pub(crate) mod features;
pub(crate) mod fuzz;
pub(crate) mod install;
mod next_hops;
pub(crate) mod no_std;
pub(crate) mod package;
pub(crate) mod semver;
