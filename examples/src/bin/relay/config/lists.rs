//! Files that the configuration names: lists of an entry a line, and text.

use std::{io::Read as _, path::Path};

use super::{
    findings::{At, Findings, Place},
    keys::remedy,
    table::Read,
};
use crate::files;

/// Octets of a list: some 300,000 names, whose check takes 100 MiB. Beyond it the relay does not
/// start.
const LONGEST: u64 = 8 << 20;
/// Lines with a mistake that are named. What is no list at all has a mistake in each line.
const NAMED: usize = 10;
/// Octets of an entry: those of the longest mailbox (RFC 5321 section 4.5.3.1), beyond ASCII too.
const LONGEST_ENTRY: usize = 1_024;

/// Reads a list for the key of a place. What follows `#`, at the beginning or after a blank, is a
/// comment. `None`: there are mistakes, which are now findings.
pub(super) fn read<T>(
    file: &Path,
    place: Place,
    folder: &Path,
    findings: &mut Findings,
    read: impl Fn(&str) -> Read<T>,
) -> Option<Vec<At<T>>> {
    let path = folder.join(file);
    let remedy = remedy(place.key, "file");
    let text =
        text(&path, LONGEST).map_err(|problem| findings.error(place, format_args!("{problem}; {remedy}"))).ok()?;
    let source = findings.add_source(&path.display().to_string(), &text);
    let (mut values, mut wrong, mut offset) = (Vec::new(), 0_usize, 0);
    for line in text.split_inclusive('\n') {
        let place = Place { key: place.key, offset: Some(offset), source };
        offset += line.len();
        let entry = entry(line);
        if entry.is_empty() {
            continue;
        }
        let value = match entry.len() {
            octets if octets > LONGEST_ENTRY => Err(format!("a line of {octets} octets is no name")),
            _ => read(entry),
        };
        match value {
            Ok(value) => values.push(At { value, place }),
            Err(problem) => {
                wrong += 1;
                if wrong <= NAMED {
                    findings.error(place, format_args!("{problem}; {remedy}"));
                }
            }
        }
    }
    if wrong > NAMED {
        findings.error(place, format_args!("{} more lines of {} are wrong; {remedy}", wrong - NAMED, path.display()));
    }
    (wrong == 0).then_some(values)
}

/// A line without its comment.
fn entry(line: &str) -> &str {
    let is_comment =
        |(at, _): &(usize, &str)| line.get(..*at).is_none_or(|before| !before.ends_with(|c: char| !c.is_whitespace()));
    let end = line.match_indices('#').find(is_comment).map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or_default().trim()
}

/// The text of a file of `most` octets or less.
pub(super) fn text(path: &Path, most: u64) -> Read<String> {
    let name = path.display();
    let cannot = |error| format!("cannot read {name}: {error}");
    let mut octets = Vec::new();
    files::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut octets)).map_err(cannot)?;
    if u64::try_from(octets.len()).map_or(true, |length| length > most) {
        return Err(format!("{name} has more than {most} octets"));
    }
    String::from_utf8(octets).map_err(|_| format!("{name} has text in it that is not UTF-8"))
}
