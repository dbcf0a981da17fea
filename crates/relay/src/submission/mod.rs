//! The rules for submitted mail (RFC 6409): the addresses that a user may send from, and the field
//! that names a campaign.

mod header;
mod mailboxes;
mod senders;
mod tag;

use posthaste_server::{Context, Refusal, refusal, wire::Mailbox};

use crate::{RelayOptions, hooks::Hooks};
use header::fields;
use mailboxes::mailboxes;

pub use senders::{SenderRule, SenderTable, Senders};
pub use tag::{TagField, TagFieldError};

/// The rules for submitted mail.
///
/// ```
/// use posthaste_relay::{RelayOptions, SenderRule};
/// let mut options = RelayOptions::new("relay.example.org".parse()?);
/// // Users send from their own address, and one of them from all of a domain too.
/// options.submission.senders.others = SenderRule::Own;
/// options.submission.senders.push("jo@example.org", ["example.net".parse()?].into_iter().collect());
/// options.submission.tag_field = Some("X-Campaign".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SubmissionOptions {
    /// The addresses that clients that have logged in may send from. Default: any.
    ///
    /// For a user that may not send from all, the reverse-path is checked at MAIL, and the header
    /// at the end of the content: 550 5.7.1 (RFC 6409 section 6.1). The null reverse-path is taken.
    /// Each mailbox in From must be one that the user may use, and so must that in Sender. A
    /// message without From is refused too. So is one with one of these fields twice, or with one
    /// that cannot be read. Resent-From does not count.
    pub senders: SenderTable,
    /// `true`: where the Sender field has an address that the user may use, From may have any, as
    /// for a secretary (RFC 5322 section 3.6.2). Readers are shown From. Default `false`.
    pub sender_suffices: bool,
    /// The field of the header in which clients that the policy trusts name the campaign of a
    /// message. Default `None`.
    ///
    /// The relay removes the field before it signs, stores and sends the message. Its value becomes
    /// the [`Owner`](posthaste_queue::Owner) in the queue, in place of the user or the network:
    /// owners take turns, so that one campaign does not delay another. In messages of other
    /// clients the field has no meaning, and stays.
    ///
    /// The value has at most 255 octets of UTF-8; folding is undone, and an empty one counts as
    /// none. A message with several such fields, or another value, is refused with 554 5.6.0.
    pub tag_field: Option<TagField>,
}

/// The most octets of a header that is read for these rules. Beyond it: 552 5.3.4.
pub(crate) const MAX_READ: usize = crate::opening::MAX_HELD;

/// The most mailboxes in From, so that one message asks few questions. Beyond it: 550 5.7.1.
const MAX_AUTHORS: usize = 100;

/// The parts of a header that are read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reads {
    /// From and Sender.
    senders: bool,
    /// The field that names the campaign.
    tag: bool,
}

impl Reads {
    /// What is read in the messages of a client.
    pub(crate) fn of(options: &RelayOptions, hooks: &Hooks, cx: &Context, trusted: bool) -> Self {
        Self { senders: hooks.limits_senders(options, cx), tag: trusted && options.submission.tag_field.is_some() }
    }

    pub(crate) const fn any(self) -> bool {
        self.senders || self.tag
    }
}

/// Checks the reverse-path of a client that has logged in.
///
/// # Errors
/// The refusal of MAIL.
pub(crate) async fn check_sender(
    options: &RelayOptions,
    hooks: &Hooks,
    cx: &Context,
    sender: &Mailbox,
) -> Result<(), Refusal> {
    match hooks.may_use(options, cx, sender).await? {
        true => Ok(()),
        false => Err(refusal!("550 5.7.1 You may not send from <{}>; use an address of your own", sender)),
    }
}

/// Checks From and Sender, and takes the tag out of the header. `None`: there is no tag.
///
/// # Errors
/// The refusal of the message.
pub(crate) async fn read(
    options: &RelayOptions,
    hooks: &Hooks,
    cx: &Context,
    reads: Reads,
    header: &mut bytes::BytesMut,
) -> Result<Option<String>, Refusal> {
    if reads.senders {
        check_header(options, hooks, cx, header).await?;
    }
    match options.submission.tag_field.as_ref().filter(|_| reads.tag) {
        Some(field) => field.take(header),
        None => Ok(None),
    }
}

/// The refusal of a header that has more than [`MAX_READ`] octets.
pub(crate) fn too_long() -> Refusal {
    refusal!("552 5.3.4 The header section has more than {} octets", MAX_READ)
}

async fn check_header(options: &RelayOptions, hooks: &Hooks, cx: &Context, header: &[u8]) -> Result<(), Refusal> {
    let from = one(header, "From")?;
    if let Some(senders) = one(header, "Sender")? {
        let [sender] = &senders[..] else {
            return Err(refusal!("550 5.7.1 The Sender field has {} addresses, write one", senders.len()));
        };
        may_write(options, hooks, cx, "Sender", sender).await?;
        if options.submission.sender_suffices {
            return Ok(());
        }
    }
    let Some(authors) = from.filter(|authors| !authors.is_empty()) else {
        return Err(refusal!("550 5.7.1 The message has no From field with an address, add your own"));
    };
    if authors.len() > MAX_AUTHORS {
        return Err(refusal!("550 5.7.1 The From field has more than {} addresses", MAX_AUTHORS));
    }
    for author in &authors {
        may_write(options, hooks, cx, "From", author).await?;
    }
    Ok(())
}

async fn may_write(
    options: &RelayOptions,
    hooks: &Hooks,
    cx: &Context,
    field: &str,
    author: &Mailbox,
) -> Result<(), Refusal> {
    match hooks.may_use(options, cx, author).await? {
        true => Ok(()),
        false => Err(refusal!(
            "550 5.7.1 You may not send from <{}> in the {} field; use an address of your own",
            author,
            field
        )),
    }
}

/// The mailboxes of the one field of a name. `None`: there is no such field.
fn one(header: &[u8], name: &str) -> Result<Option<Vec<Mailbox>>, Refusal> {
    let mut found = fields(header).filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    let Some(field) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(refusal!("550 5.7.1 The message has two {} fields, send one", name));
    }
    match mailboxes(field.value) {
        Some(mailboxes) => Ok(Some(mailboxes)),
        None => Err(refusal!("550 5.7.1 The {} field cannot be read; write addresses such as jo@example.org", name)),
    }
}
