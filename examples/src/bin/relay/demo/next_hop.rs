//! The demo's next hops: they take, defer or refuse as the recipient's name says, and compare
//! what arrives.

use std::{net::SocketAddr, sync::Arc};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, accepted, refusal,
    session::ServerSettings,
    wire::{ForwardPath, Rcpt, ReversePath},
};

use tokio::task::JoinHandle;

use super::{
    LOOPBACK,
    content::{self, Fate},
    ledger::Ledger,
};
use crate::Failure;

struct NextHop(Arc<Ledger>);

/// More than any message of the demo.
const LIMIT: usize = 1 << 20;

/// Starts one. Its task ends with all its connections when it is aborted.
pub(super) async fn start(ledger: &Arc<Ledger>) -> Result<(SocketAddr, JoinHandle<()>), Failure> {
    let settings = ServerSettings::new("next-hop.test".parse().map_err(Failure::run)?);
    let listener = Listener::bind(LOOPBACK, settings).await.map_err(Failure::run)?;
    let address = listener.local_address().map_err(Failure::run)?;
    let ledger = Arc::clone(ledger);
    let service = move |_| std::future::ready(Ok(NextHop(Arc::clone(&ledger))));
    Ok((address, tokio::spawn(Server::new(service).listen(listener).serve())))
}

impl Handler for NextHop {
    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let Some((number, to_sender)) = numbered(&rcpt.forward_path) else {
            return Err(refusal!("550 5.1.1 There is no such name"));
        };
        match content::fate(number) {
            Fate::Refused if !to_sender => Err(refusal!("550 5.1.1 This mailbox does not exist")),
            Fate::Deferred if !to_sender && self.0.defer(number) => Err(refusal!("450 4.2.0 Come back later")),
            _ => Ok(()),
        }
    }

    async fn message(&mut self, _: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let arrived = body.collect(LIMIT).await?;
        let recipient = envelope.recipients.first().and_then(|rcpt| numbered(&rcpt.forward_path));
        match (recipient, &envelope.mail.reverse_path) {
            (Some((number, true)), ReversePath::Null) => {
                let report = String::from_utf8_lossy(&arrived);
                let names_it = report.contains(&format!("Final-Recipient: rfc822; {}", content::recipient(number)));
                if !names_it || !report.contains("550 5.1.1 This mailbox does not exist") {
                    self.0.fault(format!("the report on message {number} does not say what happened"));
                }
                self.0.reported(number, &report);
            }
            (Some((number, false)), _) => {
                let sent = content::content(number);
                // The relay adds one Received field before the message and changes nothing else.
                let trace = arrived.len().checked_sub(sent.len()).and_then(|length| arrived.get(..length));
                let identical = trace.is_some_and(|trace| trace.starts_with(b"Received: ") && arrived.ends_with(&sent));
                self.0.arrived(number, identical);
            }
            _ => self.0.fault("a message came for an unknown recipient".to_owned()),
        }
        Ok(accepted!("250 2.0.0 Taken"))
    }
}

/// The number in an address, and whether it is a sender's.
fn numbered(path: &ForwardPath) -> Option<(u32, bool)> {
    let mailbox = path.mailbox()?;
    Some((content::number(mailbox.local_part())?, mailbox.local_part().starts_with("sender-")))
}
