//! Delayed answers to clients that make mistakes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::sleep};

use super::{LOOPBACK, fixed, is_in};
use crate::{
    Asked, Context, Layer, Login, NetworkSet, Refusal, SaslError,
    session::server::OtherCommand,
    wire::{EhloName, Mail, Rcpt},
};

/// Delays the answers to a client after too many refusals, so that guessing addresses takes long.
///
/// It counts the refusals of what it is put around, so add it after the layers that refuse.
/// Attempts to log in count too. A client that has logged in is not delayed.
///
/// At most 100 answers wait at a time, a tenth of the connections of
/// [`ServerOptions`](crate::ServerOptions). Beyond it, answers are not delayed: strangers must not
/// fill the server with connections that wait.
///
/// ```
/// # use std::time::Duration;
/// use posthaste_server::layers::Tarpit;
/// let mut tarpit = Tarpit::default();
/// tarpit.delay = Duration::from_secs(5);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tarpit {
    /// How long an answer is delayed. Default 1 second. At most half of the time for a
    /// [verdict](crate::Handler) counts.
    pub delay: Duration,
    /// The refusals of a connection that cost no delay. Default 3: people mistype addresses. Zero
    /// delays all answers.
    pub free_refusals: u32,
    /// The networks that are not delayed. Default: loopback.
    pub except: NetworkSet,
    refused: u32,
    waiting: Arc<Semaphore>,
}

const MOST: usize = 100;

impl Default for Tarpit {
    fn default() -> Self {
        let waiting = Arc::new(Semaphore::new(MOST));
        Self { delay: Duration::from_secs(1), free_refusals: 3, except: fixed(LOOPBACK), refused: 0, waiting }
    }
}

impl Tarpit {
    async fn delay(&self, cx: &Context) {
        if self.refused < self.free_refusals || cx.peer.identity.is_some() || is_in(&self.except, cx) {
            return;
        }
        if let Ok(_permit) = self.waiting.try_acquire() {
            sleep(self.delay.min(cx.settings.timeouts.verdict / 2)).await;
        }
    }
}

impl Layer for Tarpit {
    async fn hello(&mut self, cx: &Context, _: &EhloName) -> Result<(), Refusal> {
        self.delay(cx).await;
        Ok(())
    }

    async fn login(&mut self, cx: &Context, _: Login<'_>) -> Result<(), SaslError> {
        self.delay(cx).await;
        self.refused = self.refused.saturating_add(1);
        Ok(())
    }

    async fn mail(&mut self, cx: &Context, _: &Mail) -> Result<(), Refusal> {
        self.delay(cx).await;
        Ok(())
    }

    async fn rcpt(&mut self, cx: &Context, _: &Rcpt) -> Result<(), Refusal> {
        self.delay(cx).await;
        Ok(())
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        self.delay(cx).await;
        Ok(())
    }

    async fn other(&mut self, cx: &Context, _: &OtherCommand) -> Result<(), Refusal> {
        self.delay(cx).await;
        Ok(())
    }

    fn decided(&mut self, _: &Context, _: Asked, refusal: Option<&Refusal>) {
        self.refused = self.refused.saturating_add(u32::from(refusal.is_some()));
    }
}
