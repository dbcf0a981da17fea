//! The dialogues of `transcripts/`, in every chunking, and where it makes sense from both points of view.

use std::{fs, path::PathBuf};

use posthaste_testkit::transcript::{Transcript, replay_folder};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/transcripts"].iter().collect()
}

#[test]
fn every_dialogue_holds() {
    assert!(replay_folder(&folder()) >= 130);
}

#[test]
fn what_cannot_be_done_yet_is_listed() {
    let later = folder().join("later");
    let list = fs::read_to_string(later.join("README.md")).expect("the list");
    let mut names: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()).collect();
    names.push("README.md");
    names.sort_unstable();
    let entries = fs::read_dir(&later).expect("the folder");
    let mut found: Vec<_> =
        entries.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    found.sort_unstable();
    assert_eq!(found, names);
    for name in found.iter().filter(|name| name.ends_with(".txt")) {
        let transcript = Transcript::parse(&fs::read_to_string(later.join(name)).expect("a file"));
        assert!(transcript.steps.len() > 3, "{name}");
    }
}
