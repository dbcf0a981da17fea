//! The quarantine: what is damaged goes there and is never deleted.

use std::io;
use std::path::Path;

use crate::log::disk::vfs::{Vfs, VfsFile};

pub(in crate::log) fn copy(vfs: &dyn Vfs, from: &dyn VfsFile, start: u64, end: u64, path: &Path) -> io::Result<()> {
    let to = vfs.create(path)?;
    let mut buffer = vec![0; COPY_CHUNK];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(COPY_CHUNK);
        let read = from.read_at(buffer.get_mut(..want).unwrap_or_default(), at)?;
        if read == 0 {
            break;
        }
        to.write_at(buffer.get(..read).unwrap_or_default(), at.saturating_sub(start))?;
        at = at.saturating_add(read as u64);
    }
    to.sync()?;
    path.parent().map_or(Ok(()), |dir| vfs.sync_dir(dir))
}

const COPY_CHUNK: usize = 64 << 10;
