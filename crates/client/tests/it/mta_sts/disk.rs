//! Policies survive a restart, and damaged files do no harm.

use std::{fs, path::Path, time::SystemTime};

use posthaste_client::mta_sts::MtaSts;
use tempfile::tempdir;

use super::{Files, POLICY, Zone, seen};

/// The names in the folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The age of the policy of `d.test` after a restart without a network.
async fn kept(folder: &Path) -> Option<u64> {
    let sts = MtaSts::open(Files::default(), folder).unwrap();
    seen(&sts.policy(&Zone::default(), "d.test").await).0
}

#[tokio::test]
async fn a_policy_survives_a_restart() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("new/folder");
    let files = Files::with(POLICY);
    let sts = MtaSts::open(files.clone(), &path).unwrap();
    sts.policy(&Zone::with("1"), "D.test").await;
    assert_eq!(names(&path), ["policy-d.test"]);
    assert_eq!(kept(&path).await, Some(604_800));
    // Its id is known, so it is not fetched again.
    let sts = MtaSts::open(files.clone(), &path).unwrap();
    assert_eq!(seen(&sts.policy(&Zone::with("1"), "d.test").await).0, Some(604_800));
    assert_eq!(files.fetches(), 1);
    // A new one takes its place.
    files.set(&POLICY.replace("604800", "86400"));
    let sts = MtaSts::open(files.clone(), &path).unwrap();
    assert_eq!(seen(&sts.policy(&Zone::with("2"), "d.test").await).0, Some(86_400));
    assert_eq!((names(&path).len(), kept(&path).await), (1, Some(86_400)));
}

#[tokio::test]
async fn a_file_that_is_cut_or_altered_is_removed_and_the_policy_fetched_again() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("policy-d.test");
    let files = Files::with(POLICY);
    MtaSts::open(files.clone(), folder.path()).unwrap().policy(&Zone::with("1"), "d.test").await;
    let whole = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    damaged.extend((0..whole.len()).map(|at| {
        let mut altered = whole.clone();
        altered[at] ^= 0x20;
        altered
    }));
    damaged.extend([
        vec![0; 1_000],
        vec![b'\n'; 1_000],
        vec![0xff; 10 << 20],
        whole.repeat(2),
        [&whole[..], b"mx: evil.test\n"].concat(),
    ]);
    damaged.extend(["9".repeat(40), String::new(), "-1".to_owned()].map(|time| {
        let text = String::from_utf8(whole.clone()).unwrap();
        let line = text.lines().find(|line| line.starts_with("fetched: ")).unwrap();
        text.replace(line, &format!("fetched: {time}")).into_bytes()
    }));
    for damaged in damaged {
        fs::write(&file, &damaged).unwrap();
        assert_eq!(kept(folder.path()).await, None, "{}", damaged.escape_ascii());
        assert!(names(folder.path()).is_empty());
    }
    // Another domain's file is none of this one.
    fs::write(&file, &whole).unwrap();
    fs::rename(&file, folder.path().join("policy-e.test")).unwrap();
    let sts = MtaSts::open(files, folder.path()).unwrap();
    assert!(seen(&sts.policy(&Zone::default(), "e.test").await).0.is_none() && names(folder.path()).is_empty());
}

/// A thread that gives up root's rights over files: it cannot read the file, and it may be a good
/// one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_that_names_it_and_stays() {
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    let folder = tempdir().unwrap();
    let file = folder.path().join("policy-d.test");
    MtaSts::open(Files::with(POLICY), folder.path()).unwrap().policy(&Zone::with("1"), "d.test").await;
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    let error = std::thread::scope(|scope| {
        let open = || {
            let mut own = capabilities(None).unwrap();
            own.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, own).unwrap();
            MtaSts::open(Files::default(), folder.path()).map(drop).unwrap_err()
        };
        scope.spawn(open).join().unwrap()
    });
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(error.to_string().starts_with(&format!("{}: ", file.display())), "{error}");
    mode(0o600);
    assert_eq!((names(folder.path()).len(), kept(folder.path()).await), (1, Some(604_800)));
}

#[tokio::test]
async fn a_policy_on_the_disk_ends_when_it_would_have_ended_in_memory() {
    let folder = tempdir().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for (fetched, expected) in [
        (now - 604_900, None),
        (now - 604_700, Some(604_800)),
        (0, None),
        // This host's clock went back.
        (now + 1_000_000, Some(604_800)),
        (u64::MAX, Some(604_800)),
    ] {
        write_policy(folder.path(), fetched);
        assert_eq!(kept(folder.path()).await, expected, "{fetched}");
        assert_eq!(names(folder.path()).len(), usize::from(expected.is_some()), "{fetched}");
    }
}

/// A file as another run wrote it.
fn write_policy(folder: &Path, fetched: u64) {
    use sha2::{Digest as _, Sha256};
    let head = format!("posthaste MTA-STS policy 1\ndomain: d.test\nid: 1\nfetched: {fetched}\n");
    let sum: String = Sha256::digest(format!("{head}{POLICY}")).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join("policy-d.test"), format!("{head}sha256: {sum}\n\n{POLICY}")).unwrap();
}

#[tokio::test]
async fn what_is_not_a_policy_in_the_folder_stays_and_drafts_go() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("draft-0123"), "half").unwrap();
    fs::write(folder.path().join("README"), "the operator's").unwrap();
    fs::create_dir(folder.path().join("policy-dir.test")).unwrap();
    let sts = MtaSts::open(Files::with(POLICY), folder.path()).unwrap();
    assert_eq!(names(folder.path()), ["README", "policy-dir.test"]);
    // A file that cannot be written: the policy counts all the same.
    assert_eq!(seen(&sts.policy(&Zone::with("1"), "dir.test").await).0, Some(604_800));
    assert_eq!(names(folder.path()), ["README", "policy-dir.test"]);
    assert!(MtaSts::open(Files::default(), folder.path().join("README")).is_err());
}
