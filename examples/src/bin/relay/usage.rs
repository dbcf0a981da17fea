//! What the system lets this process have of memory, and how much it has of memory and of open
//! files.

use std::{fs, path::Path, time::Duration};

use posthaste::client::Resolver;
use posthaste::queue::{Queue, log::LogOptions};
use posthaste::relay::{Gauge, Relay};
use posthaste::server::ServerOptions;
use rustix::process::{Resource, getrlimit};

/// What this process may have, in octets. `None`: there is no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryLimits {
    /// Of memory that is in use: the least of the configuration, the cgroup and the machine.
    resident: Option<u64>,
    /// Of addresses (RLIMIT_AS, `ulimit -v`).
    addresses: Option<u64>,
    /// Of data (RLIMIT_DATA, `ulimit -d`).
    data: Option<u64>,
}

/// How often the relay is told what it has.
const INTERVAL: Duration = Duration::from_millis(250);
/// What a thousand clients at the default limits bring the whole process to.
const ENOUGH: u64 = 256 << 20;
/// What a relay has by itself on two processors is about five eighths of these. With less it would
/// be overloaded by itself, and take no mail. The stacks of its threads are data, used or not, and
/// so are their addresses. Each further processor has threads of its own.
const LEAST_DATA: u64 = 128 << 20;
const LEAST_ADDRESSES: u64 = 768 << 20;
const DATA_OF_PROCESSOR: u64 = 4 << 20;
const ADDRESSES_OF_PROCESSOR: u64 = 96 << 20;
/// Octets that a client may take: its buffers, what it is told, and an envelope of its own.
const A_CLIENT: u64 = 96 << 10;
/// Limits at and above this are none.
const NO_LIMIT: u64 = 1 << 60;

impl MemoryLimits {
    /// Asks the system. `configured`: what the configuration says.
    pub(crate) fn find(configured: Option<u64>) -> Self {
        let cgroup = fs::read_to_string("/proc/self/cgroup").ok();
        let cgroup = cgroup.and_then(|text| cgroup_limit(&text, &|path| fs::read_to_string(path).ok()));
        let info = rustix::system::sysinfo();
        #[allow(clippy::useless_conversion, reason = "the type differs from system to system")]
        let machine = u64::from(info.totalram).checked_mul(info.mem_unit.into()).filter(|octets| *octets > 0);
        let rlimit = |resource| getrlimit(resource).current.filter(|octets| *octets < NO_LIMIT);
        Self {
            resident: [configured, cgroup, machine].into_iter().flatten().min(),
            addresses: rlimit(Resource::As),
            data: rlimit(Resource::Data),
        }
    }

    /// The least of them.
    fn least(&self) -> Option<u64> {
        [self.resident, self.addresses, self.data].into_iter().flatten().min()
    }

    /// How much of the scarcest one is used, in percent. `None`: the system does not say.
    fn used(&self, statm: &str, page: u64) -> Option<u64> {
        let pages = |at| Some(statm.split_ascii_whitespace().nth(at)?.parse::<u64>().ok()?.saturating_mul(page));
        // Pages of files, such as those of the program, go when there is need.
        let resident = pages(1)?.saturating_sub(pages(2)?);
        let used = [(pages(0)?, self.addresses), (resident, self.resident), (pages(5)?, self.data)];
        let percent = |(used, limit): (u64, Option<u64>)| used.saturating_mul(100).checked_div(limit?);
        used.into_iter().filter_map(percent).max()
    }

    /// Why the relay cannot run with these limits at all. `None`: it can.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let further = u64::try_from(processors).unwrap_or(u64::MAX).saturating_sub(2);
        let least = |base: u64, each: u64| base.saturating_add(further.saturating_mul(each));
        let (data, addresses) = (least(LEAST_DATA, DATA_OF_PROCESSOR), least(LEAST_ADDRESSES, ADDRESSES_OF_PROCESSOR));
        [(self.data, data, "data", "-d"), (self.addresses, addresses, "addresses", "-v")].into_iter().find_map(
            |(allowed, least, what, option)| {
                let allowed = allowed.filter(|allowed| *allowed < least)?;
                Some(format!(
                    "{} MiB of {what} are allowed (ulimit {option}), and the stacks of the relay's threads are {what}, used or not; allow {} MiB, or limit the memory that is in use instead, such as by MemoryMax= of systemd",
                    allowed >> 20,
                    least >> 20,
                ))
            },
        )
    }

    /// A line for an operator who gives the relay little memory. `None`: it has enough.
    pub(crate) fn shortage(&self) -> Option<String> {
        let limit = self.least().filter(|limit| *limit < ENOUGH)?;
        Some(format!(
            "{} MiB of memory are allowed, and a thousand clients at their limits take {} MiB; the relay serves {} clients at most, keeps less in memory, and refuses mail before that is used up; allow more, such as by MemoryMax= of systemd or ulimit -v",
            limit >> 20,
            ENOUGH >> 20,
            clients(limit),
        ))
    }

    /// Lets the queue and the server keep less in memory if there is little: together seven
    /// sixteenths at most, and fewer clients.
    pub(crate) fn fit(&self, options: &mut LogOptions, server: &mut ServerOptions) {
        let Some(least) = self.least() else { return };
        let limit = usize::try_from(least).unwrap_or(usize::MAX);
        server.connections = server.connections.min(clients(least));
        server.envelopes = server.envelopes.min(limit / 8);
        options.index_memory = options.index_memory.min(limit / 8);
        options.index_cache = options.index_cache.min(limit / 16);
        options.draft_memory = options.draft_memory.min(limit / 8);
    }
}

