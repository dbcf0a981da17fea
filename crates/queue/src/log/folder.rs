//! Whose a folder is, and making it a queue.

use std::path::Path;

use super::OpenError;
use super::format::MARKER;
use super::vfs::Vfs;

/// Whether the folder is a queue already. One that is neither that nor empty is refused.
pub(super) fn judge(vfs: &dyn Vfs, dir: &Path) -> Result<bool, OpenError> {
    let marker = dir.join(MARKER_NAME);
    let io = |path: &Path| OpenError::io(path);
    let names = vfs.list(dir).map_err(io(dir))?;
    if names.iter().any(|name| name == MARKER_NAME) {
        let file = vfs.open(&marker).map_err(io(&marker))?;
        // One octet more than it should have shows a longer one.
        let mut text = [0; MARKER.len() + 1];
        let len = file.read_at(&mut text, 0).map_err(io(&marker))?;
        let text = text.get(..len).unwrap_or_default();
        if text == MARKER {
            return Ok(true);
        }
        // Its writing was cut short when nothing else could be there yet: some of it may be missing, some zero.
        let torn = text.iter().zip(MARKER).all(|(octet, ours)| *octet == *ours || *octet == 0);
        if !torn || text.len() > MARKER.len() {
            let found = String::from_utf8_lossy(text).trim_end().to_owned();
            return Err(OpenError::Version { path: marker, found });
        }
    }
    if let Some(name) = names.iter().find(|name| !OUR_NAMES.contains(&name.as_str())) {
        return Err(OpenError::Foreign { path: dir.join(name) });
    }
    for name in FOLDERS.iter().filter(|name| names.iter().any(|found| found == *name)) {
        let folder = dir.join(name);
        if let Some(inside) = vfs.list(&folder).map_err(io(&folder))?.first() {
            return Err(OpenError::Foreign { path: folder.join(inside) });
        }
    }
    Ok(false)
}

/// Makes the folder a queue unless it is one, and removes an index that was never finished.
pub(super) fn prepare(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    if !judge(vfs, dir)? {
        let marker = dir.join(MARKER_NAME);
        let there = vfs.exists(&marker).map_err(OpenError::io(&marker))?;
        let file = if there { vfs.open(&marker) } else { vfs.create(&marker) };
        let file = file.map_err(OpenError::io(&marker))?;
        let written = file.write_at(MARKER, 0).and_then(|()| file.sync());
        written.map_err(OpenError::io(&marker))?;
    }
    let unfinished = dir.join(UNFINISHED_INDEX_NAME);
    if vfs.exists(&unfinished).map_err(OpenError::io(&unfinished))? {
        vfs.remove(&unfinished).map_err(OpenError::io(&unfinished))?;
    }
    make_dirs(vfs, dir)
}

fn make_dirs(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    for name in FOLDERS {
        let folder = dir.join(name);
        if !vfs.exists(&folder).map_err(OpenError::io(&folder))? {
            vfs.make_dir(&folder).map_err(OpenError::io(&folder))?;
        }
    }
    vfs.sync_dir(dir).map_err(OpenError::io(dir))
}

/// Makes a folder, and the names of all folders that were missing above it durable.
pub(super) fn make(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    let mut missing = Vec::new();
    for folder in dir.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        if vfs.exists(folder).map_err(OpenError::io(folder))? {
            break;
        }
        missing.push(folder);
    }
    vfs.make_dir(dir).map_err(OpenError::io(dir))?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        vfs.sync_dir(parent).map_err(OpenError::io(parent))?;
    }
    Ok(())
}

const MARKER_NAME: &str = "posthaste-queue";
const FOLDERS: [&str; 3] = ["log", "bodies", "quarantine"];
const OUR_NAMES: [&str; 7] = [MARKER_NAME, "LOCK", INDEX_NAME, UNFINISHED_INDEX_NAME, "log", "bodies", "quarantine"];
/// The checkpoint.
pub(super) const INDEX_NAME: &str = "index";
/// One that does not stand yet.
pub(super) const UNFINISHED_INDEX_NAME: &str = "index.new";
