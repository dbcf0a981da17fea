//! New options for a relay that runs.

use std::fmt;

use thiserror::Error;

use crate::RelayOptions;

/// The relay did not take new options, and goes on with those that it has: some cannot change while
/// it runs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no option was changed: {}", Listed(fixed))]
#[non_exhaustive]
pub struct ReloadError {
    /// The options that would have to change, one at least.
    pub fixed: Vec<FixedOption>,
}

/// An option that cannot change while the relay runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FixedOption {
    /// Its name, as in [`RelayOptions`].
    pub name: &'static str,
    /// Its value in the running relay.
    pub now: String,
    /// The value that was asked for.
    pub wanted: String,
}

impl fmt::Display for FixedOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, now, wanted } = self;
        write!(f, "`{name}` is {now} while this relay runs; start it anew for {wanted}, or leave it as it is")
    }
}

struct Listed<'l>(&'l [FixedOption]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, option) in self.0.iter().enumerate() {
            write!(f, "{}{option}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// Looks whether a relay with the options `now` can go on with those that are `wanted`.
///
/// # Errors
/// All options that it cannot change.
pub(crate) fn check(now: &RelayOptions, wanted: &RelayOptions) -> Result<(), ReloadError> {
    let (old, new) = (&now.delivery, &wanted.delivery);
    let values = [
        // Listeners greet with it, and loops are found by it.
        ("host_name", now.host_name.to_string(), wanted.host_name.to_string()),
        // The leases of the queue have been fitted to it.
        ("delivery.concurrency", old.concurrency.to_string(), new.concurrency.to_string()),
        ("delivery.idle", format!("{:?}", old.idle), format!("{:?}", new.idle)),
    ];
    let differ = values.into_iter().filter(|(_, now, wanted)| now != wanted);
    let fixed: Vec<_> = differ.map(|(name, now, wanted)| FixedOption { name, now, wanted }).collect();
    if fixed.is_empty() { Ok(()) } else { Err(ReloadError { fixed }) }
}
