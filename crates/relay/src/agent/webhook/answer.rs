//! What the server answers, and what follows from it for each recipient.

use std::{future::poll_fn, pin::pin, time::Duration};

use hyper::{
    Response,
    body::{Body as _, Incoming},
    header,
};
use posthaste_server::{
    Refusal, accepted, refusal,
    wire::{EnhancedCode, Rcpt, Severity},
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{agent::Decision, event::shortened};

/// The most octets that are read of a body. A longer one ends the connection.
const BODY: usize = 64 << 10;
/// The longest wait for the body of an answer that has words or decisions in it, and of another.
const BODY_WAIT: Duration = Duration::from_secs(5);
const UNREAD_WAIT: Duration = Duration::from_secs(1);
/// The most octets of words that the sender sees.
const WORDS: usize = 200;
/// The longest `Retry-After` that is heeded, in seconds.
const MAX_WAIT: u64 = 3_600;

/// What the server answered.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    /// Seconds.
    retry_after: Option<u64>,
    said: Said,
}

/// The body of an answer, as far as it counts.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// The first line of a text.
    Words(String),
    /// Decisions about recipients, perhaps.
    Json(Vec<u8>),
    /// There may have been decisions, and not all of them came.
    Half,
}

impl Answer {
    /// Reads the answer to its end, so that another request can follow on its connection.
    pub(super) async fn of(response: Response<Incoming>) -> Self {
        let status = response.status().as_u16();
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = field(header::RETRY_AFTER).and_then(|value| value.trim().parse::<u64>().ok());
        let retry_after = retry_after.filter(|seconds| *seconds > 0).map(|seconds| seconds.min(MAX_WAIT));
        let media_type = field(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
        let has_words = (400..600).contains(&status) && media_type.starts_with("text/plain");
        let may_decide = (200..300).contains(&status) && media_type.starts_with("application/json");
        let wait = if has_words || may_decide { BODY_WAIT } else { UNREAD_WAIT };
        let (octets, is_whole) = read(response.into_body(), wait).await;
        let said = match is_whole {
            // What has come until then counts.
            _ if has_words => Said::Words(first_line(&String::from_utf8_lossy(&octets))),
            true if may_decide => Said::Json(octets),
            false if may_decide => Said::Half,
            _ => Said::Nothing,
        };
        Self { status, retry_after, said }
    }

    /// The decision about each recipient of the request.
    pub(super) fn decisions(&self, recipients: &[Rcpt]) -> Vec<Decision> {
        let all = |decision: Decision| vec![decision; recipients.len()];
        let status = self.status;
        let decided = match &self.said {
            Said::Json(octets) => each(octets, recipients, status),
            Said::Half => Err("the answer has more than 64 KiB, or did not end within 5 s".to_owned()),
            Said::Nothing | Said::Words(_) => Ok(None),
        };
        match decided {
            Ok(None) => all(self.decision()),
            Ok(Some(decisions)) => decisions,
            Err(why) => all(Err(refusal!("451 4.3.5 Status {}, but {}", status, why))),
        }
    }

    fn decision(&self) -> Decision {
        let Self { status, retry_after, said } = self;
        let wait = retry_after.map(|seconds| format!(", try again in {seconds} seconds")).unwrap_or_default();
        let said = match said {
            Said::Words(words) if !words.is_empty() => format!(": {words}"),
            _ => String::new(),
        };
        Err(match status {
            200..300 => return Ok(accepted!("250 2.0.0 Taken with status {}", status)),
            300..400 => refusal!("451 4.3.5 Status {}: the redirect is not followed; name its target", status),
            429 => refusal!("450 4.7.1 Status 429, rate limited{}{}", wait, said),
            408 | 425 => refusal!("451 4.3.2 Status {}{}{}", status, wait, said),
            413 => refusal!("552 5.3.4 Status 413, the message is too large{}", said),
            400..500 => refusal!("554 5.7.1 Status {}, the message is not taken{}", status, said),
            _ => refusal!("451 4.3.0 Status {}{}{}", status, wait, said),
        })
    }
}

/// The decisions that an answer has in it. `None`: it has none, and its status counts for all.
///
/// # Errors
/// They cannot be understood: which recipients were taken is not known.
fn each(octets: &[u8], recipients: &[Rcpt], status: u16) -> Result<Option<Vec<Decision>>, String> {
    let Ok(Value::Object(answer)) = serde_json::from_slice(octets) else { return Ok(None) };
    let lists = [list(&answer, "refused")?, list(&answer, "later")?];
    if lists.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut decisions: Vec<Decision> = vec![Ok(accepted!("250 2.0.0 Taken with status {}", status)); recipients.len()];
    for (list, reply) in lists.iter().zip([refused as fn(&str) -> Refusal, later]) {
        for (address, words) in list.iter().copied().flatten() {
            let Value::String(words) = words else { return Err(format!("{address} has no words that are text")) };
            let is_it = |rcpt: &Rcpt| {
                rcpt.forward_path.mailbox().is_some_and(|own| own.to_string().eq_ignore_ascii_case(address))
            };
            let mut named = decisions.iter_mut().zip(recipients).filter(|(_, rcpt)| is_it(rcpt)).peekable();
            if named.peek().is_none() {
                return Err(format!("{} is none of the recipients", shortened(address, WORDS)));
            }
            let refusal = reply(&first_line(words));
            named.for_each(|(decision, _)| *decision = Err(refusal.clone()));
        }
    }
    Ok(Some(decisions))
}

/// A member with addresses and words. `None`: it is not there.
fn list<'a>(answer: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    match answer.get(name) {
        None => Ok(None),
        Some(Value::Object(list)) => Ok(Some(list)),
        Some(_) => Err(format!("`{name}` is no object of addresses with words")),
    }
}

