//! Where mail would go, for an operator who asks.

use std::net::IpAddr;

use clap::Args;
use posthaste::relay::{Facts, NextHop, Route};
use posthaste::server::wire::{Mail, Rcpt};

use super::{
    Failure,
    config::{Config, text_of},
};

/// A message, and who sends it.
#[derive(Debug, Args)]
pub(crate) struct Question {
    /// Print the route of a message with this sender, or <>, to this recipient, or the reply that
    /// refuses it. It is not looked up who may send it.
    #[arg(long, num_args = 2, value_names = ["SENDER", "RECIPIENT"])]
    route: Option<Vec<String>>,
    /// The user who has logged in to send it.
    #[arg(long, value_name = "NAME", requires = "route")]
    identity: Option<String>,
    /// The address of the client that sends it.
    #[arg(long, value_name = "ADDRESS", requires = "route")]
    client: Option<IpAddr>,
    /// The tag of its campaign.
    #[arg(long, value_name = "TAG", requires = "route")]
    tag: Option<String>,
}

impl Question {
    /// The answer, as a line. `None`: no question was asked.
    pub(crate) fn answer(&self, config: &Config) -> Result<Option<String>, Failure> {
        let Some([sender, recipient]) = self.route.as_deref() else { return Ok(None) };
        let wrong = |what: &str| Failure::Configuration(format!("relay: `{what}` is no mailbox; write jo@example.org"));
        let mail: Mail = path(sender).parse().map_err(|_| wrong(sender))?;
        let rcpt: Rcpt = path(recipient).parse().map_err(|_| wrong(recipient))?;
        let mut facts = Facts::new(&mail.reverse_path, &rcpt.forward_path);
        facts.identity = self.identity.as_deref();
        facts.client = self.client;
        facts.tag = self.tag.as_deref();
        let name = |route: &Route| route.label.as_ref().map_or_else(String::new, |label| format!("{label}: "));
        let answer = match config.relay.route_of(&facts) {
            Ok(route) => format!("{}{}", name(&route), text_of(&route.to, route.protocol)),
            Err(refusal) => {
                let route = config.relay.routes.of(&facts).filter(|route| matches!(route.to, NextHop::Refuse(_)));
                format!("{}refuse {refusal}", route.map(|route| name(route)).unwrap_or_default())
            }
        };
        Ok(Some(format!("{} to {}: {answer}\n", mail.reverse_path, rcpt.forward_path)))
    }
}

/// With the angle brackets of SMTP.
fn path(mailbox: &str) -> String {
    format!("<{}>", mailbox.trim_start_matches('<').trim_end_matches('>'))
}
