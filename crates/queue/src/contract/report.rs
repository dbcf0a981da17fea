//! The result of a run of the suite.

use std::fmt;
use std::future::Future;
use std::thread;

/// Why a [`Harness`](super::Harness) does not offer a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cannot(pub &'static str);

/// The cases that an engine passed, and those that were skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The names of the passed cases, in order.
    pub passed: Vec<&'static str>,
    /// The cases that need a hook which the harness does not offer.
    pub skipped: Vec<Skipped>,
}

/// A skipped case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub case: &'static str,
    /// The reason.
    pub why: Cannot,
}

/// What a case returns: `()` if it runs with any harness.
pub(super) trait Verdict {
    fn verdict(self) -> Result<(), Cannot>;
}

/// Prints the case that panicked. The panic itself names the place in it.
struct Naming(&'static str);

impl Report {
    /// Prints the report, and checks that cases were skipped for exactly these reasons.
    ///
    /// # Panics
    /// If a case was skipped for another reason, or no case for one of these.
    pub fn assert_skipped(&self, reasons: &[&str]) {
        println!("{self}");
        for Skipped { case, why } in &self.skipped {
            assert!(reasons.contains(&why.0), "{case} was skipped: {why}");
        }
        for reason in reasons {
            assert!(self.skipped.iter().any(|each| each.why.0 == *reason), "nothing was skipped because {reason}");
        }
    }

    pub(super) async fn add(&mut self, case: &'static str, running: impl Future<Output: Verdict>) {
        // So that a case that never ends is known.
        println!("{case}");
        let naming = Naming(case);
        let verdict = running.await.verdict();
        drop(naming);
        match verdict {
            Ok(()) => self.passed.push(case),
            Err(why) => self.skipped.push(Skipped { case, why }),
        }
    }
}

impl Verdict for () {
    fn verdict(self) -> Result<(), Cannot> {
        Ok(())
    }
}

impl Verdict for Result<(), Cannot> {
    fn verdict(self) -> Self {
        self
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the engine breaks the contract in the case {}", self.0);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cases passed, {} skipped", self.passed.len(), self.skipped.len())?;
        self.skipped.iter().try_for_each(|Skipped { case, why }| write!(f, "\nskipped {case}: {why}"))
    }
}
