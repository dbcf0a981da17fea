//! A client and a server back to back: N messages in are the same N out, whatever happens between them. What must hold
//! is with [`posthaste_testkit::pair`], together with the model.

mod any_steps;
mod every_octet;
