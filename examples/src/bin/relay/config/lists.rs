//! Files that the configuration names, as text.

use std::{fs::File, io::Read as _, path::Path};

use super::table::Read;

/// The text of a file of `most` octets or less.
pub(super) fn text(path: &Path, most: u64) -> Read<String> {
    let name = path.display();
    let cannot = |error| format!("cannot read {name}: {error}");
    // A pipe would keep the relay waiting.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{name} is no file"));
    }
    let mut octets = Vec::new();
    File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut octets)).map_err(cannot)?;
    if u64::try_from(octets.len()).map_or(true, |length| length > most) {
        return Err(format!("{name} has more than {most} octets"));
    }
    String::from_utf8(octets).map_err(|_| format!("{name} has text in it that is not UTF-8"))
}
