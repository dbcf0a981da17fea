//! The content of messages.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::json;

use super::{
    change::{Choice, Chosen},
    filter::{self, id_path},
};
use crate::{
    Failure,
    api::forms::{Filter, Page},
    ask::Ask,
    print,
};

/// Prints the content of a message, or its header alone.
pub(super) async fn content(ask: &Ask<'_>, path: &str, header: bool) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let mut end = End::default();
    let written = each(ask, path, |piece| {
        let piece = if header { end.before(piece) } else { piece };
        output.write_all(piece)?;
        Ok(!header || !end.has_come())
    });
    match written.await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| ask.silent(&error)),
    }
}

/// Calls `take` with each piece of a message, until it returns `false`.
async fn each(ask: &Ask<'_>, path: &str, mut take: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<()> {
    let mut body = ask.send(Method::GET, &format!("{path}/content"), Bytes::new()).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Some(piece) = frame.data_ref()
            && !take(piece)?
        {
            break;
        }
    }
    Ok(())
}

/// Looks for the empty line after a header, in pieces.
#[derive(Debug, Default)]
struct End {
    /// How many octets of CRLF CRLF have come.
    seen: usize,
}

impl End {
    /// What is before the end of the header.
    fn before<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        const END: &[u8] = b"\r\n\r\n";
        for (index, octet) in piece.iter().enumerate() {
            if self.seen == END.len() {
                return piece.get(..index).unwrap_or_default();
            }
            self.seen = match END.get(self.seen) == Some(octet) {
                true => self.seen + 1,
                false => usize::from(*octet == b'\r'),
            };
        }
        piece
    }

    const fn has_come(&self) -> bool {
        self.seen == 4
    }
}

pub(super) async fn run(ask: &Ask<'_>, folder: &Path, chosen: &Chosen, json: bool) -> Result<(), Failure> {
    let choice = chosen.choice()?;
    fs::create_dir_all(folder).map_err(|error| Failure::Run(format!("{}: {error}", folder.display())))?;
    let mut count = 0_u64;
    match choice {
        Choice::Ids(ids) => {
            for id in ids {
                write(ask, folder, id).await?;
                count = count.saturating_add(1);
            }
        }
        Choice::Filter(filter) => {
            let mut filter = Filter { limit: Some(1_000), ..*filter };
            loop {
                let page: Page = ask.get(&filter::path("/messages", &filter)?).await?;
                for message in page.messages {
                    write(ask, folder, &message.id).await?;
                    count = count.saturating_add(1);
                }
                filter.after = page.next;
                if filter.after.is_none() {
                    break;
                }
            }
        }
    }
    match json {
        true => print(&format!("{}\n", json!({ "exported": count }))),
        false => print(&format!("{count} messages are in {}\n", folder.display())),
    }
}

/// A file is there whole, or not at all.
async fn write(ask: &Ask<'_>, folder: &Path, id: &str) -> Result<(), Failure> {
    let (path, part) = (folder.join(format!("{id}.eml")), folder.join(format!("{id}.part")));
    let failed = |path: &Path, error: &io::Error| Failure::Run(format!("{}: {error}", path.display()));
    let mut file = File::create(&part).map_err(|error| failed(&part, &error))?;
    let written = each(ask, &id_path(id)?, |piece| file.write_all(piece).map(|()| true)).await;
    if let Err(error) = written {
        let _ = fs::remove_file(&part);
        return Err(ask.silent(&error));
    }
    fs::rename(&part, &path).map_err(|error| failed(&path, &error))
}

#[cfg(test)]
mod tests {
    use super::End;

    #[test]
    fn the_end_of_a_header_is_found_in_pieces_of_any_cut() {
        let content = b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n";
        for cut in 0..content.len() {
            let mut end = End::default();
            let (first, second) = content.split_at(cut);
            let mut header = end.before(first).to_vec();
            if !end.has_come() {
                header.extend(end.before(second));
            }
            assert_eq!(header, b"A: b\r\nC: d\r\n\r\n", "{cut}");
        }
    }
}
