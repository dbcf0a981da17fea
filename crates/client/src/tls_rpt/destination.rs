//! The TXT record that says where a domain wants its reports (RFC 8460 section 3).

use posthaste_tokio::wire::Mailbox;
use thiserror::Error;

use crate::{ResolveError, Resolver};

/// Where a domain wants its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// By mail to this mailbox, which is in ASCII.
    Mail(Mailbox),
    /// By POST to this URI, which begins with `https://`.
    Https(String),
}

/// Why it is not known where a domain wants reports. It then gets none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// The DNS gave no answer.
    #[error("the TXT record of `_smtp._tls` is not found: {0}")]
    Dns(ResolveError),
    /// Several records begin with `v=TLSRPTv1;`.
    #[error("{0} TXT records of `_smtp._tls` begin with `v=TLSRPTv1;`; leave one")]
    Several(usize),
    /// A field is no `name=value`, or the record has an octet that is not printable ASCII.
    #[error(
        "field {0} of the TXT record of `_smtp._tls` is not `name=value`; \
         write `v=TLSRPTv1; rua=mailto:MAILBOX`"
    )]
    Field(usize),
    /// There is no `rua`.
    #[error("the TXT record of `_smtp._tls` has no rua; add `rua=mailto:MAILBOX` or `rua=https://..`")]
    NoRua,
    /// A URI is broken.
    #[error("field {0} of the TXT record of `_smtp._tls` has a rua that is no URI with mailto or https")]
    Uri(usize),
}

const VERSION: &[u8] = b"v=TLSRPTv1;";
/// The most destinations that count: a report is no means to send mail to many.
const DESTINATIONS: usize = 5;
/// The longest URI that counts.
const MAX_URI: usize = 1_000;
/// The longest mailbox: lines of a message stay within 998 octets.
const MAX_MAILBOX: usize = 320;

/// Where the domain wants reports: at most 5 places, in their order. Empty: it wants none. A report
/// counts as delivered when one of them has taken it (RFC 8460 section 3).
///
/// # Errors
/// [`DestinationError`].
pub async fn destinations(resolver: &impl Resolver, domain: &str) -> Result<Vec<Destination>, DestinationError> {
    match resolver.txt(&format!("_smtp._tls.{domain}")).await {
        Ok(records) => find(&records),
        Err(ResolveError::NoSuchName) => Ok(Vec::new()),
        Err(error) => Err(DestinationError::Dns(error)),
    }
}

fn find<R: AsRef<[u8]>>(records: &[R]) -> Result<Vec<Destination>, DestinationError> {
    let mut ours = records.iter().filter_map(|record| record.as_ref().strip_prefix(VERSION));
    let Some(fields) = ours.next() else { return Ok(Vec::new()) };
    match ours.count() {
        0 => of_fields(fields),
        others => Err(DestinationError::Several(others.saturating_add(1))),
    }
}

fn of_fields(fields: &[u8]) -> Result<Vec<Destination>, DestinationError> {
    let is_text = |octet: &u8| octet.is_ascii_graphic() || matches!(octet, b' ' | b'\t');
    let text = std::str::from_utf8(fields).ok().filter(|text| text.bytes().all(|octet| is_text(&octet)));
    let faulty = || fields.split(|octet| *octet == b';').take_while(|field| field.iter().all(is_text)).count();
    let text = text.ok_or_else(|| DestinationError::Field(faulty().saturating_add(2)))?;
    let (mut found, mut named) = (Vec::new(), false);
    let mut fields = text.split(';').map(|field| field.trim_matches([' ', '\t'])).zip(2..).peekable();
    while let Some((field, number)) = fields.next() {
        if field.is_empty() && number > 2 && fields.peek().is_none() {
            break;
        }
        let (name, value) = field.split_once('=').ok_or(DestinationError::Field(number))?;
        if name.is_empty() || value.is_empty() {
            return Err(DestinationError::Field(number));
        }
        if name != "rua" {
            continue;
        }
        named = true;
        for uri in value.split(',').map(|uri| uri.trim_matches([' ', '\t'])) {
            let destination = destination(uri).map_err(|()| DestinationError::Uri(number))?;
            found.extend(destination.filter(|_| found.len() < DESTINATIONS));
        }
    }
    if named { Ok(found) } else { Err(DestinationError::NoRua) }
}

/// `None`: a scheme that is unknown here. An error: no URI.
fn destination(uri: &str) -> Result<Option<Destination>, ()> {
    let (scheme, rest) = uri.split_once(':').ok_or(())?;
    let is_scheme = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'-' | b'.');
    if uri.len() > MAX_URI
        || uri.contains([' ', '\t', '"', '<', '>'])
        || scheme.is_empty()
        || !scheme.bytes().all(is_scheme)
    {
        return Err(());
    }
    if scheme.eq_ignore_ascii_case("mailto") {
        return mailbox(rest).map(|mailbox| Some(Destination::Mail(mailbox))).ok_or(());
    }
    if scheme.eq_ignore_ascii_case("https") {
        let rest = rest.strip_prefix("//").filter(|rest| !rest.is_empty() && !rest.starts_with('/')).ok_or(())?;
        return Ok(Some(Destination::Https(format!("https://{rest}"))));
    }
    Ok(None)
}

