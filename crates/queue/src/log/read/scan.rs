//! Finding records in a segment, also after a damaged place.

use std::io;

use crate::log::disk::vfs::{VfsFile, read_exact};
use crate::log::format::frame::{FRAME, Frame};

/// The segment that is searched.
pub(in crate::log) struct Scan<'a> {
    pub(in crate::log) file: &'a dyn VfsFile,
    pub(in crate::log) tag: u64,
    pub(in crate::log) len: u64,
}

/// Returns the record at this position. `None`: frame or payload is not as it was written.
pub(in crate::log) fn read_record(scan: &Scan<'_>, position: u64) -> io::Result<Option<(Frame, Vec<u8>)>> {
    let rest = scan.len.saturating_sub(position);
    if rest < FRAME as u64 {
        return Ok(None);
    }
    let mut frame = [0; FRAME];
    read_exact(scan.file, &mut frame, position)?;
    let Ok(frame) = Frame::decode(scan.tag, &frame) else { return Ok(None) };
    if u64::from(frame.len) > rest.saturating_sub(FRAME as u64) || u64::from(frame.base) > position {
        return Ok(None);
    }
    let Ok(len) = usize::try_from(frame.len) else { return Ok(None) };
    let mut payload = vec![0; len];
    read_exact(scan.file, &mut payload, position.saturating_add(FRAME as u64))?;
    Ok((crc32fast::hash(&payload) == frame.crc).then_some((frame, payload)))
}

/// Returns the position of the first good record after `position` that is `wanted`.
pub(in crate::log) fn next_good(
    scan: &Scan<'_>,
    position: u64,
    wanted: impl Fn(&Frame) -> bool,
) -> io::Result<Option<u64>> {
    let tag = scan.tag.to_le_bytes();
    let mut window = vec![0; WINDOW];
    let mut start = position.saturating_add(1);
    while start.saturating_add(FRAME as u64) <= scan.len {
        let want = usize::try_from(scan.len.saturating_sub(start)).unwrap_or(usize::MAX).min(WINDOW);
        let part = window.get_mut(..want).unwrap_or_default();
        read_exact(scan.file, part, start)?;
        for (at, _) in part.windows(tag.len()).enumerate().filter(|(_, octets)| *octets == tag) {
            let candidate = start.saturating_add(at as u64);
            if let Some((frame, _)) = read_record(scan, candidate)?
                && wanted(&frame)
            {
                return Ok(Some(candidate));
            }
        }
        // A tag may lie across two windows.
        start = start.saturating_add(want.saturating_sub(tag.len() - 1).max(1) as u64);
    }
    Ok(None)
}

/// Returns the position from which on, after `position`, there are only zeros.
pub(in crate::log) fn zeros_from(scan: &Scan<'_>, position: u64) -> io::Result<u64> {
    let mut window = vec![0; WINDOW];
    let (mut end, mut at) = (position, position);
    while at < scan.len {
        let want = usize::try_from(scan.len.saturating_sub(at)).unwrap_or(usize::MAX).min(WINDOW);
        let part = window.get_mut(..want).unwrap_or_default();
        read_exact(scan.file, part, at)?;
        if let Some(last) = part.iter().rposition(|octet| *octet != 0) {
            end = at.saturating_add(last as u64).saturating_add(1);
        }
        at = at.saturating_add(want as u64);
    }
    Ok(end)
}

const WINDOW: usize = 1 << 20;
