//! A server that keeps transactions apart as RFC 5321 says, takes messages, and can be told to
//! misbehave at any line.

use std::sync::{Arc, Mutex};

use posthaste_testkit::script::{Script, polite, verb};

/// What a server does at a line instead of what is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Says this, and does what that means.
    Say(&'static str),
    /// Does what is right, and closes before the reply.
    CloseAfter,
    /// Closes at once.
    Close,
}

/// The messages that the server has taken: sender, recipients and content, by their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken(Arc<Mutex<Vec<One>>>);

type One = (String, Vec<String>, String);

impl Taken {
    /// How often this message was taken, for this recipient.
    pub(super) fn count(&self, number: usize, rcpt: usize) -> usize {
        let rcpt = format!("m{number}r{rcpt}");
        let taken = self.0.lock().unwrap();
        taken.iter().filter(|(_, recipients, _)| recipients.contains(&rcpt)).count()
    }

    /// No message went out under the envelope of another.
    pub(super) fn check(&self) {
        for (sender, recipients, content) in self.0.lock().unwrap().iter() {
            let fits = |rcpt: &String| rcpt.split('r').next() == Some(sender);
            assert!(sender == content && recipients.iter().all(fits), "{sender} {recipients:?} {content}");
        }
    }
}

#[derive(Debug, Default)]
struct Transaction {
    mail: Option<String>,
    recipients: Vec<String>,
    content: String,
}

/// The server. `act` is asked with the number of each line after EHLO, and the line. With
/// `asks_anyway`, DATA gets 354 although every recipient was refused.
pub(super) fn model(
    offers: &'static [&'static str],
    asks_anyway: bool,
    mut act: impl FnMut(usize, &str) -> Option<Act> + Send + 'static,
) -> (impl Script, Taken) {
    let taken = Taken::default();
    let ours = taken.clone();
    let mut lines = 0;
    let mut open: std::collections::HashMap<usize, Transaction> = std::collections::HashMap::new();
    let script = move |place: posthaste_testkit::script::Place, line: &str| {
        let transaction = open.entry(place.connection).or_default();
        if let Some(text) = line.strip_prefix("<octets> ") {
            transaction.content.push_str(text);
            return String::new();
        }
        if matches!(verb(line), "<connect>" | "EHLO" | "LHLO" | "QUIT") {
            return polite(line, offers);
        }
        let act = act(lines, line);
        lines += 1;
        if act == Some(Act::Close) {
            return "close".to_owned();
        }
        let said = match act {
            Some(Act::Say(said)) => said.to_owned(),
            _ => right(transaction, line, asks_anyway),
        };
        happens(transaction, line, &said, &ours);
        match act {
            Some(Act::CloseAfter) => "close".to_owned(),
            // A server that says 421 closes.
            _ if said.starts_with("421") => said + "<hang>",
            _ => said,
        }
    };
    (script, taken)
}

fn right(transaction: &Transaction, line: &str, asks_anyway: bool) -> String {
    let has_recipients = !transaction.recipients.is_empty();
    match verb(line) {
        "MAIL" if transaction.mail.is_some() => "503 5.5.1 nested MAIL\r\n",
        "RCPT" if transaction.mail.is_none() => "503 5.5.1 need MAIL\r\n",
        "DATA" if transaction.mail.is_some() && (has_recipients || asks_anyway) => "354 go on\r\n",
        "DATA" | "BDAT" if !has_recipients => "503 5.5.1 need RCPT\r\n",
        "<end>" if !has_recipients => "554 5.5.1 no valid recipients\r\n",
        _ => "250 ok\r\n",
    }
    .to_owned()
}

/// What follows from a reply that the server has given.
fn happens(transaction: &mut Transaction, line: &str, said: &str, taken: &Taken) {
    let is_positive = said.starts_with('2');
    let name = || line.split(['<', '@']).nth(1).unwrap_or_default().to_owned();
    match verb(line) {
        "MAIL" if is_positive => (transaction.mail, transaction.recipients) = (Some(name()), Vec::new()),
        "RCPT" if is_positive && transaction.mail.is_some() => transaction.recipients.push(name()),
        "RSET" if is_positive => *transaction = Transaction::default(),
        "BDAT" | "<end>" => {
            let Transaction { mail, recipients, content } = std::mem::take(transaction);
            if let (Some(mail), true, false) = (&mail, is_positive, recipients.is_empty()) {
                let named = content.split(": ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap_or_default();
                taken.0.lock().unwrap().push((mail.clone(), recipients, named.to_owned()));
            } else if line != "<end>" && recipients.is_empty() {
                // BDAT for no recipient leaves MAIL in force.
                transaction.mail = mail;
            }
        }
        _ => {}
    }
}
