//! The feature `serde`: envelopes to and from any format, and the facts about a connection into
//! one.

use posthaste_tokio::{
    session::server::Protocol,
    wire::{
        BodyType, ForwardPath, Mail, Notify, OriginalRecipient, Rcpt, Ret, ReversePath, SyntaxError, Xtext,
        parameter::{DateTime, DeliverBy, Hold, Priority, Rrvs, Solicitation},
    },
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{ClientFacts, Context, Envelope, Peer, PeerAddress, PeerTls, Proxy};

/// In a human-readable format a map with a field for each parameter that is there. `other` has
/// those that are not known, such as `["X=y"]`. Other formats get the text of each command.
///
/// Reading checks all that the parser checks in the commands.
///
/// ```
/// # use posthaste_server::Envelope;
/// let text = r#"{
///     "mail": {"reverse_path": "<me@example.org>", "size": 21, "body": "8BITMIME"},
///     "recipients": [{"forward_path": "<you@example.net>", "notify": "NEVER"}]
/// }"#;
/// let envelope: Envelope = serde_json::from_str(text)?;
/// assert_eq!(envelope.mail.to_string(), "<me@example.org> SIZE=21 BODY=8BITMIME");
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Serialize for Envelope {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        if serializer.is_human_readable() {
            let recipients = self.recipients.iter().map(RcptFields::from).collect();
            Fields { mail: MailFields::from(&self.mail), recipients }.serialize(serializer)
        } else {
            Fields { mail: &self.mail, recipients: self.recipients.iter().collect() }.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let Fields { mail, recipients } = Fields::<MailFields, RcptFields>::deserialize(deserializer)?;
            let recipients = recipients.into_iter().map(|rcpt| rcpt.command().map_err(D::Error::custom));
            Ok(Self {
                mail: mail.command().map_err(D::Error::custom)?,
                recipients: recipients.collect::<Result<_, _>>()?,
            })
        } else {
            let Fields { mail, recipients } = Fields::deserialize(deserializer)?;
            Ok(Self { mail, recipients })
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Envelope", deny_unknown_fields)]
struct Fields<M, R> {
    mail: M,
    recipients: Vec<R>,
}

/// Of human-readable formats alone: the others could not leave a field out.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Mail", deny_unknown_fields)]
struct MailFields {
    reverse_path: ReversePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<BodyType>,
    #[serde(default, skip_serializing_if = "is_off")]
    smtputf8: bool,
    #[serde(default, skip_serializing_if = "is_off")]
    require_tls: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<Ret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envid: Option<Xtext>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<Xtext>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<DeliverBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold_for: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold_until: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mt_priority: Option<Priority>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    solicit: Option<Solicitation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other: Vec<String>,
}

/// As [`MailFields`].
#[derive(Serialize, Deserialize)]
#[serde(rename = "Rcpt", deny_unknown_fields)]
struct RcptFields {
    forward_path: ForwardPath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<Notify>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orcpt: Option<OriginalRecipient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rrvs: Option<Rrvs>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other: Vec<String>,
}

impl From<&Mail> for MailFields {
    fn from(mail: &Mail) -> Self {
        let other = mail.borrowed().unknown().map(|parameter| parameter.to_string()).collect();
        // Exhaustive: a new parameter gets a field here.
        let Mail {
            reverse_path,
            size,
            body,
            smtputf8,
            require_tls,
            ret,
            envid,
            auth,
            by,
            hold,
            mt_priority,
            solicit,
            parameters: _,
        } = mail.clone();
        let (hold_for, hold_until) = match hold {
            None => (None, None),
            Some(Hold::For(seconds)) => (Some(seconds), None),
            Some(Hold::Until(time)) => (None, Some(time)),
        };
        Self {
            reverse_path,
            size,
            body,
            smtputf8,
            require_tls,
            ret,
            envid,
            auth,
            by,
            hold_for,
            hold_until,
            mt_priority,
            solicit,
            other,
        }
    }
}

impl MailFields {
    /// What the parser makes of these as a command.
    fn command(self) -> Result<Mail, Invalid> {
        let hold = match (self.hold_for, self.hold_until) {
            (None, None) => None,
            (Some(seconds), None) => Some(Hold::For(seconds)),
            (None, Some(time)) => Some(Hold::Until(time)),
            (Some(_), Some(_)) => return Err(Invalid::TwoHolds),
        };
        let mail = Mail {
            size: self.size,
            body: self.body,
            smtputf8: self.smtputf8,
            require_tls: self.require_tls,
            ret: self.ret,
            envid: self.envid,
            auth: self.auth,
            by: self.by,
            hold,
            mt_priority: self.mt_priority,
            solicit: self.solicit,
            ..Mail::new(self.reverse_path)
        };
        let text = with_other(mail.to_string(), &self.other);
        let mail = Mail::parse(&text)?;
        check_other(mail.unknown().map(|parameter| parameter.to_string()), &self.other)?;
        Ok(mail.into_owned())
    }
}

impl From<&Rcpt> for RcptFields {
    fn from(rcpt: &Rcpt) -> Self {
        let other = rcpt.borrowed().unknown().map(|parameter| parameter.to_string()).collect();
        // As for MAIL.
        let Rcpt { forward_path, notify, orcpt, rrvs, parameters: _ } = rcpt.clone();
        Self { forward_path, notify, orcpt, rrvs, other }
    }
}

impl RcptFields {
    fn command(self) -> Result<Rcpt, Invalid> {
        let rcpt = Rcpt { notify: self.notify, orcpt: self.orcpt, rrvs: self.rrvs, ..Rcpt::new(self.forward_path) };
        let text = with_other(rcpt.to_string(), &self.other);
        let rcpt = Rcpt::parse(&text)?;
        check_other(rcpt.unknown().map(|parameter| parameter.to_string()), &self.other)?;
        Ok(rcpt.into_owned())
    }
}

fn with_other(mut command: String, other: &[String]) -> String {
    for parameter in other {
        command.push(' ');
        command.push_str(parameter);
    }
    command
}

/// A parameter with a field, or a blank that makes two of one, has no place among the others.
fn check_other(parsed: impl Iterator<Item = String>, other: &[String]) -> Result<(), Invalid> {
    if parsed.eq(other.iter().cloned()) { Ok(()) } else { Err(Invalid::Other) }
}

/// Why fields are no command.
#[derive(Debug, thiserror::Error)]
enum Invalid {
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    #[error("`hold_for` and `hold_until` exclude each other")]
    TwoHolds,
    #[error("`other` takes parameters without a field of their own, one in each text")]
    Other,
}

fn is_off(flag: &bool) -> bool {
    !flag
}

/// Its text: the address and port, or `local`.
impl Serialize for PeerAddress {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Peer {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        #[derive(Serialize)]
        #[serde(rename = "Peer")]
        struct Fields<'p> {
            address: PeerAddress,
            network: std::net::IpAddr,
            local: PeerAddress,
            hello: Option<String>,
            extended: bool,
            tls: Option<&'p PeerTls>,
            identity: Option<&'p str>,
            proxy: Option<&'p Proxy>,
        }

        let Self { address, network, local, hello, extended, tls, identity, proxy } = self;
        let fields = Fields {
            address: *address,
            network: *network,
            local: *local,
            hello: hello.as_ref().map(ToString::to_string),
            extended: *extended,
            tls: tls.as_deref(),
            identity: identity.as_deref(),
            proxy: proxy.as_deref(),
        };
        fields.serialize(serializer)
    }
}

/// A certificate is its fingerprint.
impl Serialize for PeerTls {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        #[derive(Serialize)]
        #[serde(rename = "PeerTls")]
        struct Fields<'t> {
            version: Option<&'t str>,
            cipher_suite: Option<&'t str>,
            server_name: Option<&'t str>,
            certificate: Option<String>,
        }

        let Self { version, cipher_suite, server_name, certificate } = self;
        let fields = Fields {
            version: version.as_str(),
            cipher_suite: cipher_suite.as_ref().and_then(|suite| suite.as_str()),
            server_name: server_name.as_deref(),
            certificate: certificate.as_ref().map(|certificate| certificate.fingerprint()),
        };
        fields.serialize(serializer)
    }
}

