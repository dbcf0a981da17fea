//! Tells if a folder is a queue and who may access it, and makes a folder a queue.

use std::any::Any;
use std::io;
use std::path::Path;

use crate::log::disk::names;
use crate::log::disk::vfs::Vfs;
use crate::log::options::OpenError;

/// Returns `true` if the folder is a queue, `false` if it is empty. Any other folder is an error.
pub(in crate::log) fn judge(vfs: &dyn Vfs, dir: &Path) -> Result<bool, OpenError> {
    let marker = dir.join(names::MARKER);
    let io = |path: &Path| OpenError::io(path);
    let found = vfs.list(dir).map_err(io(dir))?;
    if found.iter().any(|name| name == names::MARKER) {
        let file = vfs.open(&marker).map_err(io(&marker))?;
        // One byte more than the marker shows a longer text.
        let mut text = [0; MARKER.len() + 1];
        let len = file.read_at(&mut text, 0).map_err(io(&marker))?;
        let text = text.get(..len).unwrap_or_default();
        if text == MARKER {
            return Ok(true);
        }
        // The write of the marker was cut short, when no other file could be there yet. Bytes may
        // be missing or zero.
        let torn = text.iter().zip(MARKER).all(|(octet, ours)| *octet == *ours || *octet == 0);
        if !torn || text.len() > MARKER.len() {
            let found = String::from_utf8_lossy(text).trim_end().to_owned();
            let version = found.strip_prefix("posthaste-queue ").filter(|version| !version.is_empty());
            let is_version = version.is_some_and(|version| version.bytes().all(|octet| octet.is_ascii_digit()));
            return Err(if is_version {
                OpenError::Version { path: marker, found }
            } else {
                OpenError::Marker { path: marker }
            });
        }
    }
    if has_mail(vfs, dir, &found)? {
        return Err(OpenError::Marker { path: marker });
    }
    if let Some(name) = found.iter().find(|name| !OUR_NAMES.contains(&name.as_str())) {
        return Err(OpenError::Foreign { path: dir.join(name) });
    }
    for name in FOLDERS.iter().filter(|name| found.iter().any(|there| there == *name)) {
        let folder = dir.join(name);
        if let Some(inside) = vfs.list(&folder).map_err(io(&folder))?.first() {
            return Err(OpenError::Foreign { path: folder.join(inside) });
        }
    }
    Ok(false)
}

/// Returns `true` if the folder has a segment or a body: the marker was written before them.
fn has_mail(vfs: &dyn Vfs, dir: &Path, found: &[String]) -> Result<bool, OpenError> {
    for (name, is_ours) in [
        (names::LOG, (|name| names::sequence(name).is_some()) as fn(&str) -> bool),
        (names::BODIES, |name| names::body_id(name).is_some()),
    ] {
        if !found.iter().any(|there| there == name) {
            continue;
        }
        let folder = dir.join(name);
        if vfs.list(&folder).map_err(OpenError::io(&folder))?.iter().any(|name| is_ours(name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Held as long as no other process may open the queue.
pub(in crate::log) type Locks = Vec<Box<dyn Any + Send + Sync>>;

/// Locks two things. First the file `LOCK`. Second the folder `log`, which an operator does not
/// remove by mistake as a leftover, and which other users cannot open.
pub(in crate::log) fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Locks, OpenError> {
    let mut locks = vec![lock_path(vfs, &dir.join(names::LOCK))?];
    locks.extend(lock_log(vfs, dir)?);
    Ok(locks)
}

/// `None`: there is no log yet.
pub(in crate::log) fn lock_log(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Box<dyn Any + Send + Sync>>, OpenError> {
    let log = names::log(dir);
    let is_there = vfs.exists(&log).map_err(OpenError::io(&log))?;
    is_there.then(|| lock_path(vfs, &log)).transpose()
}

fn lock_path(vfs: &dyn Vfs, path: &Path) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    let locked = vfs.lock(path).map_err(OpenError::io(path))?;
    locked.ok_or_else(|| OpenError::Locked { path: path.to_owned() })
}

/// Locks the folder, and makes it a queue unless it is one.
pub(in crate::log) fn claim(vfs: &dyn Vfs, dir: &Path) -> Result<Locks, OpenError> {
    let mut locks = lock(vfs, dir)?;
    prepare(vfs, dir)?;
    if locks.len() < 2 {
        locks.extend(lock_log(vfs, dir)?);
    }
    Ok(locks)
}

/// Narrows the permissions of the queue's files to their owner. Returns a warning for each unsafe
/// permission of the folder itself.
///
/// # Errors
/// [`OpenError::Writable`]: any user may create files there and remove them.
pub(in crate::log) fn guard(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<String>, OpenError> {
    let found = vfs.look(dir).map_err(OpenError::io(dir))?;
    if found.mode & WRITE_OTHERS != 0 {
        return Err(OpenError::Writable { path: dir.to_owned() });
    }
    let mut warnings = Vec::new();
    let (name, mode) = (dir.display(), found.mode & 0o777);
    if mode & GROUP_AND_OTHERS != 0 {
        warnings.push(format!("others on this host may look into {name} (mode {mode:04o}): say chmod 700 {name}"));
    }
    let own = rustix::process::geteuid().as_raw();
    if found.owner != own {
        let owner = found.owner;
        warnings.push(format!(
            "{name} belongs to user {owner}, who may read and change the mail: run this program as the folder's owner"
        ));
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let above = vfs.look(parent).map_err(OpenError::io(parent))?;
    if above.mode & (WRITE_OTHERS | STICKY) == WRITE_OTHERS {
        let parent = parent.display();
        warnings.push(format!(
            "every user may move {name} away, because every user may write to {parent}: say chmod o-w {parent}"
        ));
    }
    for path in OUR_NAMES.map(|name| dir.join(name)) {
        let mode = match vfs.look(&path) {
            Ok(found) => found.mode & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(OpenError::io(&path)(error)),
        };
        if mode & GROUP_AND_OTHERS != 0
            && let Err(error) = vfs.narrow(&path)
        {
            let path = path.display();
            warnings
                .push(format!("others on this host may open {path} (mode {mode:04o}): {error}; say chmod go= {path}"));
        }
    }
    Ok(warnings)
}

/// Makes the folder a queue unless it is one, and removes an unfinished index.
pub(in crate::log) fn prepare(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    if !judge(vfs, dir)? {
        let marker = dir.join(names::MARKER);
        let there = vfs.exists(&marker).map_err(OpenError::io(&marker))?;
        let file = if there { vfs.open(&marker) } else { vfs.create(&marker) };
        let file = file.map_err(OpenError::io(&marker))?;
        let written = file.write_at(MARKER, 0).and_then(|()| file.sync());
        written.map_err(OpenError::io(&marker))?;
    }
    let unfinished = names::unfinished_index(dir);
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

/// Creates a folder, and makes the names of all missing folders above it durable.
pub(in crate::log) fn make(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
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

const FOLDERS: [&str; 3] = [names::LOG, names::BODIES, names::QUARANTINE];
const OUR_NAMES: [&str; 7] =
    [names::MARKER, names::LOCK, names::INDEX, names::UNFINISHED_INDEX, names::LOG, names::BODIES, names::QUARANTINE];
/// The text of the file `posthaste-queue`.
const MARKER: &[u8] = b"posthaste-queue 1\n";
const GROUP_AND_OTHERS: u32 = 0o077;
const WRITE_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;
