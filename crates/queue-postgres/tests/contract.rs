//! An engine that several owners share keeps the contract.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use posthaste_queue::Queue;
use posthaste_queue::contract::{self, Cannot, Crash, Disk, Harness, Jump};
use posthaste_queue_postgres::PostgresQueue;
use tokio_postgres::Client;

mod server;
use server::{Server, block_on};

struct Postgres {
    server: Server,
    schemas: u32,
    /// Holds the lock that writers to a stalled disk wait for.
    stalling: Option<Client>,
}

impl Postgres {
    fn schema(&self) -> String {
        format!("queue_{}", self.schemas)
    }

    fn opened(&self, leases: usize) -> PostgresQueue {
        PostgresQueue::open(self.server.config(&self.schema()), leases).unwrap()
    }

    /// The first owner, in a schema of its own.
    fn first(&mut self, leases: usize) -> PostgresQueue {
        self.schemas += 1;
        self.server.execute(&self.schema(), &format!("CREATE SCHEMA {}", self.schema()));
        let queue = self.opened(leases);
        self.server.execute(&self.schema(), CLOCK_AND_DISK);
        queue
    }
}

impl Harness for Postgres {
    type Queue = PostgresQueue;

    async fn open(&mut self) -> PostgresQueue {
        self.first(LEASES)
    }

    async fn open_with_leases(&mut self, most: usize) -> Result<PostgresQueue, Cannot> {
        Ok(self.first(most))
    }

    async fn reopen(&mut self, queue: PostgresQueue) -> Result<PostgresQueue, Cannot> {
        queue.close().await;
        Ok(self.opened(LEASES))
    }

    async fn advance(&mut self, by: Duration) {
        let by = by.as_micros();
        let advance =
            format!("UPDATE clock SET stands_at = stands_at + {by}; SELECT pg_notify(current_schema(), 'clock')");
        self.server.execute(&self.schema(), &advance);
    }

    async fn crash(&mut self, queue: PostgresQueue, how: Crash) -> Result<PostgresQueue, Cannot> {
        queue.die();
        if how == Crash::Power {
            self.server.power_cut();
        }
        Ok(self.opened(LEASES))
    }

    async fn set_disk(&mut self, disk: Disk) -> Result<(), Cannot> {
        if disk == Disk::Broken {
            return Err(Cannot(SERVER_S_ERRORS));
        }
        self.stalling = None;
        let is_full = disk == Disk::Full;
        self.server.execute(&self.schema(), &format!("UPDATE disk SET is_full = {is_full}"));
        if disk == Disk::Stalled {
            let client = self.server.client(&self.schema()).await;
            client.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
            self.stalling = Some(client);
        }
        Ok(())
    }

    async fn jump_wall(&mut self, _: Jump) -> Result<(), Cannot> {
        Err(Cannot(ONE_CLOCK))
    }

    async fn another(&mut self, _: &PostgresQueue) -> Result<PostgresQueue, Cannot> {
        Ok(self.opened(LEASES))
    }

    async fn kill(&mut self, owner: PostgresQueue) -> Result<(), Cannot> {
        owner.die();
        Ok(())
    }
}

#[test]
fn postgres_keeps_the_contract() {
    let mut harness = Postgres { server: Server::start(), schemas: 0, stalling: None };
    let report = block_on(contract::run(&mut harness));
    report.assert_skipped(&[ONE_CLOCK, SERVER_S_ERRORS]);
}

const LEASES: usize = 1_000;
const ONE_CLOCK: &str = "the database's wall clock is the only one that all owners share";
const SERVER_S_ERRORS: &str =
    "what the server's disk does is the server's to mend: the queue only passes its errors on";

/// A clock that stands still, and a disk that fails as PostgreSQL reports it: each write asks it
/// first.
const CLOCK_AND_DISK: &str = "
    UPDATE clock SET stands_at = 1000000000000000;
    CREATE TABLE disk (is_full boolean NOT NULL);
    INSERT INTO disk VALUES (false);
    CREATE FUNCTION ask_the_disk() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' AND (SELECT is_full FROM disk) THEN
            RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
        END IF;
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN coalesce(NEW, OLD);
    END $$;
    CREATE TRIGGER ask_the_disk BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION ask_the_disk();
    CREATE TRIGGER ask_the_disk BEFORE INSERT ON chunks FOR EACH ROW EXECUTE FUNCTION ask_the_disk();
    CREATE TRIGGER ask_the_disk BEFORE DELETE ON deliveries FOR EACH ROW EXECUTE FUNCTION ask_the_disk();
";
