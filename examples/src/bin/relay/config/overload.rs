//! When the relay counts as overloaded: the keys of `[overload]`.

use std::time::Duration;

use posthaste::relay::OverloadOptions;

use super::{
    findings::{At, Findings},
    table::Table,
    values,
};

/// From which value on every MAIL is refused. The other watermarks keep their proportion to it.
#[derive(Debug, Default)]
pub(super) struct Overload {
    memory: Option<At<u8>>,
    pub(super) memory_limit: Option<At<u64>>,
    descriptors: Option<At<u8>>,
    queue_depth: Option<At<u64>>,
    commit_latency: Option<At<Duration>>,
}

impl Overload {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            memory: table.take("memory", findings, values::percent),
            memory_limit: table.take("memory_limit", findings, values::memory_limit),
            descriptors: table.take("descriptors", findings, values::percent),
            queue_depth: table.take("queue_depth", findings, values::depth),
            commit_latency: table.take("commit_latency", findings, values::timeout),
        };
        table.end(findings);
        read
    }

    pub(super) fn options(&self) -> OverloadOptions {
        let mut options = OverloadOptions::default();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wanted = [
            (&mut options.memory, self.memory.as_ref().map(|at| at.value.into())),
            (&mut options.descriptors, self.descriptors.as_ref().map(|at| at.value.into())),
            (&mut options.depth, self.queue_depth.as_ref().map(|at| at.value)),
            (&mut options.commit_latency, self.commit_latency.as_ref().map(|at| milliseconds(at.value))),
        ];
        for (watermarks, everyone) in wanted {
            if let Some(everyone) = everyone {
                *watermarks = watermarks.refusing_at(everyone);
            }
        }
        options
    }
}
