//! The envelope of a message as it goes to one next hop. What this relay has done is dropped. So is
//! what the next hop lacks and the message does not need. [`downgrade`] finds what the next hop
//! lacks and the message does need.
//!
//! [`downgrade`]: posthaste_client::session::client::downgrade

use posthaste_client::session::client::downgrade::owes_relayed_report;
use posthaste_server::wire::{
    BodyType, Capabilities, ForwardPath, Mail, Mailbox, Notify, Rcpt, ReversePath,
    capability::Keyword,
    parameter::{DeliverBy, DeliverByMode},
};

use crate::record::Outside;

/// A message for a next hop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit<'a, 's> {
    pub(super) outside: &'a Outside,
    /// BY with the time that is left.
    pub(super) by: Option<DeliverBy>,
    pub(super) server: &'s Capabilities,
    /// TLS has proved the server's identity.
    pub(super) verified: bool,
    /// The server is a Unix socket of this machine: no network carries the mail, so that it needs
    /// no TLS.
    pub(super) local: bool,
}

impl<'a> Fit<'a, '_> {
    /// MAIL, with this sender.
    pub(super) fn mail<'m>(&self, sender: ReversePath<&'m str>) -> Mail<&'m str>
    where
        'a: 'm,
    {
        let (outside, server) = (self.outside, self.server);
        let mut mail = Mail { reverse_path: sender, by: self.by, hold: None, ..outside.mail.borrowed() };
        // Every message has a priority. A message that names none has 0 (RFC 6710 sections 4.1 and
        // 4.2).
        mail.mt_priority.get_or_insert_default();
        // Content in ASCII needs neither SMTPUTF8 nor 8BITMIME, whatever MAIL says. Content with
        // ASCII fields needs 8BITMIME alone.
        if outside.all_ascii || outside.ascii_fields {
            let ascii_sender = mail.reverse_path.mailbox().is_none_or(|sender| sender.is_ascii());
            mail.smtputf8 &= server.offers(Keyword::SmtpUtf8) || !ascii_sender;
        }
        if outside.all_ascii {
            mail.body =
                mail.body.filter(|body| *body != BodyType::EightBitMime || server.offers(Keyword::EightBitMime));
        } else if outside.ascii_fields && mail.body != Some(BodyType::BinaryMime) {
            // An application need not have declared it.
            mail.body = Some(BodyType::EightBitMime);
        }
        // A report is guarded if possible, and goes on without otherwise (RFC 8689 section 5).
        let guarded = self.verified && server.offers(Keyword::RequireTls);
        mail.require_tls &= guarded || mail.reverse_path != ReversePath::Null;
        mail.require_tls &= !self.local;
        mail
    }

    /// RCPT, with this address.
    pub(super) fn rcpt<'m>(&self, rcpt: Rcpt<&'m str>, ascii: Option<&'m Mailbox>) -> Rcpt<&'m str> {
        let forward_path = ascii.map_or(rcpt.forward_path, |mailbox| ForwardPath::Mailbox(mailbox.borrowed()));
        // The next hop and those after it do not watch the deadline. They are asked to report a
        // delay instead (RFC 2852 section 4.1.4.2).
        let unwatched = self.by.is_some_and(|by| by.mode == DeliverByMode::Notify && by.seconds > 0)
            && !self.server.offers(Keyword::DeliverBy);
        let notify = match rcpt.notify {
            None if unwatched => Some(Notify { failure: true, delay: true, ..Notify::NEVER }),
            Some(notify) if unwatched && notify != Notify::NEVER => Some(Notify { delay: true, ..notify }),
            notify => notify,
        };
        Rcpt { forward_path, notify, ..rcpt }
    }

    /// A mailbox in ASCII for a next hop without SMTPUTF8, if only the domain is not ASCII. `None`:
    /// the mailbox stays as it is.
    pub(super) fn ascii(&self, mailbox: Option<&Mailbox>) -> Option<Mailbox> {
        let mailbox = mailbox.filter(|mailbox| !mailbox.is_ascii() && !self.server.offers(Keyword::SmtpUtf8))?;
        mailbox.to_a_labels().ok().filter(Mailbox::is_ascii)
    }

    /// Returns `true` if the sender is owed a report of the relaying when the next hop takes the
    /// message for this recipient.
    pub(super) fn owes_relayed_report(&self, rcpt: &Rcpt<&str>) -> bool {
        let mail = Mail { by: self.by, ..self.outside.mail.borrowed() };
        mail.reverse_path != ReversePath::Null && owes_relayed_report(&mail, rcpt, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_client::session::client::downgrade::{self, NextHop, Undeliverable};
    use posthaste_server::wire::{Reply, ReplyCode};

    fn server(keywords: &str) -> Capabilities {
        let text = format!("hop.test {keywords}").split_whitespace().collect::<Vec<_>>().join("\n");
        Capabilities::from_reply(&Reply::new(ReplyCode::OK, None, &text).borrowed()).into_owned()
    }

    fn outside(mail: &str, all_ascii: bool) -> Outside {
        Outside { all_ascii, ..Outside::of(mail.parse().unwrap()) }
    }

    /// MAIL as it goes to this server, if that takes it: the fields alone, as on the line.
    fn fitted(outside: &Outside, server: &Capabilities) -> Result<String, Undeliverable> {
        let fit = Fit { outside, by: outside.mail.by, server, verified: true, local: false };
        let sender = fit.ascii(outside.mail.reverse_path.mailbox());
        let path = outside.mail.reverse_path.borrowed();
        let mail = fit.mail(sender.as_ref().map_or(path, |sender| ReversePath::Mailbox(sender.borrowed())));
        let mail = downgrade::mail(mail, NextHop { capabilities: server, tls_is_verified: true })?;
        Ok(Mail { parameters: Default::default(), ..mail }.to_string())
    }

    /// RFC 6531 sections 3.4 and 3.6: what needs SMTPUTF8 is an address or a field.
    #[test]
    fn smtputf8_mail_goes_to_every_next_hop_that_takes_its_addresses_its_header_and_its_body() {
        use Content::{AllAscii, AsciiFields, Utf8Fields};
        enum Content {
            AllAscii,
            AsciiFields,
            Utf8Fields,
        }
        const SENDER: &str = "<a@b> BODY=8BITMIME SMTPUTF8";
        const IN_UTF8: &str = "<\u{e4}@b> BODY=8BITMIME SMTPUTF8";
        const WITH_DOMAIN: &str = "<a@\u{e4}.test> BODY=8BITMIME SMTPUTF8";
        for (mail, content, keywords, expected) in [
            (SENDER, AllAscii, "", Ok("<a@b>")),
            (SENDER, AllAscii, "8BITMIME", Ok("<a@b> BODY=8BITMIME")),
            (SENDER, AsciiFields, "", Err(Undeliverable::EightBit)),
            (SENDER, AsciiFields, "8BITMIME", Ok("<a@b> BODY=8BITMIME")),
            (SENDER, AsciiFields, "8BITMIME SMTPUTF8", Ok(SENDER)),
            (SENDER, Utf8Fields, "", Err(Undeliverable::EightBit)),
            (SENDER, Utf8Fields, "8BITMIME", Err(Undeliverable::Utf8)),
            (SENDER, Utf8Fields, "8BITMIME SMTPUTF8", Ok(SENDER)),
            (IN_UTF8, AllAscii, "", Err(Undeliverable::Utf8)),
            (IN_UTF8, AllAscii, "8BITMIME", Err(Undeliverable::Utf8)),
            (IN_UTF8, AsciiFields, "8BITMIME", Err(Undeliverable::Utf8)),
            (IN_UTF8, AsciiFields, "8BITMIME SMTPUTF8", Ok(IN_UTF8)),
            (WITH_DOMAIN, AllAscii, "", Ok("<a@xn--4ca.test>")),
            (WITH_DOMAIN, AsciiFields, "8BITMIME", Ok("<a@xn--4ca.test> BODY=8BITMIME")),
            (WITH_DOMAIN, AsciiFields, "8BITMIME SMTPUTF8", Ok(WITH_DOMAIN)),
            (WITH_DOMAIN, Utf8Fields, "8BITMIME", Err(Undeliverable::Utf8)),
            // An application has not declared its 8-bit body.
            ("<a@b> SMTPUTF8", AsciiFields, "8BITMIME", Ok("<a@b> BODY=8BITMIME")),
            ("<a@b> SMTPUTF8", AsciiFields, "", Err(Undeliverable::EightBit)),
            ("<a@b> BODY=BINARYMIME SMTPUTF8", AsciiFields, "8BITMIME", Err(Undeliverable::Binary)),
        ] {
            let (all_ascii, ascii_fields) = match content {
                AllAscii => (true, false),
                AsciiFields => (false, true),
                Utf8Fields => (false, false),
            };
            let outside = Outside { ascii_fields, ..outside(mail, all_ascii) };
            assert_eq!(fitted(&outside, &server(keywords)), expected.map(str::to_owned), "{mail} to {keywords:?}");
        }
    }

    #[test]
    fn mail_loses_parameters_that_are_done_or_not_needed() {
        for (mail, all_ascii, keywords, fitted) in [
            ("<a@b>", true, "", "<a@b> MT-PRIORITY=0"),
            ("<a@b> MT-PRIORITY=3 HOLDFOR=60", true, "", "<a@b> MT-PRIORITY=3"),
            ("<a@b> BODY=8BITMIME", true, "", "<a@b> MT-PRIORITY=0"),
            ("<a@b> BODY=8BITMIME", true, "8BITMIME", "<a@b> BODY=8BITMIME MT-PRIORITY=0"),
            ("<a@b> BODY=8BITMIME", false, "", "<a@b> BODY=8BITMIME MT-PRIORITY=0"),
            ("<a@b> BODY=BINARYMIME", true, "8BITMIME", "<a@b> BODY=BINARYMIME MT-PRIORITY=0"),
            ("<a@b> SMTPUTF8", true, "", "<a@b> MT-PRIORITY=0"),
            ("<a@b> SMTPUTF8", true, "SMTPUTF8", "<a@b> SMTPUTF8 MT-PRIORITY=0"),
            ("<a@b> SMTPUTF8", false, "", "<a@b> SMTPUTF8 MT-PRIORITY=0"),
            ("<\u{e4}@b> SMTPUTF8", true, "", "<\u{e4}@b> SMTPUTF8 MT-PRIORITY=0"),
            ("<a@\u{e4}.test> SMTPUTF8", true, "", "<a@xn--4ca.test> MT-PRIORITY=0"),
            ("<a@\u{e4}.test> SMTPUTF8", true, "SMTPUTF8", "<a@\u{e4}.test> SMTPUTF8 MT-PRIORITY=0"),
            ("<a@b> REQUIRETLS", true, "", "<a@b> REQUIRETLS MT-PRIORITY=0"),
            ("<> REQUIRETLS", true, "REQUIRETLS", "<> REQUIRETLS MT-PRIORITY=0"),
            ("<> REQUIRETLS", true, "", "<> MT-PRIORITY=0"),
            ("<a@b> BY=100;N", true, "", "<a@b> BY=40;N MT-PRIORITY=0"),
        ] {
            let (outside, server) = (outside(mail, all_ascii), server(keywords));
            let by = outside.mail.by.map(|by| DeliverBy { seconds: by.seconds - 60, ..by });
            let fit = Fit { outside: &outside, by, server: &server, verified: true, local: false };
            let sender = fit.ascii(outside.mail.reverse_path.mailbox());
            let sender = sender
                .as_ref()
                .map_or(outside.mail.reverse_path.borrowed(), |sender| ReversePath::Mailbox(sender.borrowed()));
            // The fields alone, as on the line.
            let mail_fitted = Mail { parameters: Default::default(), ..fit.mail(sender) };
            assert_eq!(mail_fitted.to_string(), fitted, "{mail} to {keywords:?}");
        }
    }

    #[test]
    fn a_report_goes_without_requiretls_to_an_unverified_server() {
        let (outside, server) = (outside("<> REQUIRETLS", true), server("REQUIRETLS"));
        let fit = Fit { outside: &outside, by: None, server: &server, verified: false, local: false };
        assert!(!fit.mail(ReversePath::Null).require_tls);
    }

    #[test]
    fn mail_to_a_unix_socket_needs_no_tls() {
        for keywords in ["", "REQUIRETLS"] {
            let (outside, server) = (outside("<a@b> REQUIRETLS", true), server(keywords));
            let fit = Fit { outside: &outside, by: None, server: &server, verified: false, local: true };
            assert!(!fit.mail(ReversePath::Null).require_tls, "{keywords:?}");
        }
    }

    #[test]
    fn notify_asks_for_delay_at_a_next_hop_without_deliverby() {
        for (by, notify, keywords, fitted) in [
            ("BY=10;N", "", "DSN", "NOTIFY=FAILURE,DELAY"),
            ("BY=10;N", "NOTIFY=SUCCESS", "DSN", "NOTIFY=SUCCESS,DELAY"),
            ("BY=10;N", "NOTIFY=NEVER", "DSN", "NOTIFY=NEVER"),
            ("BY=10;N", "", "DSN DELIVERBY", ""),
            ("BY=-10;N", "NOTIFY=FAILURE", "DSN", "NOTIFY=FAILURE"),
            ("BY=10;R", "NOTIFY=FAILURE", "DSN", "NOTIFY=FAILURE"),
        ] {
            let (outside, server) = (outside(&format!("<a@b> {by}"), true), server(keywords));
            let line = format!("<c@d> {notify}");
            let deadline = outside.mail.by;
            let fit = Fit { outside: &outside, by: deadline, server: &server, verified: false, local: false };
            let rcpt = Rcpt { parameters: Default::default(), ..fit.rcpt(Rcpt::parse(line.trim()).unwrap(), None) };
            assert_eq!(rcpt.to_string().trim(), format!("<c@d> {fitted}").trim(), "{by} {notify} to {keywords}");
        }
    }
}
