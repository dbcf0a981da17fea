//! Measures a large backlog: memory, opening after a kill, claims, freed disk space, and large
//! bodies.
//!
//! `cargo run --release -p posthaste-queue --example backlog -- [FOLDER] [MESSAGES]` works in a new
//! folder there, by default in the target folder. It writes 1,000,000 messages of 1 KiB, which take
//! about 3 GB; then 100 bodies of 50 MiB at once, which take 5 GB. It takes some minutes, and
//! removes what it wrote.

#[cfg(unix)]
#[path = "../tests/block_on/mod.rs"]
mod block_on;

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    measure::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("the durable engine needs a Unix disk");
}

#[cfg(unix)]
mod measure {
    use std::error::Error;
    use std::io::{BufRead, BufReader};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};
    use std::{env, fs, thread};

    use bytes::Bytes;
    use posthaste_queue::log::{LogOptions, LogQueue};
    use posthaste_queue::{
        Claim, Draft, DueClass, NameError, NewDelivery, NewMessage, Outcome, Owner, Priority, PutError, Queue,
        RoutingKey,
    };

    use crate::block_on::block_on;

    type Done = Result<(), Box<dyn Error>>;

    /// Each step is a process of its own, so that its memory is its own.
    pub(super) fn main() -> Done {
        let arguments: Vec<_> = env::args().skip(1).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match arguments[..] {
            ["fill", dir, count] => fill(Path::new(dir), count.parse()?),
            ["work", dir] => work(Path::new(dir)),
            ["large", dir] => large(Path::new(dir)),
            [] => all(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), 1_000_000),
            [dir] => all(dir.into(), 1_000_000),
            [dir, count] => all(dir.into(), count.parse()?),
            _ => Err("usage: backlog [FOLDER] [MESSAGES]".into()),
        }
    }

    fn all(parent: PathBuf, most: u64) -> Done {
        let dir = parent.join(format!("backlog-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        // Smaller backlogs show that a claim costs O(log n).
        let sizes = [most / 100, most / 10, most].into_iter().filter(|size| *size > 0);
        let done = sizes.map(|size| one(&dir.join(size.to_string()), size)).collect::<Result<Vec<()>, _>>();
        let done = done.and_then(|_| step(&["large", &text(&dir.join("large"))], false));
        fs::remove_dir_all(&dir)?;
        done
    }

    fn one(dir: &Path, count: u64) -> Done {
        println!("{count} messages of 1 KiB, one owner's, for {KEYS} keys");
        step(&["fill", &text(dir), &count.to_string()], true)?;
        step(&["work", &text(dir)], false)?;
        fs::remove_dir_all(dir)?;
        Ok(())
    }

    /// Runs a step. `kill`: kills it when it says that it is done.
    fn step(arguments: &[&str], kill: bool) -> Done {
        let mut child = Command::new(env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        for line in lines {
            let line = line?;
            if line == "done" && kill {
                child.kill()?;
                child.wait()?;
                return Ok(());
            }
            println!("{line}");
        }
        if child.wait()?.success() { Ok(()) } else { Err("a step failed".into()) }
    }

    fn fill(dir: &Path, count: u64) -> Done {
        let queue = LogQueue::open(dir, LogOptions::default())?;
        let (next, start) = (AtomicU64::new(0), Instant::now());
        let body = Bytes::from(vec![b'x'; 1024]);
        let put_all = || -> Result<(), PutError> {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= count {
                    return Ok(());
                }
                if number.is_multiple_of(100_000) {
                    eprintln!("{number} of {count}");
                }
                block_on(put(&queue, "bulk", number, body.clone()))?;
            }
        };
        thread::scope(|scope| {
            let writers: Vec<_> = (0..50).map(|_| scope.spawn(put_all)).collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("no panic"))
        })?;
        println!("  filled at {:.0}/s, peak of memory {} MiB", count as f64 / start.elapsed().as_secs_f64(), peak()?);
        println!("done");
        loop {
            thread::park();
        }
    }

    fn work(dir: &Path) -> Done {
        let start = Instant::now();
        let queue = LogQueue::open(dir, LogOptions::default())?;
        let count = queue.report().messages;
        println!(
            "  opened after kill -9 in {:.2} s, {} records read",
            start.elapsed().as_secs_f64(),
            queue.report().records
        );

        // Claims, each given back at once, so that the backlog stays.
        let classes: Vec<_> = (0..KEYS).map(|number| class("bulk", number)).collect::<Result<_, _>>()?;
        let mut times = Vec::new();
        for round in 0..CLAIMS {
            let from = &classes[usize::try_from(round * 7 % KEYS)?..][..1];
            let start = Instant::now();
            let claimed = block_on(queue.claim(Claim { from, max: 1, lease: LEASE }))?;
            times.push(start.elapsed());
            for claimed in claimed {
                block_on(queue.extend(&claimed.lease, Duration::ZERO))?;
            }
        }
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        println!("  a claim takes {:?} (median), {:?} (99 %)", at(50), at(99));

        // Looks through all that is due.
        let start = Instant::now();
        let mut due = block_on(queue.due(None, PAGE))?;
        while let Some(last) = due.last().filter(|_| due.len() % PAGE == 0) {
            let page = block_on(queue.due(Some(last), PAGE))?;
            if page.is_empty() {
                break;
            }
            due.extend(page);
        }
        println!("  {} classes are due, listed in {:?}", due.len(), start.elapsed());

        // One message of another owner, for the same keys.
        let start = Instant::now();
        let other = block_on(put(&queue, "other", 0, Bytes::from_static(b"one")))?;
        let claimed = block_on(queue.claim(Claim { from: &[class("other", 0)?], max: 1, lease: LEASE }))?;
        if claimed.iter().all(|claimed| claimed.lease.message() != other) {
            return Err("another owner's message is not due".into());
        }
        println!("  another owner's message: claimed {:?} after its put began", start.elapsed());

        // Nine of ten are finished; each worker has its own keys.
        let (left, start) = (AtomicU64::new(count / 10 * 9), Instant::now());
        let finish_all = &|worker: u64| -> Result<(), Box<dyn Error + Send + Sync>> {
            for class in classes.iter().skip(usize::try_from(worker)?).step_by(usize::try_from(WORKERS)?) {
                loop {
                    let of = Claim { from: std::slice::from_ref(class), max: 20, lease: LEASE };
                    let claimed = block_on(queue.claim(of))?;
                    if claimed.is_empty() {
                        break;
                    }
                    for claimed in claimed {
                        if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
                            return Ok(());
                        }
                        block_on(queue.finish(claimed.lease, Outcome::Done, Vec::new()))?;
                    }
                }
            }
            Ok(())
        };
        let done: Result<(), Box<dyn Error + Send + Sync>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || finish_all(worker))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
        });
        done.map_err(|error| error.to_string())?;
        println!("  nine of ten done at {:.0}/s", (count / 10 * 9) as f64 / start.elapsed().as_secs_f64());
        thread::sleep(Duration::from_secs(10));
        let stats = block_on(queue.stats());
        let two_segments = 2 * LogOptions::default().segment_size;
        let ratio = stats.disk.saturating_sub(two_segments) as f64 / stats.bytes.max(1) as f64;
        println!(
            "  ten seconds later: {} MiB in segments, {} MiB in live bodies; without two segments {ratio:.2} times the bodies; index {} MiB",
            stats.disk >> 20,
            stats.bytes >> 20,
            fs::metadata(dir.join("index"))?.len() >> 20
        );
        block_on(queue.close());
        println!("  peak of memory {} MiB", peak()?);
        Ok(())
    }

    /// Large bodies, all at once.
    fn large(dir: &Path) -> Done {
        let queue = LogQueue::open(dir, LogOptions::default())?;
        let start = Instant::now();
        let chunk = Bytes::from(vec![b'x'; 64 << 10]);
        let put = || {
            block_on(async {
                let mut draft = queue.put(Some(LARGE)).await?;
                for _ in 0..LARGE / (64 << 10) {
                    // A copy for each, as from a socket.
                    draft.write(Bytes::copy_from_slice(&chunk)).await?;
                }
                draft.commit(message("bulk", 0)).await
            })
        };
        thread::scope(|scope| {
            let writers: Vec<_> = (0..100).map(|_| scope.spawn(put)).collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("no panic").map(drop))
        })?;
        block_on(queue.close());
        println!(
            "100 bodies of 50 MiB at once: {:.1} s, peak of memory {} MiB",
            start.elapsed().as_secs_f64(),
            peak()?
        );
        Ok(())
    }

    async fn put(
        queue: &LogQueue,
        owner: &str,
        number: u64,
        body: Bytes,
    ) -> Result<posthaste_queue::MessageId, PutError> {
        let mut draft = queue.put(Some(body.len() as u64)).await?;
        draft.write(body).await?;
        draft.commit(message(owner, number)).await
    }

    fn message(owner: &str, number: u64) -> NewMessage {
        let delivery =
            NewDelivery { key: key(number % KEYS), delay: Duration::ZERO, state: Bytes::from_static(b"<to@example>") };
        NewMessage {
            owner: Owner::new(owner).expect("a short name"),
            priority: Priority::default(),
            envelope: Bytes::from_static(b"MAIL FROM:<somebody@example.com> SIZE=1024"),
            deliveries: vec![delivery],
        }
    }

    fn class(owner: &str, number: u64) -> Result<DueClass, NameError> {
        Ok(DueClass { key: key(number), priority: Priority::default(), owner: Owner::new(owner)? })
    }

    fn key(number: u64) -> RoutingKey {
        RoutingKey::new(&format!("domain{number}.example")).expect("a short key")
    }

    /// The peak memory of the process in MiB.
    fn peak() -> Result<u64, Box<dyn Error>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
        Ok(kib >> 10)
    }

    fn text(path: &Path) -> String {
        path.display().to_string()
    }

    const KEYS: u64 = 1_000;
    const PAGE: usize = 256;
    const CLAIMS: u64 = 2_000;
    const WORKERS: u64 = 40;
    const LARGE: u64 = 50 << 20;
    const LEASE: Duration = Duration::from_secs(600);
}
