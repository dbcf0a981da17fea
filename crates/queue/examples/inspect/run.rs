//! Runs a command.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;
use posthaste_queue::log::inspect::{
    self as queue, Finding, InspectError, InspectOptions, Inspection, Repaired, Verified,
};
use posthaste_queue::{Error, RoutingKey, Search, Stats, Summary};
use serde_json::json;

use super::args::{Cli, Command, Folder, List, Repair, Show, Verify};
use super::bar::Bar;
use super::print;

/// Returns the exit code.
pub(crate) fn run(args: impl Iterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // If it cannot be written, there is no reader.
            drop(if error.use_stderr() { write!(err, "{error}") } else { write!(out, "{error}") });
            drop(out.flush());
            return u8::try_from(error.exit_code()).unwrap_or(UNREADABLE);
        }
    };
    let done = match cli.command {
        Command::List(args) => list(&args, out, err),
        Command::Show(args) => show(&args, out),
        Command::Verify(args) => verify(&args, out),
        Command::Repair(args) => repair(&args, out),
    };
    let done = done.and_then(|code| out.flush().map(|()| code).map_err(InspectError::Output));
    match done {
        Ok(code) => code,
        // The reader has closed the pipe.
        Err(InspectError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => FINE,
        Err(error) => {
            drop(writeln!(err, "inspect: {error}"));
            if matches!(error, InspectError::Message(Error::NoSuchMessage(_) | Error::Damaged { .. })) {
                FOUND
            } else {
                UNREADABLE
            }
        }
    }
}

