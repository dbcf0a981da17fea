//! Refuses new mail while the disk is too full.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::Full;
use crate::log::disk::vfs::Room;

/// Once less than the reserve is free, puts are refused until a quarter more than the reserve is
/// free. Otherwise a nearly full disk would take one message and refuse the next, and all senders
/// would retry.
#[derive(Debug, Default)]
pub(in crate::log) struct Watermark {
    is_closed: AtomicBool,
}

impl Watermark {
    /// Checks that a message of `more` bytes may begin.
    pub(in crate::log) fn admit(&self, room: Room, reserve: u64, more: u64) -> Result<(), Full> {
        let is_closed = self.is_closed.load(Relaxed);
        let admitted = is_free(room, reserve, 0, is_closed);
        if admitted.is_err() != is_closed {
            self.is_closed.store(admitted.is_err(), Relaxed);
        }
        admitted?;
        is_free(room, reserve, more, false)
    }
}

/// Checks that a message may go on by `more` bytes.
pub(in crate::log) fn is_free(room: Room, reserve: u64, more: u64, with_slack: bool) -> Result<(), Full> {
    let wanted = |reserve: u64| if with_slack { reserve.saturating_add(reserve / SLACK_PART) } else { reserve };
    let octets = wanted(kept_octets(room, reserve)).saturating_add(more);
    let files = wanted(kept_files(room));
    if room.free < octets {
        return Err(Full::Disk { free: room.free, wanted: octets });
    }
    // Some file systems have no limit on files.
    if reserve > 0 && room.files_total > 0 && room.files_free < files {
        return Err(Full::Files { free: room.files_free, wanted: files });
    }
    Ok(())
}

/// How near the bytes and the files that are free are to those that are kept back, in percent.
/// Above 100 puts are refused.
pub(in crate::log) fn pressures(room: Room, reserve: u64) -> (u64, u64) {
    let percent = |kept: u64, free: u64| match kept {
        0 => 0,
        kept => kept.saturating_mul(100).checked_div(free).unwrap_or(u64::MAX),
    };
    let files = if reserve > 0 { percent(kept_files(room), room.files_free) } else { 0 };
    (percent(kept_octets(room, reserve), room.free), files)
}

/// A small disk keeps back little, or it could not be used at all.
fn kept_octets(room: Room, reserve: u64) -> u64 {
    reserve.min(room.total / RESERVED_PART)
}

/// Some file systems have no limit on files: 0.
fn kept_files(room: Room) -> u64 {
    FILES.min(room.files_total / RESERVED_PART)
}

/// A quarter of the reserve.
const SLACK_PART: u64 = 4;
/// At most a sixteenth of the disk is kept back.
const RESERVED_PART: u64 = 16;
/// Files kept back: a large body takes one, segments and index a few.
const FILES: u64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Room = Room { free: 1 << 40, total: 1 << 41, files_free: 1 << 20, files_total: 1 << 21 };

    #[test]
    fn puts_begin_again_when_a_quarter_more_than_the_reserve_is_free() {
        let watermark = Watermark::default();
        let octets = |free| Room { free, ..ROOMY };
        assert_eq!(watermark.admit(octets(1000), 1000, 0), Ok(()));
        assert_eq!(
            watermark.admit(octets(1000), 1000, 1),
            Err(Full::Disk { free: 1000, wanted: 1001 }),
            "too large alone"
        );
        assert_eq!(watermark.admit(octets(1000), 1000, 0), Ok(()), "others are not");
        assert_eq!(watermark.admit(octets(999), 1000, 0), Err(Full::Disk { free: 999, wanted: 1000 }));
        for free in [1000, 1249] {
            assert_eq!(watermark.admit(octets(free), 1000, 0), Err(Full::Disk { free, wanted: 1250 }));
            assert_eq!(is_free(octets(free), 1000, 0, false), Ok(()), "what has begun goes on");
        }
        assert_eq!(watermark.admit(octets(1250), 1000, 0), Ok(()));
        assert_eq!(watermark.admit(octets(1000), 1000, 0), Ok(()));
    }

    #[test]
    fn the_pressure_is_what_is_kept_back_in_percent_of_what_is_free() {
        let free = |free, files_free| Room { free, files_free, ..ROOMY };
        for (room, reserve, pressures) in [
            (ROOMY, 0, (0, 0)),
            (free(4_000, 4_096), 1_000, (25, 25)),
            (free(1_000, 1_024), 1_000, (100, 100)),
            (free(999, 1_023), 1_000, (100, 100)),
            (free(800, 512), 1_000, (125, 200)),
            (free(0, 0), 1_000, (u64::MAX, u64::MAX)),
            (Room { free: 100, total: 1_600, files_free: 0, files_total: 0 }, 1_000, (100, 0)),
        ] {
            assert_eq!(pressures, super::pressures(room, reserve), "{room:?} {reserve}");
        }
    }

    #[test]
    fn a_disk_short_of_files_refuses_puts() {
        let watermark = Watermark::default();
        let files = |files_free| Room { files_free, ..ROOMY };
        assert_eq!(watermark.admit(files(1024), 1, 0), Ok(()));
        assert_eq!(watermark.admit(files(1023), 1, 0), Err(Full::Files { free: 1023, wanted: 1024 }));
        assert_eq!(watermark.admit(files(1279), 1, 0), Err(Full::Files { free: 1279, wanted: 1280 }));
        assert_eq!(watermark.admit(files(1280), 1, 0), Ok(()));
        let unlimited = Room { files_free: 0, files_total: 0, ..ROOMY };
        assert_eq!(Watermark::default().admit(unlimited, 1, 0), Ok(()));
        assert_eq!(Watermark::default().admit(files(0), 0, 0), Ok(()), "nothing is kept back");
        let small = Room { files_free: 10, files_total: 160, ..ROOMY };
        assert_eq!(Watermark::default().admit(small, 1, 0), Ok(()), "a sixteenth of what is small");
    }
}
