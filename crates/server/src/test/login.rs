//! Logging in, by every mechanism.

use posthaste_tokio::{
    session::sasl::{
        ChannelBinding, ClientContext, ClientCredentials, ClientMechanism, ClientStep, Credentials, Nonce, Protection,
        TLS_EXPORTER_LABEL,
    },
    wire::{Mechanism, MechanismSet},
};

use super::{Client, Reply, client::Stream};
use crate::password::random;

impl Client {
    /// Logs in with a name and a password, by the strongest mechanism that the server offers.
    /// Returns the last reply: 235, or the refusal. The exchange itself is not in the
    /// [transcript](Self::transcript), since it differs from run to run.
    ///
    /// # Panics
    /// EHLO was not said before, or the server offers no mechanism for passwords. The server's
    /// proof (SCRAM) is wrong.
    #[must_use = "check the reply with `expect`"]
    pub async fn login(&mut self, name: &str, password: &str) -> Reply {
        let offered = self.offered();
        self.exchange(offered, Credentials::new(name, password).into()).await
    }

    /// Logs in by this mechanism, also if the server does not offer it. The credentials are
    /// [`Credentials`], a [`BearerToken`](crate::BearerToken) or other [`ClientCredentials`]. In
    /// all else as [`login`](Self::login).
    ///
    /// # Panics
    /// The mechanism does not take such credentials, or the server's proof (SCRAM) is wrong.
    #[must_use = "check the reply with `expect`"]
    pub async fn login_by(&mut self, mechanism: Mechanism, credentials: impl Into<ClientCredentials>) -> Reply {
        self.exchange(MechanismSet::of(&[mechanism]), credentials.into()).await
    }

    fn offered(&self) -> MechanismSet {
        let extensions = self.extensions.as_ref();
        let extensions = extensions.unwrap_or_else(|| self.fail("Say EHLO before a login: `client.ehlo().await`."));
        let Some(names) = extensions.iter().find_map(|line| line.strip_prefix("AUTH ")) else {
            self.fail(
                "The server offers no AUTH here. Put mechanisms into `settings.offers.auth`; without TLS \
                 `settings.offers.auth_in_clear` has to be on as well.",
            )
        };
        let mechanisms: Vec<Mechanism> = names.split(' ').filter_map(Mechanism::from_name).collect();
        MechanismSet::of(&mechanisms)
    }

    async fn exchange(&mut self, offered: MechanismSet, credentials: ClientCredentials) -> Reply {
        let mut context = ClientContext::new(Nonce::from_random(random().unwrap()));
        // A client would not send a password in clear. What the server does with one can be tested.
        context.protection = Protection::Verified;
        context.channel_binding = self.channel_binding(offered);
        let chosen = ClientMechanism::choose(offered, credentials, context);
        let mut exchange = chosen.unwrap_or_else(|error| self.fail(&format!("No login is possible: {error}.")));
        let (name, initial) = (exchange.name(), exchange.initial_response());
        self.logging_in = true;
        let mut reply = match initial {
            Some(text) => {
                let line = format!("AUTH {name} {}", text.expose());
                self.ask_shown(&line, &format!("AUTH {name} <response>")).await
            }
            None => self.ask_shown(&format!("AUTH {name}"), &format!("AUTH {name}")).await,
        };
        while let Some(challenge) = reply.as_str().strip_prefix("334 ") {
            reply = match exchange.respond(challenge.as_bytes()) {
                ClientStep::Respond(text) => self.ask_shown(text.expose(), "<response>").await,
                ClientStep::GiveUp(fault) => self.fail(&format!("The client gives the login up: {fault}.")),
            };
        }
        self.logging_in = false;
        if let (true, Err(fault)) = (reply.as_str().starts_with("235"), exchange.finish()) {
            self.fail(&format!("The login succeeded without a proof of the server: {fault}."));
        }
        reply
    }

    /// What SCRAM-SHA-256-PLUS needs. A client that may not use it must not say that it could.
    fn channel_binding(&self, offered: MechanismSet) -> Option<ChannelBinding> {
        let Stream::Tls(stream) = &self.stream else { return None };
        if !offered.contains(Mechanism::ScramSha256Plus) {
            return None;
        }
        let exported = stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(&[]));
        exported.ok().map(ChannelBinding::tls_exporter)
    }
}
