//! TLS-RPT (RFC 8460): domains hear each day how TLS went with their hosts.
//!
//! A [`Recorder`] counts sessions. After the end of a day in UTC [`Recorder::take`] gives a
//! [`Tally`] for each domain. [`destinations`] says where the domain wants to hear of it, and a
//! [`Report`] is the message or the body of a POST:
//!
//! ```
//! use std::time::SystemTime;
//!
//! use posthaste_client::{
//!     Resolver,
//!     tls_rpt::{AppliedPolicy, Destination, Failure, Period, Recorder, Report, ResultType, Submitter, destinations},
//! };
//!
//! /// The messages about the day that this time is in, to be signed with DKIM and sent.
//! async fn messages(
//!     recorder: &Recorder,
//!     day: SystemTime,
//!     submitter: &Submitter,
//!     resolver: &impl Resolver,
//! ) -> Vec<Vec<u8>> {
//!     let mut messages = Vec::new();
//!     for tally in recorder.take() {
//!         let wanted = destinations(resolver, tally.domain()).await.unwrap_or_default();
//!         let report = Report::new(tally, submitter, Period::day_of(day));
//!         for destination in wanted {
//!             if let Destination::Mail(mailbox) = destination {
//!                 messages.push(report.message(&mailbox, SystemTime::now()));
//!             }
//!         }
//!     }
//!     messages
//! }
//!
//! let recorder = Recorder::default();
//! recorder.succeeded("example.net", &AppliedPolicy::none());
//! let mut failure = Failure::new(ResultType::StarttlsNotSupported);
//! failure.mx_host = "mx.example.net".to_owned();
//! recorder.failed("example.net", &AppliedPolicy::none(), failure);
//! let tally = recorder.take().remove(0);
//! assert_eq!((tally.successful_sessions(), tally.failed_sessions()), (1, 1));
//! ```
//!
//! Sending is the caller's. The message needs a DKIM signature by the submitter's domain, and goes
//! even if TLS fails. Its session is in no report (RFC 8460 section 5.3). A report by HTTPS is a
//! POST of [`Report::to_gzip`] with the media type [`GZIP`].

mod destination;
mod message;
mod recorder;
mod report;
mod result;

pub use destination::{Destination, DestinationError, destinations};
pub use recorder::{AppliedPolicy, Failure, Recorder, Tally};
pub use report::{GZIP, JSON, Period, Report, Submitter};
pub use result::{PolicyType, ResultType};
