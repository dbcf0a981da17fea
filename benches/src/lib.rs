//! Criterion benches, one file per layer.
