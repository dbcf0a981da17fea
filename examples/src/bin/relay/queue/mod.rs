//! `relay queue`: the mail that waits, for people and programs.

mod change;
mod export;
mod filter;
mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    Failure,
    api::forms::{Message, Overview, Page},
    ask::Ask,
    config::Config,
    print,
};
use filter::Wanted;
use table::{Table, age, clean, octets};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The configuration that the relay runs with.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sum up what waits, by destination. This is what `relay queue` alone does.
    Summary,
    /// List messages, the oldest first.
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// Print at most this number of messages.
        #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
        limit: usize,
    },
    /// Show one message: its recipients, what became of each so far, and when it is tried next.
    Show {
        /// Its id, as the log and `list` print it.
        id: String,
        /// Print its header as well.
        #[arg(long)]
        header: bool,
        /// Print its whole content as well, as the next hop gets it.
        #[arg(long, conflicts_with = "header")]
        content: bool,
    },
    /// Keep messages from being tried until they are released. They do not expire meanwhile.
    Hold(change::Options),
    /// End the hold of messages.
    Release(change::Options),
    /// Try messages again now. What a next hop has asked for stays: while it rests, its mail waits.
    Retry(change::Options),
    /// Give messages the route of a rule, whatever its conditions are. They keep it when the
    /// configuration changes.
    Reroute {
        /// The name of the route, as in the configuration.
        #[arg(long, value_name = "NAME", required_unless_present = "default")]
        rule: Option<String>,
        /// Take the route of each recipient's domain.
        #[arg(long, conflicts_with = "rule")]
        default: bool,
        #[command(flatten)]
        change: change::Options,
    },
    /// Remove messages. Their senders are not told.
    Remove(change::Options),
    /// Write messages to files, ID.eml each. They stay in the queue.
    Export {
        /// The folder for the files. It is made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        #[command(flatten)]
        change: change::Chosen,
    },
}

pub(crate) async fn run(options: &Options, config: &Config) -> Result<(), Failure> {
    use crate::api::forms::Action;
    let (ask, json) = (Ask(config), options.json);
    match options.what.as_ref().unwrap_or(&What::Summary) {
        What::Summary => summary(&ask, json).await,
        What::List { wanted, limit } => list(&ask, wanted, *limit, json).await,
        What::Show { id, header, content } => show(&ask, id, *header, *content, json).await,
        What::Hold(change) => change.run(&ask, Action::Hold, None, json).await,
        What::Release(change) => change.run(&ask, Action::Release, None, json).await,
        What::Retry(change) => change.run(&ask, Action::Retry, None, json).await,
        What::Reroute { rule, default: _, change } => change.run(&ask, Action::Reroute, rule.as_deref(), json).await,
        What::Remove(change) => change.run(&ask, Action::Remove, None, json).await,
        What::Export { to, change } => export::run(&ask, to, change, json).await,
    }
}

async fn summary(ask: &Ask<'_>, json: bool) -> Result<(), Failure> {
    if json {
        return print(&ask.text("/destinations").await?).and_then(|()| print("\n"));
    }
    let overview: Overview = ask.get("/destinations").await?;
    let mut table =
        Table::new(&["RECIPIENTS", "DUE", "TRYING", "WAITING", "HELD", "NEXT", "OLDEST", "DESTINATION", "WHY"]);
    for one in &overview.destinations {
        let name = match &one.rule {
            Some(rule) => format!("{} ({rule})", one.domain),
            None => one.domain.clone(),
        };
        let why = one.reasons.first().map_or_else(String::new, |reason| reason.example.to_string());
        let counts = [one.recipients, one.due, one.trying, one.waiting, one.held].map(|count| count.to_string());
        let next = one.next.map_or_else(|| "-".to_owned(), age);
        table.row(counts.into_iter().chain([next, age(one.oldest), name, why]));
    }
    let others = match overview.others {
        0 => String::new(),
        others => format!("and {others} recipients of further destinations\n"),
    };
    print(&format!("{}{others}{} messages in all\n", table.text(), overview.messages))
}

