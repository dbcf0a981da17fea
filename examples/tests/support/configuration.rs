//! Configuration files that a test writes.

use std::fs;
use std::path::Path;

use super::certificate;

pub(crate) fn allow(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// A new folder with this text as its `relay.toml`, and a certificate with its key.
pub(crate) fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("relay.toml"), text).expect("the folder is ours");
    allow(&folder.path().join("relay.toml"), 0o600);
    let (cert, key) = shared_certificate();
    fs::copy(cert, folder.path().join("cert.pem")).expect("the folder is ours");
    fs::copy(key, folder.path().join("key.pem")).expect("the folder is ours");
    folder
}

/// One certificate for all: making one takes a moment.
fn shared_certificate() -> (std::path::PathBuf, std::path::PathBuf) {
    static FOLDER: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = FOLDER.lock();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configurations");
    fs::create_dir_all(&folder).expect("cargo made the folder above");
    certificate(&folder)
}
