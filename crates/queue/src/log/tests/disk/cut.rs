//! What a power cut leaves.

use super::{DataChange, Disk, Inode, State, Tree, apply_data, apply_name};

/// Which unsynced changes survive. Synced ones always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::tests) enum Survival {
    Nothing,
    Everything,
    /// All changes up to some moment, over all files and folders, and any part of the change at
    /// that moment: an ordered journal.
    InOrder,
    /// Any selection of changes, and any selection of a write's sectors: the weakest that POSIX
    /// allows. A file may have grown without the write that grew it, and have any bytes there.
    Any,
}

impl Survival {
    pub(in crate::log::tests) const ALL: [Self; 4] = [Self::Nothing, Self::Everything, Self::InOrder, Self::Any];
}

impl Disk {
    /// The disk after a power cut. This one has no effect from now on.
    pub(in crate::log::tests) fn power_cut(&self, random: &mut fastrand::Rng) -> Self {
        // The weakest twice as often as any other.
        let survival = Survival::ALL.get(random.usize(0..5)).copied().unwrap_or(Survival::Any);
        self.power_cut_with(survival, random)
    }

    pub(in crate::log::tests) fn power_cut_with(&self, survival: Survival, random: &mut fastrand::Rng) -> Self {
        let mut state = self.lock();
        state.crashed = true;
        let lot = Lot::draw(&state, survival, random);
        let (mut names, mut dirs) = (state.durable.clone(), state.durable_dirs.clone());
        for (at, change) in &state.unsynced_names {
            if lot.is_kept(*at, random) {
                apply_name(&mut names, &mut dirs, change);
            }
        }
        // A lost folder loses its content.
        let is_there = |path: &std::path::Path| path.ancestors().skip(1).all(|dir| dirs.contains(dir));
        names.retain(|path, _| is_there(path));
        let left = dirs.iter().filter(|dir| is_there(dir)).cloned().collect();
        // A file without a name is lost.
        let mut files = Vec::new();
        let mut survivors = Tree::new();
        for (path, file) in names {
            survivors.insert(path, files.len());
            let inode = &state.files[file];
            files.push(Inode::settled(inode.part, lot.octets(inode, random)));
        }
        Self::settled(survivors, left, files)
    }
}

/// The choices of one power cut.
struct Lot {
    survival: Survival,
    /// The last change that survives, if they survive in order.
    last: u64,
    sector: usize,
}

impl Lot {
    fn draw(state: &State, survival: Survival, random: &mut fastrand::Rng) -> Self {
        let names = state.unsynced_names.iter().map(|(at, _)| *at);
        let data = state.files.iter().flat_map(|file| file.unsynced.iter().map(|(at, _)| *at));
        let mut changes: Vec<_> = names.chain(data).collect();
        changes.sort_unstable();
        let last = random.choice(&changes).copied().unwrap_or(0);
        // Disks of both kinds, and writes that end anywhere.
        let sector = random.choice([512, 4096, 48]).unwrap();
        Self { survival, last, sector }
    }

    fn is_kept(&self, at: u64, random: &mut fastrand::Rng) -> bool {
        match self.survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::InOrder => at <= self.last,
            Survival::Any => random.bool(),
        }
    }

    fn octets(&self, inode: &Inode, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut octets = inode.durable.clone();
        for (at, change) in &inode.unsynced {
            let is_torn = match self.survival {
                Survival::Nothing | Survival::Everything => false,
                Survival::InOrder => *at == self.last,
                Survival::Any => true,
            };
            match change {
                DataChange::Write(start, data) if is_torn => self.tear(&mut octets, *start, data, random),
                change if self.is_kept(*at, random) => apply_data(&mut octets, change),
                _ => {}
            }
        }
        if self.survival == Survival::Any && octets.len() < inode.now.len() && random.u8(0..4) == 0 {
            let stale = random.bool();
            octets.resize_with(inode.now.len(), || if stale { random.u8(..) } else { 0 });
        }
        octets
    }

    /// Any selection of the sectors that it touches.
    fn tear(&self, octets: &mut Vec<u8>, start: usize, data: &[u8], random: &mut fastrand::Rng) {
        let mut at = start;
        while at < start + data.len() {
            let end = ((at / self.sector + 1) * self.sector).min(start + data.len());
            if random.bool() {
                apply_data(octets, &DataChange::Write(at, data[at - start..end - start].to_vec()));
            }
            at = end;
        }
    }
}