impl Serialize for Proxy {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        #[derive(Serialize)]
        #[serde(rename = "Proxy")]
        struct Fields<'p> {
            address: PeerAddress,
            client_name: Option<&'p str>,
        }

        let Self { address, client_name } = self;
        Fields { address: *address, client_name: client_name.as_deref() }.serialize(serializer)
    }
}

/// What XFORWARD says, by the names of its attributes.
#[derive(Serialize)]
struct Forwarded<'f> {
    name: Option<&'f str>,
    address: Option<std::net::IpAddr>,
    port: Option<u16>,
    protocol: Option<&'f str>,
    hello: Option<String>,
    ident: Option<&'f str>,
    is_local: Option<bool>,
}

impl<'f> From<&'f ClientFacts> for Forwarded<'f> {
    fn from(facts: &'f ClientFacts) -> Self {
        Self {
            name: facts.name.as_deref(),
            address: facts.address,
            port: facts.port,
            protocol: facts.protocol.as_deref(),
            hello: facts.hello.as_ref().map(ToString::to_string),
            ident: facts.ident.as_deref(),
            is_local: facts.is_local,
        }
    }
}

/// Of the settings the server's name and protocol.
impl Serialize for Context {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        #[derive(Serialize)]
        #[serde(rename = "Context")]
        struct Fields<'c> {
            connection: u64,
            host_name: String,
            protocol: &'static str,
            peer: &'c Peer,
            envelope: Option<&'c Envelope>,
            forwarded: Option<Forwarded<'c>>,
        }

        let Self { peer, settings, connection, envelope, forwarded } = self;
        let fields = Fields {
            connection: *connection,
            host_name: settings.host_name.to_string(),
            protocol: match settings.protocol {
                Protocol::Smtp => "SMTP",
                Protocol::Lmtp => "LMTP",
            },
            peer,
            envelope: envelope.as_ref(),
            forwarded: forwarded.as_deref().map(Forwarded::from),
        };
        fields.serialize(serializer)
    }
}
