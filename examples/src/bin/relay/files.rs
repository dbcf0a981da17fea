//! Files that are opened without waiting, whatever stands in their place.

use std::{
    fs::{self, File, FileType},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
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

/// The longest silence of a pipe.
const SILENCE: Duration = Duration::from_secs(10);

/// Reads a file, or a pipe to its end: `longest` octets and one more, at most. A pipe whose writer
/// is silent, or that has none, is an error.
pub(crate) fn read_to_end(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    if !fs::metadata(path)?.file_type().is_fifo() {
        File::open(path)?.take(longest.saturating_add(1)).read_to_end(&mut octets)?;
        return Ok(octets);
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut pipe = File::options().read(true).custom_flags(flags).open(path)?.take(longest.saturating_add(1));
    let (mut piece, mut heard) = ([0; 8_192], Instant::now());
    loop {
        match pipe.read(&mut piece) {
            // The writer has ended, or has not begun.
            Ok(0) if !octets.is_empty() => return Ok(octets),
            Ok(0) => {}
            Ok(count) => {
                octets.extend_from_slice(piece.get(..count).unwrap_or_default());
                heard = Instant::now();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if heard.elapsed() > SILENCE {
            let text = format!("it is a pipe, and nothing came for {} seconds", SILENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
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
