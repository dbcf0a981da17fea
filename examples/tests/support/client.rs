//! A client that sends any octets and hides no reply.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::data;

/// One connection in clear.
#[derive(Debug)]
pub(crate) struct Smtp {
    reader: BufReader<TcpStream>,
    log: String,
}

/// A reply: its code, and its lines joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl Smtp {
    /// Connects and reads the greeting.
    pub(crate) fn connect(port: u16) -> Self {
        Self::through(port, b"")
    }

    /// Connects, sends these octets at once, as a proxy in front would, and reads the greeting.
    pub(crate) fn through(port: u16, header: &[u8]) -> Self {
        let mut client = Self::silent(port);
        client.reader.get_mut().write_all(header).expect("the system takes it");
        assert_eq!(client.reply().code, 220, "greeting\n{}", client.log);
        client
    }

    /// Connects, and reads nothing yet.
    pub(crate) fn silent(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout that is not zero");
        stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a timeout that is not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { reader: BufReader::new(stream), log: String::new() }
    }

    /// Connects and says EHLO.
    pub(crate) fn ehlo(port: u16) -> Self {
        let mut client = Self::connect(port);
        client.expect("EHLO client.test", 250);
        client
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        let octets = octets.as_ref();
        self.log
            .push_str(&format!("C: {}\n", String::from_utf8_lossy(&octets[..octets.len().min(200)]).escape_debug()));
        self.reader.get_mut().write_all(octets).unwrap_or_else(|error| panic!("sending: {error}\n{}", self.log));
    }

    /// The next reply; a panic with the whole conversation when there is none.
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|| panic!("the relay closed the connection instead of replying\n{}", self.log))
    }

    /// The next reply. `None`: the relay closed instead.
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let mut text = String::new();
        loop {
            let mut line = Vec::new();
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("reading a reply: {error}\n{}", self.log),
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            self.log.push_str(&format!("S: {}\n", line.trim_end()));
            assert!(line.ends_with("\r\n"), "a reply line ends with CRLF: {line:?}\n{}", self.log);
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("not a reply: {line:?}\n{}", self.log));
            text.push_str(line[3..].trim_end());
            text.push('\n');
            if !line[3..].starts_with('-') {
                return Some(Reply { code, text });
            }
        }
    }

    pub(crate) fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    pub(crate) fn expect(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line}\n{}", self.log);
        reply
    }

    /// Opens a transaction and sends DATA: the next thing to send is content.
    pub(crate) fn open(&mut self, from: &str, to: &str) {
        self.expect(&format!("MAIL FROM:<{from}>"), 250);
        self.expect(&format!("RCPT TO:<{to}>"), 250);
        self.expect("DATA", 354);
    }

    /// A transaction of a small message, from `snd-TOKEN@sender.test` to `rcp-TOKEN@dest.test`.
    /// Returns the reply at its end.
    pub(crate) fn transact(&mut self, token: &str) -> Reply {
        self.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@dest.test"));
        self.send(data(token));
        self.reply()
    }

    /// Returns `true` if the relay has closed, or closes now, without a reply.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0]) {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// What has been said so far.
    pub(crate) fn log(&self) -> &str {
        &self.log
    }
}

/// Connects, sends one small message, and expects it to be taken.
pub(crate) fn submit(port: u16, token: &str) {
    let mut client = Smtp::ehlo(port);
    let reply = client.transact(token);
    assert_eq!(reply.code, 250, "{}", client.log());
    client.expect("QUIT", 221);
}
