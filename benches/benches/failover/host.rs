//! A host: a process that takes every message and writes its number down, until it is in trouble.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, ServerOptions, accepted, refusal,
    session::ServerSettings, wire::Mail,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;

/// What may happen to a host.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    Kill,
    Stop,
    /// It refuses every MAIL for now.
    Refuse,
}

/// A host, which ends when this is dropped.
pub(crate) struct Host {
    process: Process,
    address: SocketAddr,
    path: PathBuf,
}

impl Host {
    /// Starts a host that writes into this file.
    pub(crate) fn start(path: &Path) -> Self {
        let process = Process::start(&format!("127.0.0.1:0 {}", path.display()));
        Self { address: process.address(), process, path: path.to_owned() }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn suffer(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill => self.signal(Signal::KILL),
            Trouble::Stop => self.signal(Signal::STOP),
            Trouble::Refuse => self.process.say("refuse"),
        }
    }

    pub(crate) fn recover(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill => self.process = Process::start(&format!("{} {}", self.address, self.path.display())),
            Trouble::Stop => self.signal(Signal::CONT),
            Trouble::Refuse => self.process.say("take"),
        }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(id, signal).expect("our own process");
    }
}

#[derive(Clone)]
struct Ledger {
    file: Arc<File>,
    refuses: Arc<AtomicBool>,
}

impl Handler for Ledger {
    async fn mail(&mut self, _: &Context, _: &Mail) -> Result<(), Refusal> {
        if self.refuses.load(Relaxed) { Err(refusal!("451 4.3.2 Not now")) } else { Ok(()) }
    }

    async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(1 << 20).await?;
        let text = String::from_utf8_lossy(&content);
        let number = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
        (&*self.file).write_all(format!("{number}\n").as_bytes())?;
        Ok(accepted!("250 2.0.0 Written down"))
    }
}

/// Serves at an address, and writes into a file.
pub(crate) fn main(name: &str) {
    let (address, path) = name.split_once(' ').expect("an address and a file");
    let file = OpenOptions::new().append(true).create(true).open(path).expect("a file");
    let ledger = Ledger { file: Arc::new(file), refuses: Arc::default() };
    let refuses = Arc::clone(&ledger.refuses);
    // Ends this process when its parent has ended.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            refuses.store(line == "refuse", Relaxed);
        }
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let settings = ServerSettings::new("mx.test".parse().expect("a name"));
        let listener = Listener::bind(address, settings).await.expect("a port");
        println!("{}", listener.local_address().expect("an address"));
        let server = Server::new(move |_| std::future::ready(Ok(ledger.clone())));
        server.with_options(ServerOptions::default()).listen(listener).serve().await;
    });
}
