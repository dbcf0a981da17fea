//! What the tests of this crate show without PostgreSQL.
#![cfg(not(feature = "postgres"))]

#[test]
#[ignore = "SKIPPED: the engine on PostgreSQL; run `cargo test -p posthaste-queue-postgres --features postgres`"]
fn postgres_keeps_the_contract() {
    panic!("there is no engine without the feature `postgres`");
}
