//! The index file becomes shorter again.

use super::disk::Disk;
use super::{block_on, claim, everything, message, open, options, put};
use crate::log::{LogOptions, LogQueue};
use crate::{ManualClock, Outcome, Queue, Summary};

/// Fills a queue and removes almost all. Returns what is left, and the longest length of the index.
fn fill_and_empty(queue: &LogQueue) -> (Vec<Summary>, u64) {
    block_on(async {
        for number in 0..MESSAGES {
            let state = vec![u8::try_from(number % 251).unwrap_or_default(); 400];
            put(queue, message("a", &state), b"body").await.unwrap();
        }
        let mut longest = 0;
        let mut left = MESSAGES;
        while left > MESSAGES / 20 {
            for each in claim(queue, 50).await {
                queue.finish(each.lease, Outcome::Done, Vec::new()).await.unwrap();
                left -= 1;
            }
            longest = longest.max(queue.stats().await.index_disk);
        }
        (everything(queue).await, longest)
    })
}

fn index_options(clock: &ManualClock) -> LogOptions {
    LogOptions { index_memory: 64 << 10, segment_size: 64 << 10, ..options(clock) }
}

#[test]
fn the_index_file_is_shortened_when_most_of_it_is_unused() {
    let (clock, disk) = (ManualClock::default(), Disk::new());
    let options = index_options(&clock);
    let queue = open(&disk, &options).unwrap();
    let (before, longest) = fill_and_empty(&queue);
    block_on(queue.close());
    let queue = open(&disk, &options).unwrap();
    assert_eq!(block_on(everything(&queue)), before);
    let now = block_on(queue.stats()).index_disk;
    println!("{longest} octets, then {now}");
    assert!(longest > 2 << 20 && now < longest / 2, "{longest} octets, then {now}");
    assert_eq!(block_on(claim(&queue, 9_999)).len(), before.len(), "all can be claimed");
    assert_eq!(queue.report().damaged, []);
    block_on(queue.close());
    assert!(!disk.paths().iter().any(|path| path.ends_with("index.new")));
}

const MESSAGES: usize = 6_000;
