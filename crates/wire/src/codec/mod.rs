//! The framing as codecs for `tokio-util`, for applications that want a `Stream` and a `Sink` but
//! no session.
//!
//! [`ServerCodec`] yields lines, content and chunks, and takes replies. [`ClientCodec`] yields
//! replies, and takes commands and content. A codec does not know the order of commands or the
//! meaning of a reply: the application tells it when content comes. Yielded lines and content share
//! the memory of the read buffer. Sent items are copied into the write buffer once.
//!
//! ```
//! use futures_util::{SinkExt, StreamExt};
//! use posthaste_wire::{Command, Reply, codec::*};
//! use tokio_util::codec::Framed;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), CodecError> {
//! let (client, server) = tokio::io::duplex(1_024);
//! let mut client = Framed::new(client, ClientCodec::new());
//! let mut server = Framed::new(server, ServerCodec::new());
//!
//! client.send(Command::Data.into()).await?;
//! let Some(Received::Line(line)) = server.next().await.transpose()? else { panic!("no line") };
//! assert_eq!(Command::parse(&line), Ok(Command::Data));
//! server.codec_mut().expect_content(998);
//! server.send(Reply::from_static("354 Go ahead\r\n")).await?;
//!
//! assert_eq!(client.next().await.transpose()?.map(|reply| reply.code().get()), Some(354));
//! client.send(Outgoing::Content(b"Subject: hello\r\n\r\n.hidden\r\n")).await?;
//! client.send(Outgoing::EndOfContent).await?;
//!
//! let mut content = Vec::new();
//! let fault = loop {
//!     match server.next().await.transpose()? {
//!         Some(Received::Content(octets)) => content.extend_from_slice(&octets),
//!         Some(Received::End { fault }) => break fault,
//!         _ => panic!("no content"),
//!     }
//! };
//! assert_eq!((content.as_slice(), fault), (&b"Subject: hello\r\n\r\n.hidden\r\n"[..], None));
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod server;

pub use client::{ClientCodec, Outgoing};
pub use error::CodecError;
pub use server::{Received, ServerCodec};
