//! The quarantine: what is damaged goes there and is never deleted.

use std::io;
use std::path::Path;

use crate::log::checkpoint;
use crate::log::disk::folder::INDEX_NAME;
use crate::log::disk::vfs::{Vfs, VfsFile};
use crate::log::options::{Damage, OpenError, OpenReport};

/// Moves a checkpoint to the quarantine, so that it is made anew.
pub(in crate::log) fn set_aside(
    vfs: &dyn Vfs,
    dir: &Path,
    why: &str,
    report: &mut OpenReport,
) -> Result<(), OpenError> {
    let path = checkpoint::path(dir);
    let quarantine = dir.join("quarantine");
    let taken = vfs.list(&quarantine).map_err(OpenError::io(&quarantine))?;
    // One more name than are taken: one is free, whatever an operator took away.
    let name = (0..=taken.len()).map(|number| format!("{INDEX_NAME}-{number}.bad")).find(|name| !taken.contains(name));
    let target = quarantine.join(name.unwrap_or_default());
    report.tell(Damage::new(path.clone(), &format!("{why}; it was set aside and made anew from the log")));
    vfs.rename(&path, &target).and_then(|()| vfs.sync_dir(dir)).map_err(OpenError::io(&path))
}

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
