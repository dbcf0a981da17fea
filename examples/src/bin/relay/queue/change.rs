//! Changes of one message, or of all that a filter finds.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::filter::{self, Wanted, id_path};
use crate::{
    Failure,
    api::forms::{Action, Change, Changed, Filter, Page},
    ask::Ask,
    print,
};

/// The messages: by their ids, by conditions, or all.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// Ids of messages, as the log and `list` print them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    wanted: Wanted,
    /// All messages.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    chosen: Chosen,
    /// Only say how many messages it would be.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before many messages are changed.
    #[arg(long)]
    yes: bool,
}

/// What is chosen.
pub(super) enum Choice<'c> {
    Ids(&'c [String]),
    Filter(Box<Filter>),
}

impl Chosen {
    pub(super) fn choice(&self) -> Result<Choice<'_>, Failure> {
        let wrong = |text: &str| Err(Failure::Configuration(format!("relay: {text}")));
        match (self.ids.is_empty(), self.wanted.is_all(), self.all) {
            (false, true, _) => {
                self.ids.iter().try_for_each(|id| id_path(id).map(drop))?;
                Ok(Choice::Ids(&self.ids))
            }
            (false, false, _) => wrong("ids and conditions exclude each other; write one of them"),
            (true, true, false) => wrong("which messages? write their ids, conditions such as --recipient, or --all"),
            (true, false, true) => wrong("--all and conditions exclude each other; write one of them"),
            (true, ..) => Ok(Choice::Filter(Box::new(self.wanted.filter()?))),
        }
    }
}

/// The number of messages that a filter finds.
async fn count(ask: &Ask<'_>, filter: &Filter) -> Result<u64, Failure> {
    let mut filter = Filter { limit: Some(1_000), ..filter.clone() };
    let mut count = 0_u64;
    loop {
        let page: Page = ask.get(&filter::path("/messages", &filter)?).await?;
        count = count.saturating_add(u64::try_from(page.messages.len()).unwrap_or(u64::MAX));
        filter.after = page.next;
        if filter.after.is_none() {
            return Ok(count);
        }
    }
}

impl Options {
    pub(super) async fn run(
        &self,
        ask: &Ask<'_>,
        action: Action,
        rule: Option<&str>,
        json: bool,
    ) -> Result<(), Failure> {
        let rule = rule.map(str::to_owned);
        let filter = match self.chosen.choice()? {
            Choice::Ids(ids) => {
                if self.dry_run {
                    return tell(action, ids.len() as u64, json);
                }
                let mut all = Changed::default();
                for ids in ids.chunks(1_000) {
                    let change =
                        Change { action, rule: rule.clone(), ids: Some(ids.to_vec()), filter: Filter::default() };
                    add(&mut all, &ask.post("/messages", &change).await?);
                }
                return end(action, &all, json);
            }
            Choice::Filter(filter) => *filter,
        };
        let count = count(ask, &filter).await?;
        if self.dry_run {
            return tell(action, count, json);
        }
        if count > 1 && !self.yes && !is_wanted(action, count)? {
            return print("nothing was changed\n");
        }
        let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} messages").map_err(Failure::run)?;
        let bar = ProgressBar::new(count).with_style(style);
        let (mut all, mut filter) = (Changed::default(), Filter { limit: Some(1_000), ..filter });
        loop {
            let change = Change { action, rule: rule.clone(), ids: None, filter: filter.clone() };
            let changed: Changed = ask.post("/messages", &change).await?;
            add(&mut all, &changed);
            bar.inc(changed.changed.saturating_add(changed.same).saturating_add(changed.gone));
            filter.after = changed.next;
            if filter.after.is_none() {
                break;
            }
        }
        bar.finish_and_clear();
        end(action, &all, json)
    }
}

fn add(all: &mut Changed, more: &Changed) {
    all.changed = all.changed.saturating_add(more.changed);
    all.same = all.same.saturating_add(more.same);
    all.gone = all.gone.saturating_add(more.gone);
}

const fn verb(action: Action) -> &'static str {
    match action {
        Action::Hold => "hold",
        Action::Release => "release",
        Action::Retry => "try again",
        Action::Reroute => "reroute",
        Action::Remove => "remove",
    }
}

fn tell(action: Action, count: u64, json: bool) -> Result<(), Failure> {
    match json {
        true => print(&format!("{}\n", json!({ "would_change": count }))),
        false => print(&format!("would {} {count} messages\n", verb(action))),
    }
}

fn is_wanted(action: Action, count: u64) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let text = format!("relay: this would {} {count} messages; write --yes if that is meant", verb(action));
        return Err(Failure::Configuration(text));
    }
    eprint!("{} {count} messages? [y/N] ", verb(action));
    io::stderr().flush().map_err(Failure::run)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Failure::run)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn end(action: Action, all: &Changed, json: bool) -> Result<(), Failure> {
    if json {
        print(&format!("{}\n", json!({ "changed": all.changed, "same": all.same, "gone": all.gone })))?;
    } else {
        let same = if all.same > 0 { format!(", {} were so already", all.same) } else { String::new() };
        let gone = if all.gone > 0 { format!(", {} are not in the queue", all.gone) } else { String::new() };
        print(&format!("{}: {} messages{same}{gone}\n", verb(action), all.changed))?;
    }
    match (all.changed, all.same, all.gone) {
        (0, 0, gone) if gone > 0 => Err(Failure::NotThere),
        _ => Ok(()),
    }
}
