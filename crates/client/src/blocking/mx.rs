//! Messages to the mail hosts of domains, for programs without an async runtime.

use std::{fmt, sync::Arc};

use posthaste_tokio::wire::{AddressError, Mail, Rcpt};

use super::{Own, outcomes};
use crate::{ClientOptions, ConnectError, Delivered, Dial, Message, MxOptions, Resolver, SendError, Source, Tcp};

/// Sends messages to the mail hosts of their recipients' domains. Clones share the connections. See
/// [`Mx`](crate::Mx).
///
/// A thread of its own closes the unused connections when their time is over.
///
/// ```no_run
/// # #[cfg(feature = "hickory")]
/// # fn example(people: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
/// use posthaste_client::{ClientOptions, HickoryResolver, Message, blocking::Mx};
///
/// let mx = Mx::new(HickoryResolver::system()?, ClientOptions::new("mail.example.org".parse()?))?;
/// let text = "Subject: hello\r\n\r\nHello!\r\n";
/// let messages = people.iter().filter_map(|to| Message::new("me@example.org", [to.as_str()], text).ok());
/// for (number, sent) in mx.send_all(messages) {
///     sent?.failed().for_each(|failed| println!("message {number}: {failed}"));
/// }
/// # Ok(()) }
/// ```
pub struct Mx<R, D: Dial = Tcp> {
    mx: crate::Mx<R, D>,
    runtime: Arc<Own>,
}

impl<R, D: Dial> Clone for Mx<R, D> {
    fn clone(&self) -> Self {
        Self { mx: self.mx.clone(), runtime: Arc::clone(&self.runtime) }
    }
}

impl<R: Resolver> Mx<R> {
    /// Makes one with the default options. It looks nothing up before the first message.
    ///
    /// # Errors
    /// [`ConnectError::Runtime`].
    pub fn new(resolver: R, client: ClientOptions) -> Result<Self, ConnectError> {
        Self::with(resolver, client, MxOptions::default(), Tcp::default())
    }
}

impl<R: Resolver, D: Dial> Mx<R, D> {
    /// Makes one with options and streams of your own.
    ///
    /// # Errors
    /// [`ConnectError::Runtime`].
    pub fn with(resolver: R, client: ClientOptions, options: MxOptions, dial: D) -> Result<Self, ConnectError> {
        Ok(Self { mx: crate::Mx::with(resolver, client, options, dial), runtime: Own::with_a_thread("smtp-mx")? })
    }

    /// Sends a message, as [`crate::Mx::send`]. Several threads may call it at once.
    ///
    /// # Errors
    /// [`SendError`]; [`ConnectError::Async`] in a task of an async runtime.
    pub fn send<M, T>(
        &self,
        from: M,
        to: impl IntoIterator<Item = T>,
        content: impl Source,
    ) -> Result<Delivered, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        T: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        self.runtime.wait(self.mx.send(from, to, content))?
    }

    /// Sends messages to the hosts of their recipients' domains, as [`crate::Mx::send_all`]. The
    /// iterator is as that of [`Pool::send_all`](super::Pool::send_all).
    pub fn send_all<'m, C, M>(
        &'m self,
        messages: M,
    ) -> impl Iterator<Item = (usize, Result<Delivered, SendError>)> + use<'m, C, M, R, D>
    where
        C: Source + 'm,
        M: IntoIterator<Item = Message<C>, IntoIter: Send + 'm>,
    {
        let mut all = self.mx.send_all(messages);
        outcomes(move || self.runtime.wait(all.next()))
    }

    /// Closes the connections, as [`crate::Mx::close`]. In a task of an async runtime it does
    /// nothing; dropping it closes them without QUIT.
    pub fn close(&self) {
        let _ = self.runtime.wait(self.mx.close());
    }
}

impl<R, D: Dial> fmt::Debug for Mx<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mx.fmt(f)
    }
}
