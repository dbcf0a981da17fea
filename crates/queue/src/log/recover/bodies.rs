//! The folder `bodies/` beside what the index says of it.

use std::collections::BTreeSet;

use super::Opening;
use crate::MessageId;
use crate::index::{Altered, Message, Unreadable};
use crate::log::apply::Stored;
use crate::log::{OpenError, checkpoint, hex};

impl Opening<'_> {
    /// Every living message has its body, and every body its message.
    pub(super) fn check_bodies(&mut self) -> Result<(), OpenError> {
        let bodies = self.dir.join("bodies");
        let mut files = BTreeSet::new();
        for name in self.vfs.list(&bodies).map_err(OpenError::io(&bodies))? {
            match hex(&name) {
                Some(id) => {
                    files.insert(MessageId::from_u64(id));
                }
                None => self.damage(bodies.join(name), "is no body; it was left alone"),
            }
        }
        let path = checkpoint::path(self.dir);
        let mut named = BTreeSet::new();
        let in_base = self.checkpoint.each_body(|id| named.extend([id]));
        in_base.map_err(|error| OpenError::Failed { path: path.clone(), why: error.to_string() })?;
        let has_file = |message: &Message<Stored>| message.stored.inline.is_none();
        named.extend(self.index.in_memory().filter(|(_, message)| has_file(message)).map(|(id, _)| id));
        let failed = |error: Unreadable| OpenError::Failed { path: path.clone(), why: error.0 };
        for id in named {
            let message = self.index.get(id).map_err(failed)?.filter(|message| has_file(message));
            let Some(message) = message else { continue };
            let path = bodies.join(format!("{:016x}", id.as_u64()));
            let is_there = files.remove(&id);
            let len = if is_there { self.vfs.open(&path).and_then(|file| file.len()).ok() } else { None };
            if len != Some(message.body_len) {
                self.index.alter(id, &Altered::Held(true)).map_err(failed)?;
                self.damage(path, &format!("should be the body of message {id}, which is on hold now"));
            }
        }
        // Whatever is left is named by nobody: no draft outlives a process.
        for id in files {
            let name = format!("{:016x}", id.as_u64());
            let path = bodies.join(&name);
            let swept = if self.report.damaged.is_empty() {
                self.vfs.remove(&path)
            } else {
                self.vfs.rename(&path, &self.dir.join("quarantine").join(&name))
            };
            swept.map_err(OpenError::io(&path))?;
            self.report.orphans = self.report.orphans.saturating_add(1);
        }
        Ok(())
    }
}
