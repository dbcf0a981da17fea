//! What looking and claiming cost grows with what is asked for, and not with the queue.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

use posthaste_queue_postgres::PostgresQueue;
use tokio_postgres::Transaction;

mod server;
use server::{Server, block_on};

/// Rows that a connection has read lately: by walking over a table, and through an index. They are
/// forgotten between transactions only.
const READ: &str = "SELECT sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables
    WHERE schemaname = current_schema() AND relname IN ('deliveries', 'messages')";

/// 90,000 deliveries in three classes, 5,000 in classes of their own, and 5,000 that wait.
const FILL: &str = "
    INSERT INTO messages SELECT n, 'me', 0, '', 0, 0 FROM generate_series(1, 100000) n;
    INSERT INTO deliveries (message, number, key, state, due, owner, priority)
        SELECT n, 0, convert_to(CASE WHEN n <= 90000 THEN 'k' || n % 3 ELSE 'l' || n END, 'UTF8'), '',
            CASE WHEN n <= 95000 THEN n ELSE 9000000000000000000 END, 'me', 0
        FROM generate_series(1, 100000) n;
    ANALYZE messages, deliveries;
";

async fn read(transaction: &Transaction<'_>) -> (i64, i64) {
    let row = transaction.query_one(READ, &[]).await.unwrap();
    (row.get::<_, Option<i64>>(0).unwrap_or(0), row.get::<_, Option<i64>>(1).unwrap_or(0))
}

#[test]
fn looking_and_claiming_read_no_more_than_they_return() {
    let server = Server::start();
    server.execute("public", "CREATE SCHEMA costs");
    drop(PostgresQueue::open(server.config("costs"), 1_000).unwrap());
    server.execute("costs", FILL);
    block_on(async {
        let mut client = server.client("costs").await;
        for (what, statement, rows, times) in [
            ("three large classes", "SELECT * FROM due_classes('', 128::smallint, '', 3)", 3, 2),
            ("many classes", "SELECT * FROM due_classes('k2', 0::smallint, 'me', 1000)", 1_000, 2),
            (
                "claims",
                "SELECT * FROM claim(1, '{k1,none,k0}', '{0,0,0}', '{me,me,me}', 200, 60000000)",
                200,
                // Each is read, locked, changed with its message, and counted among the message's.
                5,
            ),
            ("claims behind leases", "SELECT * FROM claim(1, '{k1}', '{0}', '{me}', 10, 60000000)", 10, 25),
        ] {
            let transaction = client.transaction().await.unwrap();
            let before = read(&transaction).await;
            assert_eq!(transaction.query(statement, &[]).await.unwrap().len(), rows, "{what}");
            let after = read(&transaction).await;
            let read = (after.0 - before.0, after.1 - before.1);
            let most = i64::try_from(rows * times + 50).unwrap();
            assert!(read.0 == 0 && read.1 <= most, "{what}: {read:?} rows were read, of at most {most} by index");
            transaction.commit().await.unwrap();
        }
    });
}
