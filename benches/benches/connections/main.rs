//! What connections cost a server: the memory of each one that is idle, and the processor's time of
//! TLS handshakes beside a server of nothing but tokio-rustls.
//!
//! ```text
//! cargo bench -p posthaste-benches --bench connections
//! ```
//!
//! The servers are processes of their own, so that only their memory and time count. Needs `/proc`,
//! and 10,000 descriptors a process (`ulimit -n`).

mod handshakes;
mod idle;
#[path = "../process/mod.rs"]
mod process;
mod servers;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(process::FLAG) {
        return servers::main(&arguments.next().unwrap_or_default());
    }
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        idle::measure(if is_trial { 20 } else { 9_000 }).await;
        handshakes::measure(if is_trial { 20 } else { 2_000 }).await;
    });
}
