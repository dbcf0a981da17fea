//! The dialogues of `transcripts/`, in every chunking, some of them from both sides.

use std::path::PathBuf;

use posthaste_testkit::transcript::replay_folder;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/transcripts"].iter().collect()
}

#[test]
fn every_dialogue_holds() {
    assert!(replay_folder(&folder()) >= 200);
}
