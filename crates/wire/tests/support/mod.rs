//! What the tests of this crate share. The workspace's testkit includes the same files, so that the fuzz targets and
//! these tests cannot differ.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it, and the testkit publishes it")]

pub mod choices;
pub mod framing;
pub mod lines;
pub mod reference;
pub mod replies;
pub mod rows;
pub mod unescape;
pub mod values;
