//! The corpora of the fuzz targets, replayed through their bodies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use posthaste_testkit::fuzz;

type Body = fn(&[u8]);

const TARGETS: &[(&str, Body)] = &[
    ("address", fuzz::address),
    ("client_session", fuzz::client_session),
    ("command", fuzz::command),
    #[cfg(feature = "auth")]
    ("dkim", fuzz::dkim),
    ("framer", fuzz::framer),
    ("pair", fuzz::pair),
    ("queue", fuzz::queue),
    ("reply", fuzz::reply),
    ("round_trip", fuzz::round_trip),
    ("sasl", fuzz::sasl),
    ("server_session", fuzz::server_session),
    ("tolerance", fuzz::tolerance),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a file").path()).collect()
}

#[test]
fn every_input_of_every_corpus_holds() {
    for (target, body) in TARGETS {
        let inputs = files(&folder().join(target));
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            // The name of an input that fails stands above the panic.
            println!("{}", input.display());
            body(&fs::read(&input).unwrap());
        }
    }
}

#[cfg(feature = "auth")]
#[test]
fn every_corpus_has_a_body() {
    let found: std::collections::BTreeSet<_> =
        files(&folder()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(found, TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect());
}
