//! The demo's messages. The number of a message decides its content, so none has to be kept.

use bytes::Bytes;

/// What the next hop does with a message's recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Takes it.
    Taken,
    /// Defers it at first, then takes it.
    Deferred,
    /// Refuses it, so that a report comes back.
    Refused,
}

/// Every 20th recipient is refused, and every 10th deferred at first.
pub(super) const fn fate(number: u32) -> Fate {
    match number % 20 {
        7 => Fate::Refused,
        3 | 13 => Fate::Deferred,
        _ => Fate::Taken,
    }
}

/// The local part of a message's recipient; it says what is to become of it.
pub(super) fn recipient(number: u32) -> String {
    let word = match fate(number) {
        Fate::Taken => "taken",
        Fate::Deferred => "deferred",
        Fate::Refused => "refused",
    };
    format!("{word}-{number}@dest.test")
}

/// The number in an address that [`recipient`] or [`sender`] made.
pub(super) fn number(local_part: &str) -> Option<u32> {
    local_part.rsplit_once('-')?.1.parse().ok()
}

/// The reverse-path of a message.
pub(super) fn sender(number: u32) -> String {
    format!("sender-{number}@source.test")
}

/// A message's content: mostly some KiB, some of hundreds of KiB, with lines that begin with dots.
pub(super) fn content(number: u32) -> Bytes {
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    let size = match number % 100 {
        0 => random.usize(200_000..400_000),
        1..10 => random.usize(20_000..100_000),
        _ => random.usize(200..8_000),
    };
    let mut text = format!(
        "From: <{}>\r\nTo: <{}>\r\nSubject: message {number}\r\nMessage-ID: <{number}@source.test>\r\n\r\n",
        sender(number),
        recipient(number)
    );
    while text.len() < size {
        let width = random.usize(0..76);
        if random.u8(..) < 20 {
            text.push('.');
        }
        text.extend(std::iter::repeat_with(|| char::from(random.u8(b' '..=b'~'))).take(width));
        text.push_str("\r\n");
    }
    text.into()
}
