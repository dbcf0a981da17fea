//! What is measured.

use crate::attacks::{Attack, Strangers};

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The server's limit.
    pub(crate) connections: usize,
    /// Honest clients at a time.
    pub(crate) honest: u32,
    pub(crate) strangers: Strangers,
}

const TRANSACTION: &str = "EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";
const CONTENT: &str = "EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n";
/// A recipient that takes 1 KiB of the server's memory.
const RECIPIENT: &str = concat!(
    "RCPT TO:<a.rather.long.local.part.of.some.fifty.octets@a.domain.name.that.is.longer.than.most.example>",
    " NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;",
    "a.rather.long.local.part.of.some.fifty.octets+a.rather.long.local.part.of.some.fifty.octets",
    "a.rather.long.local.part.of.some.fifty.octets+a.rather.long.local.part.of.some.fifty.octets",
    "a.rather.long.local.part.of.some.fifty.octets+a.rather.long.local.part.of.some.fifty.octets@a.example\r\n",
);

const DEAF: Attack = Attack::Deaf { opening: TRANSACTION, octets: "BDAT 1\r\nx" };

/// All rows.
pub(crate) const ROWS: &[Row] = &[
    row("slow in a line, room for all", (10_000, 200), (5_000, 5_000), Attack::Slow("EHLO x\r\n")),
    row("slow in a line, 1,000 seats", (1_000, 200), (5_000, 5_000), Attack::Slow("EHLO x\r\n")),
    row("slow in content, 1,000 seats", (1_000, 200), (5_000, 5_000), Attack::Slow(CONTENT)),
    row("20,000 connects a second, 1 network", (1_000, 50), (1_000, 1), Attack::Connect(20_000)),
    row("20,000 connects a second, 1,000 networks", (1_000, 50), (2_000, 1_000), Attack::Connect(20_000)),
    row("recipients", (1_000, 50), (100, 1), lines("EHLO x\r\nMAIL FROM:<a@x>\r\n", RECIPIENT)),
    row("junk commands", (1_000, 50), (100, 1), lines("", "XJUNK and more\r\n")),
    row("endless lines", (1_000, 50), (100, 1), lines("", "x")),
    row("chunks of one octet", (1_000, 50), (100, 1), lines(TRANSACTION, "BDAT 1\r\nx")),
    row("replies unread", (1_000, 50), (100, 1), DEAF),
    row("half a handshake", (1_000, 50), (2_000, 2_000), Attack::HalfHandshake),
    row("handshakes", (1_000, 50), (20, 20), Attack::Handshakes),
    row("guesses, new names", (1_000, 50), (2_000, 5_000), Attack::Guess(None)),
    row("guesses, one name", (1_000, 50), (2_000, 2_000), Attack::Guess(Some("victim"))),
];

const fn row(
    name: &'static str,
    (connections, honest): (usize, u32),
    (clients, networks): (u32, u32),
    attack: Attack,
) -> Row {
    Row { name, connections, honest, strangers: Strangers { clients, networks, attack } }
}

const fn lines(opening: &'static str, octets: &'static str) -> Attack {
    Attack::Lines { opening, octets }
}
