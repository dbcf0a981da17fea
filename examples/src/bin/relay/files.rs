//! Files that are opened without waiting, whatever stands in their place.

use std::{
    fs::{self, File, FileType},
    io,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a file to read it. A pipe without a writer would keep the relay waiting for ever: it is
/// refused, and so is everything else that is no file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // To open a device may do something.
    check(fs::metadata(path)?.file_type())?;
    // A pipe may have taken its place by now.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Says what it is, if it is no file.
fn check(found: FileType) -> io::Result<()> {
    let what = match found {
        found if found.is_file() => return Ok(()),
        found if found.is_dir() => "a folder",
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what} and no file")))
}
