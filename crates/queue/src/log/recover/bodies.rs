//! Checks that each message has its body, and each file in `bodies/` its message.

use std::collections::BTreeSet;

use super::{Failure, Opening};
use crate::MessageId;
use crate::index::{Altered, Message};
use crate::log::disk::names;
use crate::log::format::place::Stored;
use crate::log::options::OpenError;

impl Opening<'_> {
    /// Lists the files in `bodies/`. An id is given out after a record that takes it is on stable
    /// storage. So a body with an id that no record took shows that a part of the log is lost.
    pub(super) fn list_bodies(&mut self) -> Result<BTreeSet<MessageId>, OpenError> {
        let bodies = names::bodies(self.dir);
        let mut files = BTreeSet::new();
        for name in self.vfs.list(&bodies).map_err(OpenError::io(&bodies))? {
            match names::body_id(&name) {
                Some(id) => {
                    files.insert(id);
                }
                None => self.damage(bodies.join(name), "is no body; it was left as it is"),
            }
        }
        let lost = files.iter().filter(|id| id.as_u64() >= self.next_id).count();
        if lost > 0 {
            self.damage(
                self.segments.dir.clone(),
                &format!(
                    "is missing a segment or the end of one, so that messages are lost: {lost} files in bodies/ have \
                     ids that no record took; they were moved to quarantine/: restore the segment, and move them back"
                ),
            );
        }
        Ok(files)
    }

    /// Holds messages without their body, and removes those of `files` that belong to no message.
    pub(super) fn check_bodies(&mut self, mut files: BTreeSet<MessageId>) -> Result<(), Failure> {
        self.hold_what_is_missed()?;
        let bodies = names::bodies(self.dir);
        let mut named = BTreeSet::new();
        self.checkpoint.each_body(|id| named.extend([id]))?;
        let has_file = |message: &Message<Stored>| message.stored.inline.is_none();
        named.extend(self.index.in_memory().filter(|(_, message)| has_file(message)).map(|(id, _)| id));
        for id in named {
            let Some(message) = self.index.get(id)?.filter(|message| has_file(message)) else { continue };
            let path = bodies.join(names::body(id));
            let is_there = files.remove(&id);
            let len = if is_there { self.vfs.open(&path).and_then(|file| file.len()).ok() } else { None };
            if len != Some(message.body_len) {
                self.hold(id)?;
                self.damage(path, &format!("should be the body of message {id}, which is on hold now"));
            }
        }
        // The files left belong to no message: no draft outlives its process.
        for id in files {
            let name = names::body(id);
            let path = bodies.join(&name);
            let swept = if self.report.damaged.is_empty() {
                self.vfs.remove(&path)
            } else {
                self.vfs.rename(&path, &names::quarantine(self.dir).join(&name))
            };
            swept.map_err(OpenError::io(&path))?;
            self.report.orphans = self.report.orphans.saturating_add(1);
        }
        Ok(())
    }

    /// Holds messages whose bodies were in missing segments.
    fn hold_what_is_missed(&mut self) -> Result<(), Failure> {
        if self.segments.missing.is_empty() {
            return Ok(());
        }
        let missing: BTreeSet<u64> = self.segments.missing.keys().copied().collect();
        let is_missed = |stored: Stored| stored.inline.is_some() && missing.contains(&stored.sequence);
        let mut missed = Vec::new();
        self.checkpoint.each_message(|id, stored| missed.extend(is_missed(stored).then_some(id)))?;
        for id in missed {
            // The log after the checkpoint may have ended the message, or have a newer image of it.
            if self.index.get(id)?.is_some_and(|message| is_missed(message.stored)) {
                self.hold(id)?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, id: MessageId) -> Result<(), Failure> {
        self.index.alter(id, &Altered::Held(true))?;
        if self.index.cost() > self.budget {
            self.write_checkpoint(self.segments.position())?;
        }
        Ok(())
    }
}