fn refused(words: &str) -> Refusal {
    match words {
        "" => refusal!("550 5.7.1 The recipient is not taken"),
        words if has_code(words, Severity::PermanentNegative) => refusal!("550 {}", words),
        words => refusal!("550 5.7.1 {}", words),
    }
}

fn later(words: &str) -> Refusal {
    match words {
        "" => refusal!("451 4.3.0 The recipient is not taken now"),
        words if has_code(words, Severity::TransientNegative) => refusal!("451 {}", words),
        words => refusal!("451 4.3.0 {}", words),
    }
}

/// Returns `true` if words begin with an enhanced code of this kind, and go on after it.
fn has_code(words: &str, severity: Severity) -> bool {
    EnhancedCode::split(words.as_bytes()).is_some_and(|(code, rest)| code.severity() == severity && !rest.is_empty())
}

fn first_line(text: &str) -> String {
    shortened(text.trim().lines().next().unwrap_or_default().trim(), WORDS).into_owned()
}

/// The octets of a body, and `true` if these are all.
async fn read(body: Incoming, wait: Duration) -> (Vec<u8>, bool) {
    let mut octets = Vec::new();
    let read = async {
        let mut body = pin!(body);
        while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
            let Ok(frame) = frame else { return false };
            let Ok(data) = frame.into_data() else { continue };
            let room = BODY.saturating_sub(octets.len());
            octets.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            if data.len() > room {
                return false;
            }
        }
        true
    };
    let is_whole = timeout(wait, read).await.unwrap_or(false);
    (octets, is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(decision: &Decision) -> String {
        match decision {
            Ok(accepted) => accepted.to_string(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn a_status_decides() {
        for (status, retry_after, words, reply) in [
            (200, None, "", "250 2.0.0 Taken with status 200"),
            (204, Some(9), "", "250 2.0.0 Taken with status 204"),
            (301, None, "", "451 4.3.5 Status 301: the redirect is not followed; name its target"),
            (400, None, "no such list", "554 5.7.1 Status 400, the message is not taken: no such list"),
            (404, Some(9), "", "554 5.7.1 Status 404, the message is not taken"),
            (408, None, "", "451 4.3.2 Status 408"),
            (413, None, "", "552 5.3.4 Status 413, the message is too large"),
            (425, Some(7), "", "451 4.3.2 Status 425, try again in 7 seconds"),
            (429, Some(7), "wait", "450 4.7.1 Status 429, rate limited, try again in 7 seconds: wait"),
            (500, None, "a\u{7}b", "451 4.3.0 Status 500: a?b"),
            (503, Some(60), "", "451 4.3.0 Status 503, try again in 60 seconds"),
            (999, None, "", "451 4.3.0 Status 999"),
        ] {
            let answer = Answer { status, retry_after, said: Said::Words(words.to_owned()) };
            assert_eq!(said(&answer.decision()), reply);
        }
    }

    #[test]
    fn an_answer_decides_about_each_recipient() {
        let recipients: Vec<Rcpt> =
            ["<jo@a.test>", "<Amy@a.test>", "<\u{e4}@a.test>"].map(|path| path.parse().unwrap()).into();
        let taken = "250 2.0.0 Taken with status 200";
        let all = |text: &str| [text; 3].map(str::to_owned);
        let wrong = |why: &str| all(&format!("451 4.3.5 Status 200, but {why}"));
        for (json, replies) in [
            // What many programs answer.
            ("", all(taken)),
            ("OK", all(taken)),
            ("[]", all(taken)),
            (r#"{"status":"ok","id":7}"#, all(taken)),
            (r#"{"refused":{}}"#, all(taken)),
            (
                r#"{"refused":{"jo@a.test":"No such list"},"later":{"amy@A.test":""}}"#,
                ["550 5.7.1 No such list", "451 4.3.0 The recipient is not taken now", taken].map(str::to_owned),
            ),
            (
                r#"{"refused":{"\u00e4@a.test":"5.1.1 Gone\r\nRSET"},"later":{"jo@a.test":"4.2.2 Full"}}"#,
                ["451 4.2.2 Full", taken, "550 5.1.1 Gone"].map(str::to_owned),
            ),
            // A code of another class, and one without words, are words.
            (
                r#"{"refused":{"jo@a.test":"4.2.2 Full","Amy@a.test":"5.1.1"}}"#,
                ["550 5.7.1 4.2.2 Full", "550 5.7.1 5.1.1", taken].map(str::to_owned),
            ),
            (r#"{"refused":["jo@a.test"]}"#, wrong("`refused` is no object of addresses with words")),
            (r#"{"later":null}"#, wrong("`later` is no object of addresses with words")),
            (r#"{"refused":{"jo@a.test":7}}"#, wrong("jo@a.test has no words that are text")),
            (r#"{"refused":{"kim@a.test":"x"}}"#, wrong("kim@a.test is none of the recipients")),
        ] {
            let answer = Answer { status: 200, retry_after: None, said: Said::Json(json.into()) };
            let decisions: Vec<_> = answer.decisions(&recipients).iter().map(said).collect();
            assert_eq!(decisions, replies, "{json}");
        }
        let half = Answer { status: 200, retry_after: None, said: Said::Half };
        assert!(half.decisions(&recipients).iter().all(|decision| said(decision).starts_with("451 4.3.5 ")));
    }
}
