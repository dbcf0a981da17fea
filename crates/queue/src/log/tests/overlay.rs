//! The overlay, beside a writable disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use crate::log::disk::vfs::{Vfs, VfsFile};
use crate::log::inspect::Progress;
use crate::log::inspect::overlay::Overlay;
use crate::log::inspect::scratch::{BLOCK, Scratch};

fn path(random: &mut fastrand::Rng) -> PathBuf {
    Path::new("/queue").join(random.choice(["a", "b", "c", "log/d", "log/e"]).unwrap())
}

/// After each operation on the overlay and on a copy of the disk below, both look the same.
#[test]
fn an_overlay_is_like_the_disk_and_does_not_change_it() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let below = Disk::new();
        below.make_dir(Path::new("/queue")).unwrap();
        below.make_dir(Path::new("/queue/log")).unwrap();
        for name in ["a", "b", "log/d"] {
            let octets: Vec<u8> = (0..random.usize(..20_000)).map(|_| random.u8(1..)).collect();
            below.create(&Path::new("/queue").join(name)).unwrap().write_at(&octets, 0).unwrap();
        }
        let (before, model) = (below.killed(), below.killed());
        let scratch = Scratch::new(None);
        let overlay = Overlay::new(Arc::new(below.clone()), scratch, Arc::<Progress>::default());
        let mut open: Vec<(Arc<dyn VfsFile>, Arc<dyn VfsFile>)> = Vec::new();
        for _ in 0..60 {
            let (one, other) = (path(&mut random), path(&mut random));
            match random.u8(..8) {
                0 => {
                    // Creating an existing file fails on one of them and not on the other.
                    if !model.exists(&one).unwrap() {
                        open.push((overlay.create(&one).unwrap(), model.create(&one).unwrap()));
                    } else {
                        assert!(overlay.create(&one).is_err());
                    }
                }
                1 | 2 => match (overlay.open(&one), model.open(&one)) {
                    (Ok(over), Ok(there)) => open.push((over, there)),
                    (over, there) => assert!(over.is_err() && there.is_err(), "{seed}"),
                },
                3 => assert_eq!(overlay.remove(&one).is_ok(), model.remove(&one).is_ok(), "{seed}"),
                4 if model.exists(&one).unwrap() && one != other => {
                    overlay.rename(&one, &other).unwrap();
                    model.rename(&one, &other).unwrap();
                }
                5 | 6 => {
                    let Some((over, there)) = random.choice(&open) else { continue };
                    let octets = vec![random.u8(1..); random.usize(..9_000)];
                    let at = random.u64(..20_000);
                    over.write_at(&octets, at).unwrap();
                    there.write_at(&octets, at).unwrap();
                }
                _ => {
                    let Some((over, there)) = random.choice(&open) else { continue };
                    let len = random.u64(..25_000);
                    over.set_len(len).unwrap();
                    there.set_len(len).unwrap();
                }
            }
            for dir in ["/queue", "/queue/log"] {
                let sorted = |mut names: Vec<String>| {
                    names.sort();
                    names
                };
                let dir = Path::new(dir);
                assert_eq!(sorted(overlay.list(dir).unwrap()), sorted(model.list(dir).unwrap()), "{seed}");
            }
            let from = random.u64(..22_000);
            for (over, there) in &open {
                assert_eq!(over.len().unwrap(), there.len().unwrap(), "{seed}");
                let (mut one, mut other) = ([0; 5_000], [0; 5_000]);
                let lens = (over.read_at(&mut one, from).unwrap(), there.read_at(&mut other, from).unwrap());
                assert!(lens.0 == lens.1 && one == other, "{seed}");
            }
        }
        assert_eq!(below.paths(), before.paths());
        assert!(below.paths().iter().all(|path| below.contents(path) == before.contents(path)), "{seed}");
    }
}

#[test]
fn a_scratch_continues_in_a_file_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch::new(Some(folder.path()));
    let block = |number: usize| {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&number.to_le_bytes());
        block
    };
    let spots: Vec<_> = (0..5_000).map(|number| scratch.write(None, &block(number)).unwrap()).collect();
    for (number, spot) in spots.iter().enumerate() {
        let mut read = [0; BLOCK];
        scratch.read(*spot, &mut read).unwrap();
        assert!(read == block(number), "{number}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let scratch = Scratch::new(Some(&folder.path().join("missing")));
    let refused = (0..5_000).find_map(|number| scratch.write(None, &block(number)).err()).unwrap();
    assert!(refused.to_string().contains("missing"), "{refused}");
}
