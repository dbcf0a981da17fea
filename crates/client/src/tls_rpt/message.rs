//! The message with a report (RFC 8460 section 5.3).

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use posthaste_tokio::wire::Mailbox;

use super::{GZIP, Report};

/// The octets of a line of base64 (RFC 2045 section 6.8).
const LINE: usize = 76;

impl Report {
    /// The message that takes the report to this mailbox. Its lines end in CRLF and are in ASCII,
    /// if both mailboxes are. It has no DKIM signature: it needs one by the submitter's domain.
    pub fn message(&self, to: &Mailbox, date: SystemTime) -> Vec<u8> {
        let (domain, id, contact) = (self.domain(), self.id(), &self.contact);
        let (submitter, date) = (&self.submitter, rfc5322(date));
        // Base64 has neither `=_` nor a line that begins with `-`.
        let boundary = format!("=_{:016x}", fastrand::u64(..));
        let mut message = format!(
            "From: <{contact}>\r\n\
             To: <{to}>\r\n\
             Date: {date}\r\n\
             Subject: Report Domain: {domain}\r\n \
             Submitter: {submitter}\r\n \
             Report-ID: <{id}>\r\n\
             Message-ID: <{id}>\r\n\
             TLS-Report-Domain: {domain}\r\n\
             TLS-Report-Submitter: {submitter}\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n \
             boundary=\"{boundary}\"\r\n\
             \r\n\
             This is a multipart message in MIME format.\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=\"us-ascii\"\r\n\
             Content-Transfer-Encoding: 7bit\r\n\
             \r\n\
             This is an aggregate TLS report\r\n\
             from {submitter}\r\n\
             about {domain}\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: {GZIP}\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n \
             filename=\"{}\"\r\n\
             \r\n",
            self.file_name(),
        )
        .into_bytes();
        for line in STANDARD.encode(self.to_gzip()).as_bytes().chunks(LINE) {
            message.extend_from_slice(line);
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }
}

/// RFC 5322 section 3.3.
fn rfc5322(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    // Only years beyond 9999 cannot be written.
    rfc2822::to_string(&time).unwrap_or_default()
}
