//! Which reply codes fit which exchange.

use posthaste_wire::ReplyCode;

use crate::table::{
    Exchange::{self, Auth, AuthResponse, Data, Greeting, Quit, Reset, StartTls, XClient},
    ReplyClass,
};

/// Codes that belong to a few exchanges. For any other exchange they mean that replies and commands
/// are out of step. Every other 2yz is success, and every other 3yz fits no exchange (RFC 5321
/// section 4.2).
const OWN: &[(ReplyCode, &[Exchange])] = &[
    (ReplyCode::READY, &[Greeting, StartTls, XClient]),
    (ReplyCode::CLOSING, &[Quit]),
    (ReplyCode::AUTHENTICATED, &[Auth, AuthResponse]),
    (ReplyCode::CHALLENGE, &[Auth, AuthResponse]),
    (ReplyCode::START_MAIL_INPUT, &[Data]),
];

/// Only their own codes continue these exchanges, because content, a handshake or mail of a user
/// follows.
const BY_OWN_CODES_ALONE: &[Exchange] = &[Data, StartTls, Auth, AuthResponse];

/// Returns `true` if this code answers that exchange.
pub(super) fn fits(exchange: Exchange, code: ReplyCode) -> bool {
    let own = OWN.iter().find(|(own, _)| *own == code);
    match (ReplyClass::from(code), own) {
        (_, Some((_, exchanges))) => exchanges.contains(&exchange),
        // RFC 5321 section 4.1.1.5: a server MUST accept RSET. Otherwise the next message would
        // join the old transaction.
        (ReplyClass::Negative, None) => exchange != Reset || code == ReplyCode::SERVICE_NOT_AVAILABLE,
        (ReplyClass::Positive, None) => !BY_OWN_CODES_ALONE.contains(&exchange),
        (ReplyClass::Intermediate, None) => false,
    }
}
