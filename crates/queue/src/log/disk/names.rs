//! Where the parts of a queue's folder are, as FORMAT.md has them.

use std::path::{Path, PathBuf};

use crate::MessageId;

pub(in crate::log) fn log(dir: &Path) -> PathBuf {
    dir.join(LOG)
}

pub(in crate::log) fn bodies(dir: &Path) -> PathBuf {
    dir.join(BODIES)
}

pub(in crate::log) fn quarantine(dir: &Path) -> PathBuf {
    dir.join(QUARANTINE)
}

/// The checkpoint.
pub(in crate::log) fn index(dir: &Path) -> PathBuf {
    dir.join(INDEX)
}

/// A checkpoint that is being made and does not count yet.
pub(in crate::log) fn unfinished_index(dir: &Path) -> PathBuf {
    dir.join(UNFINISHED_INDEX)
}

/// The name of a segment in `log/`.
pub(in crate::log) fn segment(sequence: u64) -> String {
    format!("{sequence:016x}.seg")
}

/// The sequence number in a segment's name.
pub(in crate::log) fn sequence(name: &str) -> Option<u64> {
    hex(name.strip_suffix(".seg")?)
}

/// The name of a message's body in `bodies/`.
pub(in crate::log) fn body(id: MessageId) -> String {
    format!("{:016x}", id.as_u64())
}

/// The message whose body has this name.
pub(in crate::log) fn body_id(name: &str) -> Option<MessageId> {
    hex(name).map(MessageId::from_u64)
}

/// Where a part of a segment is copied. `kind` is `bad` or `torn`.
pub(in crate::log) fn copied_part(dir: &Path, sequence: u64, from: u64, kind: &str) -> PathBuf {
    quarantine(dir).join(format!("{sequence:016x}-{from}.{kind}"))
}

/// Exactly 16 lower-case hexadecimal digits.
fn hex(text: &str) -> Option<u64> {
    let is_ours = text.len() == 16 && text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
    if !is_ours {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

pub(in crate::log) const MARKER: &str = "posthaste-queue";
pub(in crate::log) const LOCK: &str = "LOCK";
pub(in crate::log) const LOG: &str = "log";
pub(in crate::log) const BODIES: &str = "bodies";
pub(in crate::log) const QUARANTINE: &str = "quarantine";
pub(in crate::log) const INDEX: &str = "index";
pub(in crate::log) const UNFINISHED_INDEX: &str = "index.new";
