//! The server and the client on the bare session, with threads and on tokio.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn both_ways_hold_the_same_conversation() {
    let mut heard = Vec::new();
    for mode in ["threads", "tokio"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bare"));
        let mut child = Ended(command.args([mode, "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let listening = lines.next().unwrap().unwrap();
        let address = listening.strip_prefix("listening on ").unwrap();

        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n").unwrap();
        let mut said = String::new();
        let mut octets = [0; 1_024];
        while !said.contains("354 ") {
            let read = stream.read(&mut octets).unwrap();
            assert!(read > 0, "{said}");
            said.push_str(std::str::from_utf8(&octets[..read]).unwrap());
        }
        stream.write_all(b"Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n").unwrap();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.ends_with("250 2.0.0 Printed\r\n221 2.0.0 Bye\r\n"), "{said}");
        assert_eq!(lines.next().unwrap().unwrap(), "a message of 17 octets for 1");
        heard.push(said);
    }
    assert_eq!(heard[0], heard[1]);
}

#[test]
fn a_message_goes_from_one_to_the_other() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bare"));
    let mut server = Ended(command.args(["threads", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let listening = lines.next().unwrap().unwrap();
    let address = listening.strip_prefix("listening on ").unwrap();
    for mode in ["threads", "tokio"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bare_send"));
        command.args([mode, address, "a@b.test", "c@d.test", "e@d.test"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Ended(command.spawn().unwrap());
        // Dropped at the end of this line, which ends the message.
        client.0.stdin.take().unwrap().write_all(b"Subject: x\r\n\r\n.\r\n").unwrap();
        let mut said = String::new();
        client.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(client.0.wait().unwrap().success(), "{mode}: {said}");
        assert!(said.ends_with("250 2.0.0 Printed\n221 2.0.0 Bye\n"), "{mode}: {said}");
        assert_eq!(lines.next().unwrap().unwrap(), "a message of 17 octets for 2", "{mode}");
    }
}
