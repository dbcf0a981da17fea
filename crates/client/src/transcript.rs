//! What was said, kept for an error report.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use posthaste_tokio::Trace;

/// Keeps the last lines of conversations as text. Clones share it. What is secret is not in it, see
/// [`Trace`].
///
/// ```no_run
/// use posthaste_client::{Client, ClientOptions, Transcript};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let transcript = Transcript::default();
/// let mut options = ClientOptions::new("client.example.org".parse()?);
/// options.trace = Some(transcript.trace());
/// if let Err(error) = Client::connect("mx.example.net:25", &options).await {
///     eprintln!("{error}\n{transcript}"); // 1 S: 554 5.7.1 No mail from here
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Transcript {
    kept: Arc<Mutex<Kept>>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    octets: usize,
    left_out: u64,
}

/// The default of [`Transcript::new`]: some hundred messages of one recipient each.
const LIMIT: usize = 64 * 1_024;

impl Transcript {
    /// Keeps at most this number of octets, line ends included. Beyond it the oldest lines are left
    /// out, and the text begins with their number. A single line beyond it is left out too.
    pub fn new(limit: usize) -> Self {
        Self { kept: Arc::default(), limit }
    }

    /// What to assign to [`ClientOptions::trace`](crate::ClientOptions::trace).
    pub fn trace(&self) -> Trace {
        let this = self.clone();
        Trace::new(move |line| this.add(line.to_string()))
    }

    fn add(&self, line: String) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.octets = kept.octets.saturating_add(line.len() + 1);
        kept.lines.push_back(line);
        while kept.octets > self.limit {
            let Some(oldest) = kept.lines.pop_front() else { return };
            kept.octets = kept.octets.saturating_sub(oldest.len() + 1);
            kept.left_out = kept.left_out.saturating_add(1);
        }
    }
}

/// With the limit of 64 KiB.
impl Default for Transcript {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

/// The lines, each with a line end.
impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.left_out > 0 {
            writeln!(f, "({} lines before these are left out)", kept.left_out)?;
        }
        kept.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_the_limit() {
        let transcript = Transcript::new(30);
        let connection = transcript.trace().connection();
        for number in 0..5 {
            connection.note(format_args!("line {number}"));
        }
        assert_eq!(transcript.to_string(), "(3 lines before these are left out)\n1 *: line 3\n1 *: line 4\n");
        connection.note("x".repeat(40));
        assert_eq!(transcript.to_string(), "(6 lines before these are left out)\n");
        assert_eq!(transcript.kept.lock().unwrap().octets, 0);
    }
}
