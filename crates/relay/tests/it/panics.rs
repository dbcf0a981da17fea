//! An application that panics in a decision.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use posthaste_client::SystemResolver;
use posthaste_queue::memory::MemoryQueue;
use posthaste_relay::{
    Accounts, Policy, Recipients, Relay, Route, RouteError, RouteQuery, Routes, session::sasl::SaslError,
};
use posthaste_server::{
    Context, Refusal, ScramKey, ScramUser, UnknownUsers,
    wire::{Domain, Mailbox, Secret},
};

use crate::support::{Client, Log, options};

/// Takes everything. It panics once in the decision that is armed.
#[derive(Debug, Clone, Default)]
struct Brittle(Arc<[AtomicBool; 5]>);

const TRUSTS: usize = 0;
const SERVES: usize = 1;
const CHECK: usize = 2;
const FIND: usize = 3;
const KEY: usize = 4;

impl Brittle {
    fn arm(&self, which: usize) {
        self.0[which].store(true, SeqCst);
    }

    fn at(&self, which: usize) {
        assert!(!self.0[which].swap(false, SeqCst), "a mistake of the application");
    }
}

impl Policy for Brittle {
    async fn trusts(&self, _: &Context) -> Result<bool, Refusal> {
        self.at(TRUSTS);
        Ok(false)
    }

    async fn serves(&self, _: &Context, _: &Domain<&str>) -> Result<bool, Refusal> {
        tokio::task::yield_now().await;
        self.at(SERVES);
        Ok(true)
    }
}

impl Recipients for Brittle {
    /// It panics before there is a future.
    fn check(&self, _: &Context, _: &Mailbox) -> impl Future<Output = Result<(), Refusal>> + Send {
        self.at(CHECK);
        async { Ok(()) }
    }
}

impl Routes for Brittle {
    async fn find(&self, _: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
        self.at(FIND);
        Ok(Some(Arc::new(Route::hosts([("[127.0.0.1]", 1)]))))
    }
}

impl Accounts for Brittle {
    async fn key(&self, _: &Context, _: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        self.at(KEY);
        Ok(None)
    }

    fn unknown_users(&self) -> UnknownUsers {
        UnknownUsers::new(Secret::new([0; 32]), 4_096)
    }
}

#[tokio::test]
async fn the_client_of_an_application_that_panics_hears_to_try_again_later() {
    let (brittle, log) = (Brittle::default(), Log::default());
    let builder = Relay::builder(MemoryQueue::default(), SystemResolver, options(&[])).observer(log.clone());
    let builder = builder.policy(brittle.clone()).recipients(brittle.clone());
    let relay = builder.routes(brittle.clone()).accounts(brittle.clone()).build();
    let mut client = Client::in_clear(relay, log).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (which, command, reply) in [
        // `\0me\0secret`.
        (KEY, "AUTH PLAIN AG1lAHNlY3JldA==\r\n", "454 4.7.0 "),
        (TRUSTS, "MAIL FROM:<a@b.test>\r\n", "451 4.3.0 "),
        (usize::MAX, "MAIL FROM:<a@b.test>\r\n", "250 "),
        (SERVES, "RCPT TO:<a@d.test>\r\n", "451 4.3.0 "),
        (CHECK, "RCPT TO:<a@d.test>\r\n", "451 4.3.0 "),
        (FIND, "RCPT TO:<a@d.test>\r\n", "451 4.4.3 "),
        (usize::MAX, "RCPT TO:<a@d.test>\r\n", "250 "),
        (usize::MAX, "DATA\r\n", "354 "),
        (usize::MAX, "Subject: x\r\n\r\nbody\r\n.\r\n", "250 "),
    ] {
        if which != usize::MAX {
            brittle.arm(which);
        }
        let said = client.talk(&[command]).await;
        assert!(said.starts_with(reply) && !said.contains("panic"), "{command}: {said}");
    }
}
