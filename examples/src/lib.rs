//! Example programs, in `src/bin`. The examples of the workspace's README are compiled here.

use std::{
    fmt::Display,
    process::{ExitCode, Termination},
};

/// Ends a program. An error is printed as its text, which says what to do: a `main` that returns an
/// error prints its `Debug` form, which does not.
pub fn report<T: Termination, E: Display>(result: Result<T, E>) -> ExitCode {
    match result {
        Ok(done) => done.report(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod front_page {}
