//! A client and a server back to back: N messages in are the same N out.
//! [`posthaste_testkit::pair`] has the model and the invariants.

mod any_steps;
mod every_octet;
