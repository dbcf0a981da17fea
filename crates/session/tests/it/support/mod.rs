//! Measures the heap of a connection.

pub(crate) mod memory;