fn list(args: &List, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, InspectError> {
    let mut inspection = open(&args.at)?;
    let stats = inspection.stats()?;
    if !args.at.json {
        say(out, print::HEADING)?;
    }
    let mut shown = Stats::default();
    let mut search = Search::default();
    search.owner = args.owner.clone();
    search.key = args.key.clone();
    search.held = if args.due { Some(false) } else { args.held.then_some(true) };
    search.containing = args.containing.clone().unwrap_or_default().into();
    let is_due = |message: &Summary| {
        let wanted = |key| args.key.as_ref().is_none_or(|wanted| wanted == key);
        message.deliveries.iter().any(|each| wanted(&each.key) && each.due_in.is_zero())
    };
    let mut after = None;
    loop {
        let page = inspection.search(&search, after, PAGE)?;
        for message in page.messages.iter().filter(|message| !args.due || is_due(message)) {
            shown.messages = shown.messages.saturating_add(1);
            shown.deliveries = shown.deliveries.saturating_add(message.deliveries.len() as u64);
            shown.held = shown.held.saturating_add(u64::from(message.held));
            shown.bytes = shown.bytes.saturating_add(message.body_len);
            shown.oldest = shown.oldest.max(Some(message.age));
            let key = args.key.as_ref().map(RoutingKey::as_str);
            let line = if args.at.json { print::json(message).to_string() } else { print::line(message, key) };
            say(out, &line)?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let Stats { messages, deliveries, held, bytes, oldest, .. } = shown;
    let oldest = oldest.unwrap_or_default();
    if args.at.json {
        let total = json!({
            "messages": messages, "deliveries": deliveries, "held": held, "size": bytes,
            "oldest_seconds": oldest.as_secs(), "in_queue": stats.messages,
        });
        say(out, &json!({ "total": total }).to_string())?;
    } else {
        let (of, bytes, oldest) = (stats.messages, print::octets(bytes), print::time(oldest));
        say(
            out,
            &format!(
                "{messages} of {of} messages, {deliveries} deliveries, {held} held, {bytes} bytes, oldest {oldest}"
            ),
        )?;
    }
    if stats.damaged > 0 {
        let folder = args.at.folder.display();
        let told = writeln!(err, "inspect: something is damaged, and there may be more; run: inspect verify {folder}");
        told.map_err(InspectError::Output)?;
    }
    Ok(FINE)
}

fn show(args: &Show, out: &mut dyn Write) -> Result<u8, InspectError> {
    let inspection = open(&args.at)?;
    if args.body {
        inspection.body(args.id, out)?;
        return Ok(FINE);
    }
    let (message, place) = inspection.show(args.id)?;
    let text = if args.at.json {
        format!("{}\n", print::whole_json(&message, &place))
    } else {
        print::whole(&message, &place)
    };
    out.write_all(text.as_bytes()).map_err(InspectError::Output)?;
    Ok(FINE)
}

fn verify(args: &Verify, out: &mut dyn Write) -> Result<u8, InspectError> {
    let options = options(&args.at);
    let mut told = Ok(());
    let bar = Bar::new(&options.progress);
    let verified = queue::verify(&args.at.folder, &options, &mut |finding| {
        if told.is_ok() {
            told = tell(&args.at, out, &finding, "repair");
        }
    })?;
    drop(bar);
    told?;
    let Verified { messages, segments, records, findings, settled, bytes, log, .. } = verified;
    if args.at.json {
        let total = json!({
            "messages": messages, "segments": segments, "records": records, "log": log, "bodies": bytes,
            "findings": findings, "settled": settled,
        });
        say(out, &json!({ "total": total }).to_string())?;
    } else {
        let (log, bytes) = (print::octets(log), print::octets(bytes));
        say(
            out,
            &format!(
                "{messages} messages with {bytes} bytes, {segments} segments with {log} bytes and {records} records: \
                 {findings} findings, {settled} settled"
            ),
        )?;
        if findings > 0 {
            say(out, &format!("next: inspect repair {} --dry-run", args.at.folder.display()))?;
        }
    }
    Ok(if findings == 0 { FINE } else { FOUND })
}

fn repair(args: &Repair, out: &mut dyn Write) -> Result<u8, InspectError> {
    let options = options(&args.at);
    let mut how = queue::Repair::default();
    (how.dry_run, how.rebuild_index) = (args.dry_run, args.rebuild_index);
    let word = if args.dry_run { "would be" } else { "done" };
    let mut told = Ok(());
    let bar = Bar::new(&options.progress);
    let repaired = queue::repair(&args.at.folder, &options, how, &mut |finding| {
        if told.is_ok() {
            told = tell(&args.at, out, finding, word);
        }
    })?;
    drop(bar);
    told?;
    let Repaired { repaired, left, index_rebuilt, .. } = repaired;
    if args.at.json {
        let total = json!({
            "repaired": repaired, "left": left, "index_rebuilt": index_rebuilt, "dry_run": args.dry_run,
        });
        say(out, &json!({ "total": total }).to_string())?;
    } else {
        let index = if index_rebuilt { ", the index rebuilt" } else { "" };
        let dry = if args.dry_run { "nothing was changed; would be: " } else { "" };
        say(out, &format!("{dry}{repaired} findings repaired, {left} left{index}"))?;
    }
    let is_left = left > 0 || (args.dry_run && repaired > 0);
    Ok(if is_left { FOUND } else { FINE })
}

fn open(at: &Folder) -> Result<Inspection, InspectError> {
    let options = options(at);
    let _bar = Bar::new(&options.progress);
    Inspection::open(&at.folder, &options)
}

fn options(at: &Folder) -> InspectOptions {
    let mut options = InspectOptions::default();
    options.scratch = at.scratch.clone();
    options
}

fn tell(at: &Folder, out: &mut dyn Write, finding: &Finding, how: &str) -> Result<(), InspectError> {
    let line = if at.json { print::finding_json(finding).to_string() } else { print::finding(finding, how) };
    say(out, &line)
}

fn say(out: &mut dyn Write, line: &str) -> Result<(), InspectError> {
    writeln!(out, "{line}").map_err(InspectError::Output)
}

const FINE: u8 = 0;
const FOUND: u8 = 1;
const UNREADABLE: u8 = 2;
/// Messages read at once.
const PAGE: usize = 256;
