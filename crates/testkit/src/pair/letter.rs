//! Messages that carry their verdicts.

/// A message to send, with the reply code of the application to each part. 250 accepts. The client
/// writes the numbers of letter and recipient into the addresses, and the application reads them
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// To MAIL.
    pub mail: u16,
    /// To each RCPT; at least one.
    pub recipients: Vec<u16>,
    /// To DATA, or to the first chunk.
    pub data: u16,
    /// Refuse the content with 452 once this many octets have come, at least one.
    pub refused_at: Option<usize>,
    /// To the end: one for all, or in LMTP one for each recipient, including those that were
    /// refused.
    pub end: Vec<u16>,
    /// The content. Only binary chunks take any octets.
    pub content: Vec<u8>,
    /// How the content is sent.
    pub way: Way,
}

/// How content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By DATA.
    Data,
    /// By BDAT.
    Chunks {
        /// Octets of a chunk, at least one.
        octets: usize,
        /// With BODY=BINARYMIME.
        binary: bool,
        /// The last chunk is empty.
        end_apart: bool,
    },
}

impl Letter {
    /// A letter that is accepted for all recipients.
    pub fn new(recipients: usize, content: &[u8], way: Way) -> Self {
        Self {
            mail: 250,
            recipients: vec![250; recipients],
            data: 250,
            refused_at: None,
            end: vec![250],
            content: content.to_vec(),
            way,
        }
    }

    /// The model: the outcome for each recipient is the first refusal on its way.
    pub fn fates(&self) -> Vec<u16> {
        let content = if self.refused_at.is_some_and(|at| at <= self.content.len()) { 452 } else { 250 };
        let fate = |(index, code): (usize, &u16)| {
            let end = self.end_for(index);
            [self.mail, *code, self.data, content, end].into_iter().find(|code| *code >= 400).unwrap_or(250)
        };
        self.recipients.iter().enumerate().map(fate).collect()
    }

    /// The reply to the end for a recipient.
    pub fn end_for(&self, recipient: usize) -> u16 {
        self.end.get(recipient % self.end.len().max(1)).copied().unwrap_or(250)
    }
}
