//! What a run of the suite comes to.

use std::fmt;
use std::future::Future;
use std::thread;

/// A hook of a [`Harness`](super::Harness) is not there, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cannot(pub &'static str);

/// Which cases an engine passed, and which it was not asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The names of those it passed, in order.
    pub passed: Vec<&'static str>,
    /// Those that need what the harness [cannot](Cannot) do.
    pub skipped: Vec<Skipped>,
}

/// A case that was not run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub case: &'static str,
    /// Why.
    pub why: Cannot,
}

/// What a case returns: nothing, if it can be run with any harness.
pub(super) trait Verdict {
    fn verdict(self) -> Result<(), Cannot>;
}

/// Says which case it was that panicked: the panic itself says where in it.
struct Naming(&'static str);

impl Report {
    /// Prints it, and sees that cases were skipped for these reasons and for no other.
    ///
    /// # Panics
    /// When a case was skipped for another reason, or none was for one of these.
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
        // So that one sees which it was that never came to an end.
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
