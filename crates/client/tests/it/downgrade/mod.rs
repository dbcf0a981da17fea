//! Every policy about TLS meets every failure of it, over TCP: what is delivered, and that no mail
//! and no password goes where it must not.

mod kept;
mod world;

use std::time::Duration;

use futures_util::StreamExt as _;
use posthaste_testkit::script::Heard;

use self::world::{Certificates, host, send};
use crate::support::Policy::{self, Implicit, Off, Opportunistic, Required, Verified};

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Nothing,
    /// STARTTLS is not offered. With implicit TLS: it greets in clear.
    NotOffered,
    /// 454, 502, 501 and 421 to STARTTLS.
    Later,
    Unknown,
    Syntax,
    Gone,
    /// In the handshake.
    Garbage,
    Alert,
    Closes,
    Silent,
    /// Replies in clear after the one to STARTTLS.
    Residue,
    /// The certificate is for another name, of an unknown authority, expired, or good but not of
    /// the key that a record of DANE-EE is about.
    Name,
    Authority,
    Expired,
    Key,
    /// Within TLS: EHLO and HELO refused, closed at EHLO, closed at MAIL.
    EhloRefused,
    EhloCloses,
    MailCloses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tlsa {
    None,
    EndEntity,
    Anchor,
    Unusable,
    /// DNSSEC does not prove the records.
    Unsigned,
    /// The look-up has no answer.
    Fails,
}

/// What the domain publishes by MTA-STS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sts {
    None,
    Enforce,
    Testing,
    ModeNone,
    /// Enforced, and the policy does not name the host.
    OtherHost,
    TestingOtherHost,
    /// The policy cannot be fetched, and none is kept, or one that is enforced.
    Gone,
    KeptAndGone,
    /// The DNS does not say if there is a policy, and none is kept, or one that is enforced.
    DnsFails,
    KeptAndDnsFails,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// By a pool, to a server that the configuration names.
    Named,
    /// By MX.
    Mx(Tlsa, Sts),
}

#[derive(Debug)]
struct Row {
    policy: Policy,
    way: Way,
    /// An outcome for each of [`FAILURES`].
    outcomes: &'static str,
}

const FAILURES: [Failure; 18] = {
    use Failure::*;
    [
        Nothing,
        NotOffered,
        Later,
        Unknown,
        Syntax,
        Gone,
        Garbage,
        Alert,
        Closes,
        Silent,
        Residue,
        Name,
        Authority,
        Expired,
        Key,
        EhloRefused,
        EhloCloses,
        MailCloses,
    ]
};

/// `V`: delivered, and the server was proved. `T`: delivered in TLS that proves nothing. `C`:
/// delivered in clear. `-`: not delivered. `0`: the server was not even asked. `.`: no such case.
#[rustfmt::skip]
const TABLE: &[Row] = &{
    use {Sts::*, Tlsa::{Anchor, EndEntity, Fails, Unsigned, Unusable}, Way::*};
    const fn row(policy: Policy, way: Way, outcomes: &'static str) -> Row {
        Row { policy, way, outcomes }
    }
    const NO_DANE: Tlsa = Tlsa::None;
    [
        //                                               STARTTLS handshake certificate within TLS
        row(Off,           Named,                       "C CCCCC CCCCC CCCC CCC"),
        row(Opportunistic, Named,                       "T CCCCC CCCCC TTTT CCC"),
        row(Required,      Named,                       "T ----- ----- TTTT ---"),
        row(Verified,      Named,                       "V ----- ----- ---V ---"),
        row(Implicit,      Named,                       "V -.... ----. ---V ---"),
        row(Off,           Mx(NO_DANE, None),           "C CCCCC CCCCC CCCC CCC"),
        row(Opportunistic, Mx(NO_DANE, None),           "T CCCCC CCCCC TTTT CCC"),
        row(Required,      Mx(NO_DANE, None),           "T ----- ----- TTTT ---"),
        // A name from the DNS proves nothing.
        row(Verified,      Mx(NO_DANE, None),           "T ----- ----- ---T ---"),
        row(Implicit,      Mx(NO_DANE, None),           "T -.... ----. ---T ---"),
        // DANE.
        row(Off,           Mx(EndEntity, None),         "V ----- ----- VVV- ---"),
        row(Opportunistic, Mx(EndEntity, None),         "V ----- ----- VVV- ---"),
        row(Required,      Mx(EndEntity, None),         "V ----- ----- VVV- ---"),
        row(Verified,      Mx(EndEntity, None),         "V ----- ----- VVV- ---"),
        row(Opportunistic, Mx(Anchor, None),            "V ----- ----- ---V ---"),
        row(Off,           Mx(Unusable, None),          "T ----- ----- TTTT ---"),
        row(Opportunistic, Mx(Unusable, None),          "T ----- ----- TTTT ---"),
        row(Verified,      Mx(Unusable, None),          "T ----- ----- ---T ---"),
        row(Off,           Mx(Fails, None),             "0 00000 00000 0000 000"),
        row(Opportunistic, Mx(Fails, None),             "0 00000 00000 0000 000"),
        row(Opportunistic, Mx(Unsigned, None),          "T CCCCC CCCCC TTTT CCC"),
        // MTA-STS.
        row(Off,           Mx(NO_DANE, Enforce),        "V ----- ----- ---V ---"),
        row(Opportunistic, Mx(NO_DANE, Enforce),        "V ----- ----- ---V ---"),
        row(Required,      Mx(NO_DANE, Enforce),        "V ----- ----- ---V ---"),
        row(Off,           Mx(NO_DANE, Testing),        "C CCCCC CCCCC CCCC CCC"),
        row(Opportunistic, Mx(NO_DANE, Testing),        "T CCCCC CCCCC TTTT CCC"),
        row(Opportunistic, Mx(NO_DANE, ModeNone),       "T CCCCC CCCCC TTTT CCC"),
        row(Opportunistic, Mx(NO_DANE, OtherHost),      "0 00000 00000 0000 000"),
        row(Required,      Mx(NO_DANE, OtherHost),      "0 00000 00000 0000 000"),
        row(Opportunistic, Mx(NO_DANE, TestingOtherHost), "T CCCCC CCCCC TTTT CCC"),
        row(Opportunistic, Mx(NO_DANE, Gone),           "T CCCCC CCCCC TTTT CCC"),
        row(Opportunistic, Mx(NO_DANE, KeptAndGone),    "V ----- ----- ---V ---"),
        row(Opportunistic, Mx(NO_DANE, DnsFails),       "T CCCCC CCCCC TTTT CCC"),
        row(Opportunistic, Mx(NO_DANE, KeptAndDnsFails), "V ----- ----- ---V ---"),
        // Both: DANE comes first, unless its records are of no use.
        row(Opportunistic, Mx(EndEntity, Enforce),      "V ----- ----- VVV- ---"),
        row(Opportunistic, Mx(EndEntity, Testing),      "V ----- ----- VVV- ---"),
        row(Opportunistic, Mx(EndEntity, OtherHost),    "V ----- ----- VVV- ---"),
        row(Opportunistic, Mx(Anchor, Enforce),         "V ----- ----- ---V ---"),
        row(Opportunistic, Mx(Fails, Enforce),          "0 00000 00000 0000 000"),
        row(Opportunistic, Mx(Fails, Testing),          "0 00000 00000 0000 000"),
        row(Opportunistic, Mx(Unsigned, Enforce),       "V ----- ----- ---V ---"),
        row(Opportunistic, Mx(Unusable, Enforce),       "V ----- ----- ---V ---"),
        row(Off,           Mx(Unusable, Enforce),       "V ----- ----- ---V ---"),
        row(Opportunistic, Mx(Unusable, OtherHost),     "0 00000 00000 0000 000"),
        row(Opportunistic, Mx(Unusable, Testing),       "T ----- ----- TTTT ---"),
        row(Off,           Mx(Unusable, Testing),       "T ----- ----- TTTT ---"),
        row(Opportunistic, Mx(Unusable, KeptAndGone),   "V ----- ----- ---V ---"),
    ]
};

