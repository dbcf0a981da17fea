//! Configuration files that a test writes.

use std::fs;
use std::path::Path;

use super::certificate;

pub(crate) fn allow(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Keys that sign, and one that is too short.
pub(crate) const DKIM_KEYS: [(&str, &[u8]); 3] = [
    ("rsa.pem", include_bytes!("../../../crates/auth/tests/keys/rsa-2048.pem")),
    ("ed25519.pem", include_bytes!("../../../crates/auth/tests/keys/ed25519.pem")),
    ("rsa-1024.pem", include_bytes!("../../../crates/auth/tests/keys/rsa-1024.pem")),
];

/// A new folder with this text as its `relay.toml`, and a certificate with its key, and keys for
/// DKIM.
pub(crate) fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("relay.toml"), text).expect("the folder is ours");
    allow(&folder.path().join("relay.toml"), 0o600);
    let (cert, key) = shared_certificate();
    fs::copy(cert, folder.path().join("cert.pem")).expect("the folder is ours");
    fs::copy(key, folder.path().join("key.pem")).expect("the folder is ours");
    for (name, key) in DKIM_KEYS {
        fs::write(folder.path().join(name), key).expect("the folder is ours");
        allow(&folder.path().join(name), 0o600);
    }
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