async fn list(ask: &Ask<'_>, wanted: &Wanted, limit: usize, json: bool) -> Result<(), Failure> {
    let mut wanted = wanted.filter()?;
    let mut left = limit;
    let mut table = Table::new(&["ID", "AGE", "SIZE", "STATE", "OWNER", "SENDER", "RECIPIENTS", "WHY"]);
    while left > 0 {
        wanted.limit = Some(left.min(1_000));
        let page: Page = ask.get(&filter::path("/messages", &wanted)?).await?;
        left = left.saturating_sub(page.messages.len());
        for message in &page.messages {
            if json {
                print(&format!("{}\n", serde_json::to_string(message).map_err(Failure::run)?))?;
            } else {
                table.row(row(message));
            }
        }
        wanted.after = page.next;
        if wanted.after.is_none() {
            break;
        }
    }
    let more = if left == 0 && wanted.after.is_some() { "there may be more: raise --limit\n" } else { "" };
    if json { Ok(()) } else { print(&format!("{}{more}", table.text())) }
}

fn row(message: &Message) -> [String; 8] {
    let first = message.recipients.first();
    let recipients = match (first, message.recipients.len()) {
        (None, _) => "-".to_owned(),
        (Some(one), 1) => one.address.clone(),
        (Some(one), count) => format!("{} and {} more", one.address, count - 1),
    };
    let why = message.recipients.iter().find_map(|recipient| recipient.last.as_ref());
    let why = message.damage.clone().or_else(|| why.map(|last| last.why.to_string()));
    [
        message.id.clone(),
        age(message.age),
        octets(message.octets),
        state(message),
        message.owner.clone(),
        message.sender.clone().unwrap_or_else(|| "?".to_owned()),
        recipients,
        why.unwrap_or_default(),
    ]
}

/// The state of a message: of its recipient that is tried first.
fn state(message: &Message) -> String {
    if message.held {
        return "held".to_owned();
    }
    let next = message.recipients.iter().filter_map(|recipient| recipient.due_in).min();
    let active = message.recipients.iter().find(|recipient| recipient.due_in.is_none());
    match (active, next) {
        (Some(recipient), _) => recipient.state.clone(),
        (None, Some(next)) => format!("in {}", age(next)),
        (None, None) => "-".to_owned(),
    }
}

async fn show(ask: &Ask<'_>, id: &str, header: bool, content: bool, json: bool) -> Result<(), Failure> {
    let path = filter::id_path(id)?;
    let message: Message = ask.get(&path).await?;
    let text = match json {
        true => serde_json::to_string_pretty(&message).map_err(Failure::run)? + "\n",
        false => story(&message),
    };
    print(&text)?;
    if header || content {
        print("\n")?;
        export::content(ask, &path, header).await?;
    }
    Ok(())
}

/// All that is known of a message.
fn story(message: &Message) -> String {
    let unknown = || "cannot be read".to_owned();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<11} {}\n", clean(value)));
    line("id", &message.id);
    line("sender", &message.sender.clone().unwrap_or_else(unknown));
    line("owner", &message.owner);
    line("client", message.client.as_deref().unwrap_or("the application, or the relay itself"));
    line("accepted", &format!("{} ago", age(message.age)));
    line("size", &octets(message.octets));
    line("priority", &message.priority.to_string());
    line("state", &state(message));
    if let Some(damage) = &message.damage {
        line("damage", damage);
    }
    for recipient in &message.recipients {
        line("", "");
        line("recipient", &recipient.address);
        let route = recipient
            .rule
            .as_ref()
            .map_or_else(|| format!("of {}", recipient.domain), |rule| format!("of rule {rule}"));
        line("  route", &route);
        let next = recipient
            .due_in
            .map_or_else(|| recipient.state.clone(), |left| format!("waits, next attempt in {}", age(left)));
        line("  state", &next);
        line("  attempts", &recipient.attempts.to_string());
        if let Some(last) = &recipient.last {
            let at = last.at.and_then(|at| jiff::Timestamp::from_second(i64::try_from(at).ok()?).ok());
            line("  tried", &at.map_or_else(|| "at an unknown time".to_owned(), |at| at.to_string()));
            line("  outcome", &format!("{} {}", last.why.status, last.why));
        }
    }
    text
}