/// Cells that run at once.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn every_policy_meets_every_failure() {
    let certificates = Certificates::new();
    let cells = TABLE.iter().flat_map(|row| {
        let expected: Vec<_> = row.outcomes.chars().filter(|letter| *letter != ' ').collect();
        assert_eq!(expected.len(), FAILURES.len(), "{row:?}");
        FAILURES.into_iter().zip(expected).map(move |(failure, expected)| (row, failure, expected))
    });
    let cells: Vec<_> = cells.filter(|(_, _, expected)| *expected != '.').collect();
    // Those with shortened timers are by themselves: the others keep the processor busy.
    let (silent, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(|(_, failure, _)| *failure == Failure::Silent);
    let mut results = Vec::new();
    for (cells, at_once) in [(others, AT_ONCE), (silent, TABLE.len())] {
        let runs = cells.into_iter().map(|(row, failure, expected)| {
            let certificates = &certificates;
            async move {
                let server = host(certificates, failure, row.policy == Implicit).await;
                let letter = send(certificates, row, failure, server.port).await;
                (row, failure, expected, letter, server.heard)
            }
        });
        results.extend(futures_util::stream::iter(runs).buffer_unordered(at_once).collect::<Vec<_>>().await);
    }
    // What was sent after the end would be heard by now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut wrong = Vec::new();
    for (row, failure, expected, letter, heard) in &results {
        let letter = if heard.all().is_empty() && *letter == '-' { '0' } else { *letter };
        let Row { policy, way, .. } = row;
        if letter != *expected {
            wrong.push(format!("{policy:?} {way:?} {failure:?}: {letter} and not {expected}"));
        }
        if let Some(leak) = leak(heard, *expected, *failure) {
            wrong.push(format!("{policy:?} {way:?} {failure:?}: {leak}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cells:\n{}", wrong.len(), results.len(), wrong.join("\n"));
    assert!(results.len() > 800, "{}", results.len());
}

/// What a server heard that it must not hear.
fn leak(heard: &Heard, outcome: char, failure: Failure) -> Option<String> {
    let may_be_clear = outcome == 'C';
    let may_be_tls = matches!(outcome, 'V' | 'T') || failure == Failure::MailCloses;
    let said = heard.of(&["MAIL", "RCPT", "DATA", "BDAT", "AUTH", "<octets>", "<end>"]);
    let leak = said.into_iter().find(|(place, line)| {
        let is_login = line.starts_with("AUTH");
        if place.tls { !may_be_tls } else { !may_be_clear || is_login }
    });
    leak.map(|(place, line)| format!("heard {line:?} at {place:?}"))
}
