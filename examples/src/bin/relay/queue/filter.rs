//! Which messages a command is about.

use clap::Args;

use crate::{Failure, api::forms::Filter};

/// Conditions. A message has to meet all that are given.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Wanted {
    /// From this address, or from this domain: `jo@example.org`, `example.org`, `*.example.org`,
    /// `<>` for reports.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// With a recipient of this address or domain.
    #[arg(long, visible_alias = "domain", value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Of this user or campaign.
    #[arg(long, visible_alias = "tag", value_name = "NAME")]
    owner: Option<String>,
    /// On hold (`--held`), or not (`--held=false`).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    held: Option<bool>,
    /// With a recipient in this state: `due`, `waiting` for a later attempt, `trying`, or
    /// `reporting` its end to the sender.
    #[arg(long, value_name = "STATE", value_parser = ["due", "waiting", "trying", "reporting"])]
    state: Option<String>,
    /// Accepted at least this long ago, such as `90m` or `2d`.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    older: Option<u64>,
    /// Accepted at most this long ago.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    newer: Option<u64>,
    /// With a recipient whose last attempt ended with these words: of the reply, its code, or the
    /// name of the host.
    #[arg(long, value_name = "WORDS")]
    reply: Option<String>,
    /// With a record that cannot be read.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    damaged: Option<bool>,
}

fn seconds(text: &str) -> Result<u64, String> {
    let time: Result<jiff::SignedDuration, _> = text.parse();
    let seconds = time.ok().and_then(|time| u64::try_from(time.as_secs()).ok());
    seconds.ok_or_else(|| "a time such as 90m, 12h or 2d was expected".to_owned())
}

impl Wanted {
    pub(super) fn filter(&self) -> Result<Filter, Failure> {
        let wanted = self.clone();
        let filter = Filter {
            sender: wanted.sender,
            recipient: wanted.recipient,
            owner: wanted.owner,
            held: wanted.held,
            state: wanted.state,
            older: wanted.older,
            newer: wanted.newer,
            reply: wanted.reply,
            damaged: wanted.damaged,
            after: None,
            limit: None,
        };
        // It says what is wrong before the relay is asked.
        filter.read().map_err(Failure::Configuration)?;
        Ok(filter)
    }

    /// Returns `true` if there is no condition.
    pub(super) fn is_all(&self) -> bool {
        let Self { sender, recipient, owner, held, state, older, newer, reply, damaged } = self;
        [sender, recipient, owner, state, reply].iter().all(|text| text.is_none())
            && held.is_none()
            && damaged.is_none()
            && older.is_none()
            && newer.is_none()
    }
}

/// A path with a filter as its query.
pub(super) fn path(path: &str, filter: &Filter) -> Result<String, Failure> {
    let query = serde_urlencoded::to_string(filter).map_err(Failure::run)?;
    Ok(format!("{path}?{query}"))
}

/// The path of a message.
pub(super) fn id_path(id: &str) -> Result<String, Failure> {
    let parsed: Result<posthaste::queue::MessageId, _> = id.parse();
    let id = parsed.map_err(|error| Failure::Configuration(format!("relay: {id:?}: {error}")))?;
    Ok(format!("/messages/{id}"))
}
