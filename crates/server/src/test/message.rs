//! Whole messages, from MAIL to what became of each recipient.

use super::{Client, Reply, Sent};

impl Client {
    /// Sends a whole message by DATA, with dots stuffed and a CRLF added where its last line has
    /// none. Stops as soon as the message has no recipient; RSET then ends the transaction.
    ///
    /// The content is sent as it is otherwise: end its lines with `\r\n`.
    ///
    /// # Panics
    /// There is no recipient, or an address has a line break.
    pub async fn send<R: AsRef<str>>(
        &mut self,
        from: &str,
        to: impl IntoIterator<Item = R>,
        content: impl AsRef<[u8]>,
    ) -> Sent {
        let content = content.as_ref();
        let (sent, taken) = self.envelope(from, to).await;
        if taken.is_empty() {
            return sent;
        }
        let data = self.says("DATA").await;
        if !data.as_str().starts_with("354") {
            self.give_up(&data).await;
            return sent.decided(&taken, std::iter::repeat(data));
        }
        let mut octets = Vec::new();
        for line in content.split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                octets.push(b'.');
            }
            octets.extend_from_slice(line);
        }
        if !octets.ends_with(b"\r\n") && !octets.is_empty() {
            octets.extend_from_slice(b"\r\n");
        }
        octets.extend_from_slice(b".\r\n");
        self.write(octets).await;
        self.outcome(sent, &taken).await
    }

    /// Sends a whole message by BDAT, a command for each chunk. A chunk that is refused ends it,
    /// and RSET the transaction.
    ///
    /// # Panics
    /// There is no recipient or no chunk.
    pub async fn send_chunks<R: AsRef<str>, C: AsRef<[u8]>>(
        &mut self,
        from: &str,
        to: impl IntoIterator<Item = R>,
        chunks: impl IntoIterator<Item = C>,
    ) -> Sent {
        let (sent, taken) = self.envelope(from, to).await;
        if taken.is_empty() {
            return sent;
        }
        let mut chunks = chunks.into_iter().peekable();
        while let Some(chunk) = chunks.next() {
            let chunk = chunk.as_ref();
            let last = chunks.peek().is_none();
            let mark = if last { " LAST" } else { "" };
            self.write([format!("BDAT {}{mark}\r\n", chunk.len()).as_bytes(), chunk].concat()).await;
            if last {
                return self.outcome(sent, &taken).await;
            }
            let reply = self.reply_to("BDAT").await;
            if !reply.as_str().starts_with("250") {
                self.give_up(&reply).await;
                return sent.decided(&taken, std::iter::repeat(reply));
            }
        }
        self.fail("`send_chunks` needs a chunk, which may be empty.")
    }

    /// Says MAIL and RCPT. Returns the replies, and the places of the recipients that were
    /// accepted.
    async fn envelope<R: AsRef<str>>(&mut self, from: &str, to: impl IntoIterator<Item = R>) -> (Sent, Vec<usize>) {
        let to: Vec<R> = to.into_iter().collect();
        assert!(!to.is_empty(), "a message needs a recipient");
        let mail = self.says(&format!("MAIL FROM:<{from}>")).await;
        if !mail.as_str().starts_with("250") {
            return (Sent(vec![mail; to.len()]), Vec::new());
        }
        let (mut replies, mut taken) = (Vec::new(), Vec::new());
        for (place, recipient) in to.iter().enumerate() {
            let reply = self.says(&format!("RCPT TO:<{}>", recipient.as_ref())).await;
            if reply.as_str().starts_with("250") {
                taken.push(place);
            }
            replies.push(reply);
        }
        if let (Some(last), true) = (replies.last(), taken.is_empty()) {
            self.give_up(last).await;
        }
        (Sent(replies), taken)
    }

    /// Ends a transaction that cannot go on after this reply.
    async fn give_up(&mut self, reply: &Reply) {
        if !reply.is_closed() && reply.code() != 421 {
            self.says("RSET").await.expect("250");
        }
    }

    /// The replies to the end of the content.
    async fn outcome(&mut self, sent: Sent, taken: &[usize]) -> Sent {
        let mut replies = vec![self.reply_to("the end of the content").await];
        while self.running.lmtp && replies.len() < taken.len() {
            replies.push(self.reply_to("the end of the content").await);
        }
        let last = replies.last().cloned();
        sent.decided(taken, replies.into_iter().chain(std::iter::repeat_with(move || last.clone().unwrap())))
    }
}

impl Sent {
    /// The same with the replies that have decided about those recipients.
    fn decided(mut self, taken: &[usize], replies: impl IntoIterator<Item = Reply>) -> Self {
        for (place, reply) in taken.iter().zip(replies) {
            self.0[*place] = reply;
        }
        self
    }
}
