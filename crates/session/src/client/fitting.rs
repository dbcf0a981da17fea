//! Which replies fit which exchange.

use posthaste_wire::ReplyCode;

use crate::table::{
    Exchange::{self, Auth, AuthResponse, Data, Greeting, Other, Quit, Reset, StartTls},
    ReplyClass,
};

/// Codes that belong to a few exchanges; whoever gets one for another is one reply off. Every other 2yz is success and
/// every other 3yz fits nothing (RFC 5321 section 4.2: a code that is not known counts by its first digit).
const OWN: &[(ReplyCode, &[Exchange])] = &[
    // Behind XCLIENT, which the table of phases does not know, a server greets again.
    (ReplyCode::READY, &[Greeting, StartTls, Other]),
    (ReplyCode::CLOSING, &[Quit]),
    (ReplyCode::AUTHENTICATED, &[Auth, AuthResponse]),
    (ReplyCode::CHALLENGE, &[Auth, AuthResponse]),
    (ReplyCode::START_MAIL_INPUT, &[Data]),
];

/// No other code lets these go on: what follows is content, a handshake, or a message in somebody's name.
const BY_OWN_CODES_ALONE: &[Exchange] = &[Data, StartTls, Auth, AuthResponse];

/// Whether this code answers that.
pub(super) fn fits(exchange: Exchange, code: ReplyCode) -> bool {
    let own = OWN.iter().find(|(own, _)| *own == code);
    match (ReplyClass::from(code), own) {
        (_, Some((_, exchanges))) => exchanges.contains(&exchange),
        // A server that does not end a transaction (RFC 5321 section 4.1.1.5: it MUST) would add what comes next to it.
        (ReplyClass::Negative, None) => exchange != Reset || code == ReplyCode::SERVICE_NOT_AVAILABLE,
        (ReplyClass::Positive, None) => !BY_OWN_CODES_ALONE.contains(&exchange),
        (ReplyClass::Intermediate, None) => false,
    }
}
