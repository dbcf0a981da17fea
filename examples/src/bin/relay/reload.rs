//! A configuration that is read again while the relay runs. With a mistake in it nothing changes.
//! Without one everything does, but for what only a new start changes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use posthaste::client::{Published, Resolver};
use posthaste::queue::Queue;
use posthaste::relay::{Relay, RelayOptions};
use posthaste::server::{Context, Refusal, Service, session::ServerSettings, tls::Certificates};
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

use crate::{
    config::{Config, Fixed, Guards, Written, is_fixed},
    limits, secret,
};

/// The service with the checks in front of it, both as they are now. A connection keeps those that
/// it began with.
pub(crate) struct Live<V> {
    now: ArcSwap<V>,
    /// Of each listener: its own settings, by which it is known, and those that count.
    settings: ArcSwap<Vec<(Arc<ServerSettings>, Arc<ServerSettings>)>>,
}

impl<V> Live<V> {
    pub(crate) fn new(now: V, listeners: Vec<Arc<ServerSettings>>) -> Self {
        let settings = listeners.into_iter().map(|own| (Arc::clone(&own), own)).collect();
        Self { now: ArcSwap::from_pointee(now), settings: ArcSwap::from_pointee(settings) }
    }

    fn exchange(&self, now: V, listeners: impl Iterator<Item = ServerSettings>) {
        let own = self.settings.load_full();
        let settings = own.iter().zip(listeners).map(|((own, _), now)| (Arc::clone(own), Arc::new(now))).collect();
        self.settings.store(Arc::new(settings));
        self.now.store(Arc::new(now));
    }
}

impl<V: Service> Service for Live<V> {
    type Handler = V::Handler;

    fn settings(&self, cx: &Context) -> Arc<ServerSettings> {
        let settings = self.settings.load();
        let found = settings.iter().find(|(own, _)| Arc::ptr_eq(own, &cx.settings));
        found.map_or_else(|| Arc::clone(&cx.settings), |(_, now)| Arc::clone(now))
    }

    async fn connect(&self, cx: &Context) -> Result<V::Handler, Refusal> {
        self.now.load_full().connect(cx).await
    }
}

/// What stays of the configuration that the relay has been started with.
#[derive(Debug)]
pub(crate) struct Kept {
    /// `None`: there is no file.
    pub(crate) path: Option<PathBuf>,
    pub(crate) fixed: Fixed,
    pub(crate) queue: PathBuf,
    pub(crate) published: Published,
    /// Those of the listeners.
    pub(crate) certificates: Option<Certificates>,
    pub(crate) descriptors: Option<u64>,
}

/// Reads the configuration again at each SIGHUP. A signal that comes in the meantime counts once.
pub(crate) async fn run<Q: Queue, R: Resolver, V: Service>(
    mut hangup: Signal,
    relay: Relay<Q, R>,
    live: Arc<Live<V>>,
    around: impl Fn(Guards) -> V,
    kept: Kept,
    mut written: Written,
) {
    let kept = Arc::new(kept);
    while hangup.recv().await.is_some() {
        if kept.path.is_none() {
            info!("SIGHUP reads the configuration again, and there is none; name one with --config at the next start");
            continue;
        }
        let kept = Arc::clone(&kept);
        // Not on a thread that carries mail: the files may be on a slow disk.
        let read = tokio::task::spawn_blocking(move || Next::read(&kept).map(|next| (next, kept))).await;
        let exchanged = match read {
            Ok(Ok((next, kept))) => exchange(next, &kept, &relay, &live, &around, &mut written),
            Ok(Err(problems)) => Err(problems),
            Err(error) => Err(vec![error.to_string()]),
        };
        if let Err(problems) = exchanged {
            let (warnings, mistakes): (Vec<_>, Vec<_>) = problems.iter().partition(|line| line.contains(": warning: "));
            warnings.iter().for_each(|warning| warn!("{warning}"));
            mistakes.iter().for_each(|mistake| error!("{mistake}"));
            let mistakes = mistakes.len();
            error!(
                mistakes,
                "configuration not exchanged, all of the one in use stays; correct it, then send SIGHUP again"
            );
        }
    }
}

/// A configuration that was read and checked.
struct Next {
    config: Config,
    options: RelayOptions,
}

impl Next {
    /// Blocks. Returns a line for each mistake.
    fn read(kept: &Kept) -> Result<Self, Vec<String>> {
        let path = kept.path.as_deref().unwrap_or(Path::new(""));
        let mut config = Config::load_again(path, &kept.fixed).map_err(|found| found.into_lines())?;
        limits::fit(&mut config, kept.descriptors);
        let mut options = config.relay.clone();
        options.delivery.published = kept.published.clone();
        if !config.accounts.is_empty() {
            let accounts = std::mem::take(&mut config.accounts);
            let secret = secret::load(&kept.queue).map_err(|error| vec![error.to_string()])?;
            options.accounts = Some(accounts.keys(secret).map_err(|error| vec![error.to_string()])?);
        }
        Ok(Self { config, options })
    }
}

/// Lets a configuration count that was checked.
fn exchange<Q: Queue, R: Resolver, V: Service>(
    next: Next,
    kept: &Kept,
    relay: &Relay<Q, R>,
    live: &Live<V>,
    around: &impl Fn(Guards) -> V,
    written: &mut Written,
) -> Result<(), Vec<String>> {
    let Next { config, options } = next;
    relay.reload(options).map_err(|error| vec![error.to_string()])?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if let (Some(new), Some(running)) = (&config.certificates, &kept.certificates)
        && let Err(error) = new.exchange(running)
    {
        error!("certificates not exchanged, those in use stay: {error}; then send SIGHUP again");
    }
    live.exchange(around(config.guards), config.listeners.into_iter().map(|listener| listener.settings));
    let mut changed = written.changed(&config.written);
    changed.retain(|key| !is_fixed(key));
    *written = config.written;
    let changed = if changed.is_empty() { "no key".to_owned() } else { changed.join(", ") };
    if config.differences.is_empty() {
        info!(changed, "configuration exchanged; the files that it names were read again");
        return Ok(());
    }
    for difference in &config.differences {
        warn!("{}", difference.line);
    }
    let restart = config.differences.iter().map(|difference| &*difference.key).collect::<Vec<_>>().join(", ");
    warn!(changed, restart, "configuration exchanged, but for the keys that need a restart");
    Ok(())
}