/// The one mailbox of a `mailto` URI (RFC 6068 section 2). Header fields in it do not count.
fn mailbox(uri: &str) -> Option<Mailbox> {
    let text = decoded(uri.split('?').next()?)?;
    let mailbox = Mailbox::parse_strict(&text).ok()?;
    let fits = mailbox.is_ascii() && text.len() <= MAX_MAILBOX;
    fits.then(|| mailbox.into_owned())
}

/// The text with its percent-encoded octets (RFC 3986 section 2.1).
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        octets.push(u8::try_from(high? * 16 + low?).ok()?);
        rest = after;
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(text: &str) -> Destination {
        Destination::Mail(Mailbox::parse(text).unwrap().into_owned())
    }

    fn https(text: &str) -> Destination {
        Destination::Https(text.to_owned())
    }

    #[test]
    fn one_record_says_where_reports_go() {
        let one = || vec![mail("reports@example.com")];
        for (record, expected) in [
            // RFC 8460 section 3.
            ("v=TLSRPTv1;rua=mailto:reports@example.com", one()),
            (
                "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt",
                vec![https("https://reporting.example.com/v1/tlsrpt")],
            ),
            ("v=TLSRPTv1; rua=mailto:reports@example.com;", one()),
            ("v=TLSRPTv1; \t x=y ; rua=MAILTO:reports@example.com ; ", one()),
            (
                "v=TLSRPTv1; rua=mailto:a@b.test , HTTPS://c.test/?d=e&f",
                vec![mail("a@b.test"), https("https://c.test/?d=e&f")],
            ),
            ("v=TLSRPTv1; rua=mailto:a@b.test; rua=mailto:c@d.test", vec![mail("a@b.test"), mail("c@d.test")]),
            ("v=TLSRPTv1; rua=ftp://b.test/,mailto:a@b.test", vec![mail("a@b.test")]),
            ("v=TLSRPTv1; rua=mailto:a%2Bx%2cy@b.test", Vec::new()),
            ("v=TLSRPTv1; rua=mailto:a%2Bx%21@b.test?subject=x", vec![mail("a+x!@b.test")]),
            ("v=TLSRPTv1; rua=http://b.test/", Vec::new()),
        ] {
            let found = find(&["v=spf1 -all", record, "v=TLSRPTv2; rua=mailto:x@y.test", "v=TLSRPTv1"]);
            match expected.is_empty() && record.contains("mailto") {
                true => assert_eq!(found, Err(DestinationError::Uri(2)), "{record}"),
                false => assert_eq!(found, Ok(expected), "{record}"),
            }
            assert_eq!(find(&[record, record]), Err(DestinationError::Several(2)));
        }
        assert_eq!(find::<&str>(&[]), Ok(Vec::new()));
        assert_eq!(find(&["V=TLSRPTv1; rua=mailto:a@b.test"]), Ok(Vec::new()));
    }

    #[test]
    fn a_record_with_a_fault_gets_no_report() {
        use DestinationError::{Field, NoRua, Uri};
        for (record, error) in [
            ("v=TLSRPTv1;", Field(2)),
            ("v=TLSRPTv1; x=y", NoRua),
            ("v=TLSRPTv1; rua", Field(2)),
            ("v=TLSRPTv1; rua=", Field(2)),
            ("v=TLSRPTv1;; rua=mailto:a@b.test", Field(2)),
            ("v=TLSRPTv1; rua=a@b.test", Uri(2)),
            ("v=TLSRPTv1; x=y; rua=mailto:", Uri(3)),
            ("v=TLSRPTv1; rua=mailto:a@b.test,", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:a b@c.test", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:a@b.test%0d%0aBcc:c@d.test", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:a%0d%0a@b.test", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:%FF@b.test", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:%C3%BC@b.test", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:a%2", Uri(2)),
            ("v=TLSRPTv1; rua=https:b.test", Uri(2)),
            ("v=TLSRPTv1; rua=https:///x", Uri(2)),
            ("v=TLSRPTv1; rua=:x", Uri(2)),
            ("v=TLSRPTv1; rua=mailto:\u{fc}@b.test", Field(2)),
            ("v=TLSRPTv1; x=y; z=\r\n", Field(3)),
        ] {
            assert_eq!(find(&[record]), Err(error), "{record}");
        }
    }

    #[test]
    fn a_record_with_any_octet_changed_names_mailboxes_in_one_line_or_is_an_error() {
        let record = b"v=TLSRPTv1; rua=mailto:a%2Bb@c.test, https://d.test/e; x=y";
        for at in 0..record.len() {
            for octet in 0..=u8::MAX {
                let mut record = record.to_vec();
                record[at] = octet;
                for found in find(&[record]).unwrap_or_default() {
                    let text = match &found {
                        Destination::Mail(mailbox) => mailbox.as_str(),
                        Destination::Https(uri) => uri,
                    };
                    assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{found:?}");
                }
            }
        }
    }

    #[test]
    fn a_hostile_record_names_few_destinations() {
        let many = format!("v=TLSRPTv1; rua={}", vec!["mailto:a@b.test"; 1_000].join(","));
        assert_eq!(find(&[many]).unwrap().len(), DESTINATIONS);
        let long = format!("v=TLSRPTv1; rua=https://{}", "a".repeat(60_000));
        assert_eq!(find(&[long]), Err(DestinationError::Uri(2)));
        let long = format!("v=TLSRPTv1; rua=mailto:{}@b.test", "a".repeat(400));
        assert_eq!(find(&[long]), Err(DestinationError::Uri(2)));
    }
}
