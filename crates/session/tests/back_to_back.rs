//! A client and a server back to back: what goes in comes out, however the octets arrive.

use posthaste_session::ServerSettings;
use posthaste_testkit::{
    pair::{Letter, Outcome, Pair},
    policy::{Topic, refusal},
};
use posthaste_wire::{Mechanism, MechanismSet};
use proptest::{collection::vec, prelude::*};

fn settings(open_recipients: usize) -> ServerSettings {
    let mut settings = ServerSettings::new("mx.test");
    settings.offers.starttls = true;
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.limits.open_recipients = open_recipients;
    settings
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let line = vec(prop_oneof![2 => Just(b'.'), 5 => 1_u8..=255], 0..60)
        .prop_map(|line| line.into_iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect::<Vec<u8>>());
    vec(line, 0..30).prop_map(|lines| lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_as_it_was_sent(contents in vec((content(), 1..4_usize), 1..5), seed: u64, pipelined: bool,
        tls: bool, mechanism in prop_oneof![Just(None), Just(Some("PLAIN")), Just(Some("LOGIN"))]) {
        let mut pair = Pair::new(settings(1 + (seed % 4) as usize), seed);
        pair.open(tls, mechanism.filter(|_| tls));
        let letters: Vec<_> = contents.into_iter().enumerate().map(|(index, (content, recipients))| Letter {
            from: format!("from{index}@a.test"),
            to: (0..recipients).map(|recipient| format!("to{recipient}@b.test")).collect(),
            content,
        }).collect();
        let outcomes = pair.deliver(&letters, pipelined);
        for (letter, outcome) in letters.iter().zip(&outcomes) {
            let recipients = vec![250; letter.to.len()];
            prop_assert_eq!(outcome, &Outcome { mail: 250, recipients, data: Some(354), end: Some(250) });
        }
        pair.quit();
        prop_assert_eq!(pair.server.messages.len(), letters.len());
        for (letter, message) in letters.iter().zip(&pair.server.messages) {
            prop_assert_eq!(message.content.escape_ascii().to_string(), letter.content.escape_ascii().to_string());
            prop_assert_eq!(message.recipients.len(), letter.to.len());
        }
    }

    #[test]
    fn every_recipient_has_its_own_outcome(verdicts in vec(prop_oneof![Just(250_u16), Just(550), Just(451)], 1..8),
        end in prop_oneof![Just(250_u16), Just(554), Just(452)], seed: u64, pipelined: bool) {
        let mut pair = Pair::new(settings(1 + (seed % 4) as usize), seed);
        pair.open(false, None);
        for code in &verdicts {
            pair.server.policy.script(Topic::Rcpt, match code {
                250 => posthaste_session::Verdict::Accept(None),
                code => refusal(&format!("{code} no")),
            });
        }
        let accepted = verdicts.iter().filter(|code| **code == 250).count();
        if end != 250 && accepted > 0 {
            pair.server.policy.script(Topic::Message, refusal(&format!("{end} no")));
        }
        let to = (0..verdicts.len()).map(|index| format!("to{index}@b.test")).collect();
        let letter = Letter { from: "a@b".into(), to, content: b"text\r\n".to_vec() };
        let outcome = pair.deliver(&[letter], pipelined).remove(0);
        prop_assert_eq!(&outcome.recipients, &verdicts);
        let taken = accepted > 0 && end == 250;
        prop_assert_eq!(outcome.end, (accepted > 0).then_some(end));
        prop_assert_eq!(pair.server.messages.len(), usize::from(taken));
        if taken {
            prop_assert_eq!(pair.server.messages[0].recipients.len(), accepted);
        }
        pair.quit();
    }
}
