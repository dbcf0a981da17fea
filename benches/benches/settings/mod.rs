//! The time that the benchmarks take.

use std::time::Duration;

use criterion::Criterion;

/// Short enough that all benchmarks together take about two minutes; `--measurement-time` and
/// `--sample-size` on the command line make it longer.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args()
}
