//! Header sections that are too large.

use std::{
    pin::Pin,
    task::{Context as Task, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;

use crate::{Body, BodyError, Context, Envelope, Layer, Refusal, refusal};

/// Refuses messages whose header section has too many octets (552 5.3.4) or fields (554 5.6.0).
/// Programs that read the header whole are then safe. Content without an empty line is all header.
///
/// Octets are counted on their way: the layer holds none back. The wrapped handler gets the refusal
/// as a [`BodyError::Refused`] and passes it on with `?`. An acceptance after it becomes a 451.
///
/// ```
/// use posthaste_server::layers::Headers;
/// let mut layer = Headers::default();
/// layer.octets = 32 << 10;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Headers {
    /// Octets of the header section, with its line ends. Default 256 KiB, many times what long
    /// signatures and paths need. Beyond it: 552.
    pub octets: usize,
    /// Fields of the header section. Default 1,000, ten times the 100 hops that RFC 5321 section
    /// 6.3 has in mind. Beyond it: 554.
    pub fields: usize,
}

impl Default for Headers {
    fn default() -> Self {
        Self { octets: 256 << 10, fields: 1_000 }
    }
}

impl Layer for Headers {
    async fn message<'b>(&mut self, _: &Context, _: &mut Envelope, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        let limits = self.clone();
        Ok(body.with_pieces(|body| Watched { body, limits, octets: 0, fields: 0, line: Line::Start, end: End::Open }))
    }
}

/// A body whose header section is counted.
struct Watched<'b> {
    body: Body<'b>,
    limits: Headers,
    octets: usize,
    fields: usize,
    line: Line,
    end: End,
}

/// Where in a line of the header section the last piece ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    /// After a CR that began the line.
    EmptySoFar,
    Within,
}

/// What has ended.
#[derive(PartialEq, Eq)]
enum End {
    Open,
    Header,
    Refused,
}

impl Watched<'_> {
    fn watch(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        for octet in piece {
            self.octets += 1;
            if self.octets > self.limits.octets {
                return Err(refusal!("552 5.3.4 The header section has more than {} octets", self.limits.octets));
            }
            self.line = match (self.line, octet) {
                (Line::Start, b'\r') => Line::EmptySoFar,
                // The session lets no LF without CR through, but in a BINARYMIME body.
                (Line::EmptySoFar, b'\n') => {
                    self.end = End::Header;
                    return Ok(());
                }
                (_, b'\n') => Line::Start,
                (Line::Start, b' ' | b'\t') | (Line::Within | Line::EmptySoFar, _) => Line::Within,
                (Line::Start, _) => {
                    self.fields += 1;
                    if self.fields > self.limits.fields {
                        return Err(refusal!(
                            "554 5.6.0 The header section has more than {} fields",
                            self.limits.fields
                        ));
                    }
                    Line::Within
                }
            };
        }
        Ok(())
    }
}

impl Stream for Watched<'_> {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        if self.end == End::Refused {
            return Poll::Ready(Some(Err(BodyError::Disconnected)));
        }
        let polled = ready!(Pin::new(&mut self.body).poll_next(task));
        if let (Some(Ok(piece)), End::Open) = (&polled, &self.end)
            && let Err(refusal) = self.watch(piece)
        {
            self.end = End::Refused;
            return Poll::Ready(Some(Err(BodyError::Refused(refusal))));
        }
        Poll::Ready(polled)
    }
}
