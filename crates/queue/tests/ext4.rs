//! Cuts the power of a real file system: ext4 on a loop device, told to stop without writing its
//! journal. `cargo xtask ext4-cuts` does it more often.
//!
//! A sync in progress at that moment may return success although it writes nothing. A program would
//! not live to see that if the power really went. So only what was read before the cut counts.
//!
//! This needs root and a free loop device. Without them it tests nothing, and says so.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use posthaste_queue::log::LogQueue;

mod block_on;
mod writers;
use writers::{Ledger, Writers, options, times};

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let cuts = times(CUTS, 4);
    let folder = tempfile::tempdir().unwrap();
    let mut mount = match Mount::new(folder.path()) {
        Ok(mount) => mount,
        Err(why) if env::var_os(CUTS).is_some() => panic!("{why}"),
        Err(why) => {
            println!("NOT TESTED: no power of a real file system was cut. {why}");
            return;
        }
    };
    let queue_folder = mount.point.join("queue");
    let mut ledger = Ledger::default();
    let mut random = fastrand::Rng::with_seed(1);
    let mut replayed = 0;
    for cut in 0..cuts {
        let writers = Writers::start(&queue_folder);
        // Also while it opens.
        thread::sleep(Duration::from_millis(random.u64(0..400)));
        let heard = writers.said();
        mount.cut().unwrap();
        // The process may find out by itself, or not.
        thread::sleep(Duration::from_millis(random.u64(0..20)));
        ledger.read(&writers.kill(), heard);
        mount.unmount().unwrap();
        replayed += u64::from(mount.has_journal_to_replay());
        mount.mount(["data=ordered", "data=writeback"][usize::try_from(cut % 2).unwrap()]).unwrap();
        let queue = LogQueue::open(&queue_folder, options()).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        ledger.check(&queue, &format!("cut {cut}"));
    }
    let Ledger { acknowledged, again, untrue, .. } = ledger;
    println!("{cuts} cuts of ext4, after {replayed} of them there was a journal to replay");
    println!("{acknowledged} acknowledged, none lost, none back; {again} finished without an answer are offered again");
    println!("{untrue} were acknowledged while the cut went on and are not there");
    assert!(acknowledged > 0 && replayed > cuts / 2, "{acknowledged} acknowledged, {replayed} replayed");
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "the other process of the test above"]
fn child() {
    writers::write();
}

/// A file system in a file. It is unmounted, and its loop device freed, when this is dropped.
struct Mount {
    image: PathBuf,
    point: PathBuf,
    /// Waits for a line, then cuts.
    cutter: Option<Child>,
}

impl Mount {
    fn new(folder: &Path) -> Result<Self, String> {
        let mut mount = Self { image: folder.join("image"), point: folder.join("mounted"), cutter: None };
        let made = File::create(&mount.image).and_then(|file| file.set_len(SIZE));
        made.and_then(|()| fs::create_dir(&mount.point)).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), mount.image.as_ref()])?;
        mount.mount("data=ordered")?;
        Ok(mount)
    }

    fn mount(&mut self, options: &str) -> Result<(), String> {
        let options = format!("loop,{options}");
        run(
            "mount",
            &[
                "-t".as_ref(),
                "ext4".as_ref(),
                "-o".as_ref(),
                options.as_ref(),
                self.image.as_ref(),
                self.point.as_ref(),
            ],
        )?;
        let cutter = Command::new("python3").args(["-c", SHUTDOWN]).arg(&self.point).stdin(Stdio::piped()).spawn();
        self.cutter = Some(cutter.map_err(|error| format!("python3: {error}; install it"))?);
        Ok(())
    }

    /// Stops the file system: neither data nor journal is written any more.
    fn cut(&mut self) -> Result<(), String> {
        let Some(mut cutter) = self.cutter.take() else { return Err("it is not mounted".to_owned()) };
        let told = cutter.stdin.take().map(|mut line| line.write_all(b"now\n"));
        match (told, cutter.wait()) {
            (Some(Ok(())), Ok(status)) if status.success() => Ok(()),
            other => Err(format!("the file system could not be stopped: {other:?}")),
        }
    }

    /// Frees its loop device too.
    fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[self.point.as_ref()])
    }

    /// The file system has `needs_recovery` among its features.
    fn has_journal_to_replay(&self) -> bool {
        let output = Command::new("dumpe2fs").arg("-h").arg(&self.image).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("needs_recovery")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut cutter) = self.cutter.take() {
            drop(cutter.kill().and_then(|()| cutter.wait()));
        }
        let is_mounted =
            fs::read_to_string("/proc/self/mounts").is_ok_and(|all| all.contains(&*self.point.to_string_lossy()));
        if is_mounted && run("umount", &[self.point.as_ref()]).is_err() {
            // A process is still in it: it is unmounted when that ends.
            drop(run("umount", &["--lazy".as_ref(), self.point.as_ref()]).inspect_err(|why| eprintln!("{why}")));
        }
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> Result<(), String> {
    let path = env::var("PATH").unwrap_or_default();
    // Folders that an ordinary user's PATH does not have.
    let output = Command::new(program).args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    let output = output.map_err(|error| format!("{program}: {error}; install it"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}; this takes root and a loop device", String::from_utf8_lossy(&output.stderr).trim()))
}

/// `EXT4_IOC_SHUTDOWN`, which is `_IOR('X', 125, __u32)`, with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUTDOWN: &str = "
import fcntl, os, struct, sys
folder, flags = os.open(sys.argv[1], os.O_RDONLY), struct.pack('I', 2)
if sys.stdin.readline():
    fcntl.ioctl(folder, 0x8004587d, flags)
";
const SIZE: u64 = 192 << 20;
const CUTS: &str = "EXT4_CUTS";
