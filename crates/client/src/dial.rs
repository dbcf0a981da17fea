//! How the stream to a server is made.

use std::{future::Future, io, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Server;

/// Makes the streams to servers: [`Tcp`](crate::Tcp), a proxy, or an application's own, for a
/// tunnel or for a stream that it wraps.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A stream to a server.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Returns `true` if it takes the names of hosts as they are, such as a proxy that looks them
    /// up itself. Default: `false`, and [`dial`](Self::dial) gets addresses.
    fn resolves_names(&self) -> bool {
        false
    }

    /// Makes a stream to the server. The caller sets the timeout, and drops the future when it is
    /// over.
    ///
    /// # Errors
    /// [`io::Error`]. The server counts as failed, unless the error is one of the dialer's own in
    /// an `io::Error` of this kind: [`Other`](io::ErrorKind::Other), or
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the caller has to change something.
    fn dial(&self, server: &Server) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The error if a future of [`dial`](Self::dial) was dropped because its time was over.
    /// Default: [`TimedOut`](io::ErrorKind::TimedOut), and the server counts as failed. A dialer
    /// that cannot know who was silent returns an error of its own, as above.
    fn too_late(&self, _waited: Duration) -> io::Error {
        io::ErrorKind::TimedOut.into()
    }
}
