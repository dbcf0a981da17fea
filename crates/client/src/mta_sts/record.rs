//! The TXT record that says that a domain has a policy (RFC 8461 section 3.1).

use std::fmt;

use thiserror::Error;

/// The id of a policy: 1 to 32 letters and digits. A new id means a new policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyId(Box<str>);

/// Why a domain's TXT records name no policy. The domain then counts as one without MTA-STS, unless
/// a policy of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Several records begin with `v=STSv1;`.
    #[error("{0} TXT records of `_mta-sts` begin with `v=STSv1;`; leave one")]
    Several(usize),
    /// A field is no `name=value`, or the record has an octet that is not printable ASCII.
    #[error("field {0} of the TXT record of `_mta-sts` is not `name=value`; write `v=STSv1; id=1`")]
    Field(usize),
    /// The id has another form.
    #[error("the id in the TXT record of `_mta-sts` is not 1 to 32 letters and digits; write one like `id=20260131`")]
    Id,
    /// There is no id.
    #[error("the TXT record of `_mta-sts` has no id; add `id=` and up to 32 letters and digits")]
    NoId,
}

/// What the one record begins with. The grammar has white space before the semicolon, the text and
/// erratum 6285 have none.
const VERSION: &[u8] = b"v=STSv1;";
/// The most characters of an id, and of the name of a field.
const MAX_NAME: usize = 32;

impl PolicyId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`RecordError::Id`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let is_id = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
        if is_id { Ok(Self(text.into())) } else { Err(RecordError::Id) }
    }

    /// Finds the id in the TXT records of `_mta-sts.DOMAIN`. `None`: no record is about MTA-STS.
    ///
    /// Of fields that come again the first counts, and unknown fields do not count.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn find<R: AsRef<[u8]>>(records: &[R]) -> Result<Option<Self>, RecordError> {
        let mut ours = records.iter().filter_map(|record| record.as_ref().strip_prefix(VERSION));
        let Some(fields) = ours.next() else { return Ok(None) };
        match ours.count() {
            0 => Self::of_fields(fields).map(Some),
            others => Err(RecordError::Several(others.saturating_add(1))),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of_fields(fields: &[u8]) -> Result<Self, RecordError> {
        let mut id = None;
        let mut fields = fields.split(|octet| *octet == b';').map(trim).zip(2..).peekable();
        while let Some((field, number)) = fields.next() {
            // The last delimiter may have no field after it, if one came before.
            if field.is_empty() && number > 2 && fields.peek().is_none() {
                break;
            }
            let (name, value) = name_and_value(field).ok_or(RecordError::Field(number))?;
            if name == "id" && id.is_none() {
                id = Some(Self::parse(value)?);
            }
        }
        id.ok_or(RecordError::NoId)
    }
}

/// A field of a record as of RFC 8461 and RFC 8460: a name of up to 32 characters and a value
/// without space.
fn name_and_value(field: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = std::str::from_utf8(field).ok()?.split_once('=')?;
    let is_value = !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'=');
    (is_field_name(name) && is_value).then_some((name, value))
}

/// Returns `true` for the name of a field, in a record or in a policy.
pub(super) fn is_field_name(name: &str) -> bool {
    let rest = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | b'.');
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(rest)
}

/// Cuts spaces and tabs at both ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: &str = "abcdefghijklmnopqrstuvwxyzABCDEF";

    #[test]
    fn one_record_names_the_policy() {
        for (record, id) in [
            // RFC 8461 section 3.1 and appendix A.
            ("v=STSv1; id=20160831085700Z;", "20160831085700Z"),
            ("v=STSv1; id=20160831085700Z", "20160831085700Z"),
            ("v=STSv1;id=1", "1"),
            ("v=STSv1; \t id=1 \t ; ", "1"),
            ("v=STSv1; id=1; id=2; id=!", "1"),
            ("v=STSv1; x=y:z; id=1; long_name-1.x=<>,/", "1"),
            (&format!("v=STSv1; id={LONGEST}"), LONGEST),
        ] {
            let others =
                ["v=spf1 -all", "", "v=STSv1", "v=STSv2; id=1", "V=STSv1; id=1", " v=STSv1; id=1", "v=STSv1 ; id=1"];
            for at in 0..others.len() {
                let mut records = others.to_vec();
                records.insert(at, record);
                assert_eq!(PolicyId::find(&records).unwrap().unwrap().as_str(), id, "{record}");
            }
            assert_eq!(PolicyId::find(&others), Ok(None));
            assert_eq!(PolicyId::find(&[record, record]), Err(RecordError::Several(2)), "{record}");
        }
        assert_eq!(PolicyId::find::<&str>(&[]), Ok(None));
    }

    #[test]
    fn a_record_with_a_fault_names_no_policy() {
        use RecordError::{Field, Id, NoId};
        let long = "a".repeat(33);
        for (record, fault) in [
            ("v=STSv1;", Field(2)),
            ("v=STSv1; ", Field(2)),
            ("v=STSv1;;id=1", Field(2)),
            ("v=STSv1;id=1;;", Field(3)),
            ("v=STSv1; x=y", NoId),
            ("v=STSv1; ID=1", NoId),
            ("v=STSv1; id", Field(2)),
            ("v=STSv1; id=", Field(2)),
            ("v=STSv1; id =1", Field(2)),
            ("v=STSv1; id= 1", Field(2)),
            ("v=STSv1; id=1=2", Field(2)),
            ("v=STSv1; id=a-b", Id),
            ("v=STSv1; id=1, id=2", Field(2)),
            ("v=STSv1; id=b\u{fc}cher", Field(2)),
            ("v=STSv1; id=1; x=\0", Field(3)),
            ("v=STSv1; id=1; _x=1", Field(3)),
            (&format!("v=STSv1; id={long}"), Id),
            (&format!("v=STSv1; id=1; {long}=1"), Field(3)),
        ] {
            assert_eq!(PolicyId::find(&[record]), Err(fault), "{record:?}");
        }
        assert_eq!(PolicyId::find(&[b"v=STSv1; id=\xff"]), Err(Field(2)));
    }

    #[test]
    fn a_huge_answer_of_the_dns_is_read_once() {
        let many = vec![b"v=STSv1; id=1".to_vec(); 4_000];
        assert_eq!(PolicyId::find(&many), Err(RecordError::Several(4_000)));
        let long = format!("v=STSv1; id=1{}", "; a=b".repeat(13_000));
        assert_eq!(PolicyId::find(&[long]).unwrap().unwrap().as_str(), "1");
    }
}