/// The clients that half of this memory is enough for.
fn clients(limit: u64) -> usize {
    usize::try_from(limit / 2 / A_CLIENT).unwrap_or(usize::MAX).max(1)
}

/// Tells the relay what it has, as long as it runs.
pub(crate) async fn report<Q: Queue, R: Resolver>(relay: Relay<Q, R>, memory: MemoryLimits, descriptors: Option<u64>) {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
    loop {
        // These are no files of a disk: reading them waits for nothing.
        let statm = fs::read_to_string("/proc/self/statm").ok();
        if let Some(percent) = statm.and_then(|statm| memory.used(&statm, page)) {
            relay.overload().report(Gauge::Memory, percent);
        }
        let open = open_files().map(|open| open.saturating_mul(100));
        if let Some(percent) = open.zip(descriptors).and_then(|(open, limit)| open.checked_div(limit)) {
            relay.overload().report(Gauge::Descriptors, percent);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The number of open files. Newer kernels tell it as the size of the folder.
fn open_files() -> Option<u64> {
    let folder = Path::new("/proc/self/fd");
    let told = fs::metadata(folder).ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // One of them is that of the folder. If it cannot be opened, none is left.
    match fs::read_dir(folder) {
        Ok(entries) => u64::try_from(entries.count().saturating_sub(1)).ok(),
        Err(_) => Some(u64::MAX),
    }
}

/// The least limit of the process's cgroups: its own and those above, in version 2 and version 1.
/// `text` is that of `/proc/self/cgroup`.
fn cgroup_limit(text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let root = match (number, controllers) {
            ("0", "") => ("/sys/fs/cgroup", "memory.max"),
            (_, controllers) if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        Some((root, path))
    });
    let limits = lines.flat_map(|((root, file), path)| {
        // In a container the path may be that of the host, of which only the root is there.
        let folders: Vec<_> = Path::new(path.trim_start_matches('/')).ancestors().collect();
        folders.into_iter().filter_map(move |folder| {
            let text = read(&Path::new(root).join(folder).join(file))?;
            text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
        })
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_limit_of_the_cgroup_is_the_least_on_its_way_to_the_root() {
        let files = [
            ("/sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/a.slice/memory.max", "67108864\n"),
            ("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "33554432\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/c.slice/memory.max", "99999999\n"),
        ];
        let read =
            |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned());
        for (text, limit) in [
            ("0::/a.slice/b.service\n", Some(64 * MIB)),
            ("0::/\n", None),
            ("0::/gone/from/here\n", None),
            ("4:memory:/docker/x\n0::/\n", Some(32 * MIB)),
            ("4:cpu,memory:/docker\n0::/a.slice\n", Some(32 * MIB)),
            ("4:memory:/\n0::/a.slice/b.service\n", Some(64 * MIB)),
            ("4:memoryless:/docker\n", None),
            ("", None),
            ("nonsense\n::\n4:memory\n", None),
        ] {
            assert_eq!(cgroup_limit(text, &read), limit, "{text:?}");
        }
    }

    #[test]
    fn the_scarcest_kind_of_memory_counts() {
        let statm = "25600 5620 500 10 0 12800 0\n";
        let limits = |resident, addresses, data| MemoryLimits { resident, addresses, data };
        for (limits, used) in [
            (limits(None, None, None), None),
            (limits(Some(40 * MIB), None, None), Some(50)),
            (limits(Some(40 * MIB), Some(125 * MIB), None), Some(80)),
            (limits(Some(40 * MIB), Some(125 * MIB), Some(50 * MIB)), Some(100)),
            (limits(Some(20 * MIB), Some(1 << 40), None), Some(100)),
        ] {
            assert_eq!(limits.used(statm, 4_096), used, "{limits:?}");
        }
        assert_eq!(limits(Some(MIB), None, None).used("nonsense", 4_096), None);
    }

    #[test]
    fn a_limit_that_the_relay_itself_fills_is_an_obstacle() {
        let limits = |addresses, data| MemoryLimits { resident: None, addresses, data };
        for (limits, words) in [
            (limits(None, None), None),
            (limits(Some(1 << 50), Some(1 << 50)), None),
            (limits(None, Some(96 * MIB)), Some("96 MiB of data are allowed (ulimit -d)")),
            (limits(Some(300 * MIB), None), Some("300 MiB of addresses are allowed (ulimit -v)")),
        ] {
            let obstacle = limits.obstacle();
            assert_eq!(obstacle.is_some(), words.is_some(), "{obstacle:?}");
            assert!(obstacle.unwrap_or_default().starts_with(words.unwrap_or_default()), "{limits:?}");
        }
    }

    #[test]
    fn little_memory_is_told_and_the_queue_keeps_less_in_it() {
        let limits = MemoryLimits { resident: Some(64 * MIB), ..MemoryLimits::default() };
        assert!(limits.shortage().is_some_and(|text| text.starts_with("64 MiB of memory are allowed")));
        let (mut options, mut server) = (LogOptions::default(), ServerOptions::default());
        limits.fit(&mut options, &mut server);
        assert_eq!([options.index_memory, options.index_cache, options.draft_memory], [8 << 20, 4 << 20, 8 << 20]);
        assert_eq!((server.connections, server.envelopes), (341, 8 << 20));
        let roomy = MemoryLimits { resident: Some(1 << 30), ..MemoryLimits::default() };
        let (mut options, mut server) = (LogOptions::default(), ServerOptions::default());
        roomy.fit(&mut options, &mut server);
        assert_eq!((roomy.shortage(), options.draft_memory), (None, LogOptions::default().draft_memory));
        assert_eq!(server.connections, ServerOptions::default().connections);
    }
}
