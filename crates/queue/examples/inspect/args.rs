//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use posthaste_queue::{MessageId, Owner, RoutingKey};

/// Inspects the folder of a queue that no process has open.
///
/// `list`, `show` and `verify` change nothing in the folder, and need no right to write there.
/// `repair` deletes nothing. All of them refuse while a process has the queue open: stop that one
/// first, or copy the folder.
#[derive(Debug, Parser)]
#[command(
    name = "inspect",
    after_help = "When something is wrong:\n  \
                  inspect verify /var/spool/posthaste             what is it?\n  \
                  inspect repair /var/spool/posthaste --dry-run   what would be done about it?\n  \
                  inspect repair /var/spool/posthaste             do it\n\n\
                  Exit codes: 0 all is well; 1 something was found or is left, or `show` found no message, or a \
                  damaged body; 2 the command line is wrong, or the folder could not be read."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One line for each message, by id, and a total.
    #[command(after_help = "Examples:\n  inspect list /var/spool/posthaste --key example.org --due\n  \
                            inspect list /var/spool/posthaste --json | jq -r 'select(.held).id'")]
    List(List),
    /// Everything about one message.
    #[command(after_help = "Examples:\n  inspect show /var/spool/posthaste 0C5QK2M000001\n  \
                            inspect show /var/spool/posthaste 0C5QK2M000001 --body > message.eml")]
    Show(Show),
    /// Reads every byte and reports what is not as it should be. Changes nothing.
    #[command(after_help = "Example:\n  inspect verify /var/spool/posthaste && echo clean")]
    Verify(Verify),
    /// Does for each finding of `verify` what its remedy says. Deletes nothing: what is in the way
    /// goes to quarantine/.
    #[command(after_help = "Examples:\n  inspect repair /var/spool/posthaste --dry-run\n  \
                            inspect repair /var/spool/posthaste --rebuild-index")]
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Folder {
    /// The folder with the file posthaste-queue in it.
    pub(crate) folder: PathBuf,
    /// Print a line of JSON for each item, for programs.
    #[arg(long)]
    pub(crate) json: bool,
    /// The folder for a scratch file, if memory is too short. It needs about 0.5 KiB for each
    /// message, and is gone afterwards. Default: the folder for temporary files.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) at: Folder,
    /// Only messages of this owner.
    #[arg(long)]
    pub(crate) owner: Option<Owner>,
    /// Only messages with a delivery for this routing key.
    #[arg(long)]
    pub(crate) key: Option<RoutingKey>,
    /// Only messages with this text in the envelope or in the state of a delivery.
    #[arg(long, value_name = "TEXT")]
    pub(crate) containing: Option<String>,
    /// Only messages on hold.
    #[arg(long)]
    pub(crate) held: bool,
    /// Only messages that are not on hold and have a due delivery.
    #[arg(long, conflicts_with = "held")]
    pub(crate) due: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) at: Folder,
    /// The id, as in `list`.
    pub(crate) id: MessageId,
    /// Write the body as it was accepted, and nothing else. Fails if it is damaged.
    #[arg(long, conflicts_with = "json")]
    pub(crate) body: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) at: Folder,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) at: Folder,
    /// Only report what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Rebuild the index from the log, even if it is intact.
    #[arg(long)]
    pub(crate) rebuild_index: bool,
}
