//! The dialogues of `transcripts/`, in every chunking, and where it makes sense from both points of view.

use std::path::Path;

#[test]
fn every_dialogue_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    assert!(posthaste_testkit::transcript::replay_folder(&folder) >= 25);
}
