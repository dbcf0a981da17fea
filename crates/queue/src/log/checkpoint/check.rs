//! Checks that the tables of a checkpoint agree with each other.

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::rows::decode_message;
use super::{BODIES, Checkpoint, Error, MESSAGES, READY, Row, WAITING};
use crate::MessageId;

impl Checkpoint {
    /// Returns the first contradiction.
    pub(in crate::log) fn check(&self) -> Result<Option<String>, Error> {
        let now = self.meta()?.now;
        let transaction = self.database.begin_read()?;
        let (messages, bodies) = (transaction.open_table(MESSAGES)?, transaction.open_table(BODIES)?);
        let (ready, waiting) = (transaction.open_table(READY)?, transaction.open_table(WAITING)?);
        let (mut scheduled, mut files) = (0_u64, 0_u64);
        for row in messages.iter()? {
            let (id, message) = row?;
            let id = id.value();
            let named = MessageId::from_u64(id);
            let message = decode_message(message.value())
                .map_err(|error| Error::Content(format!("the row of message {named}: {error}")))?;
            for row in Row::of(&message, id) {
                let there = if row.due <= now {
                    ready.get(row.ready())?.is_some()
                } else {
                    waiting.get(row.waiting())?.is_some_and(|class| class.value() == row.class)
                };
                if !there {
                    let number = row.number;
                    return Ok(Some(format!("has delivery {number} of message {named} in no schedule")));
                }
                scheduled = scheduled.saturating_add(1);
            }
            if message.stored.inline.is_none() {
                if bodies.get(id)?.is_none() {
                    return Ok(Some(format!("does not have the body of message {named} among those with a file")));
                }
                files = files.saturating_add(1);
            }
        }
        let rows = ready.len()?.saturating_add(waiting.len()?);
        if rows != scheduled {
            return Ok(Some(format!("schedules {rows} deliveries, of {scheduled} in its messages")));
        }
        let named = bodies.len()?;
        Ok((named != files).then(|| format!("names {named} bodies with a file, of {files} in its messages")))
    }
}
