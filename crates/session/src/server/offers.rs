//! What EHLO offers, and which parameters belong to it.

use alloc::string::String;
use core::{fmt::Write as _, num::NonZeroU32};

use posthaste_wire::{
    BodyType, Capability, Mail, Rcpt, Reply, ReplyCode,
    capability::{Limits, Words},
    parameter::{DateTime, DeliverBy, DeliverByMode, Hold},
};

use super::{Offers, ServerSession, Transport, facts, replies};
use crate::Tick;

impl ServerSession {
    pub(super) fn may_offer_auth(&self) -> bool {
        !self.mechanisms().is_empty() && self.is_protected()
    }

    /// Returns `true` if a password may cross this connection.
    pub(super) fn is_protected(&self) -> bool {
        self.is_tls() || self.settings.offers.auth_in_clear
    }

    /// The longest hold: in seconds, and as a point in time. `None`: FUTURERELEASE is not offered.
    fn longest_hold(&self, now: Tick) -> Option<(u32, DateTime)> {
        let longest = self.settings.offers.future_release?;
        let since_origin = i64::try_from(now.since_origin().as_secs()).unwrap_or(i64::MAX);
        let latest = self.unix_origin?.saturating_add(since_origin).saturating_add(longest.into());
        Some((longest, DateTime::from_unix_seconds(latest)?))
    }

    /// The reply to HELO, or the capabilities to EHLO (RFC 5321 section 4.1.1.1).
    pub(super) fn hello_reply(&self, extended: bool, now: Tick) -> Reply {
        let mut text = String::from(self.settings.host_name.as_str());
        if extended {
            let offers = &self.settings.offers;
            let auth = self.may_offer_auth() && !self.client.authenticated;
            let mut limits = Limits::default();
            limits.rcpt_max = u32::try_from(self.settings.limits.recipients).ok().and_then(NonZeroU32::new);
            let hold = self.longest_hold(now);
            let lines = [
                Some(Capability::Pipelining),
                Some(Capability::Size(self.settings.limits.message_size)),
                Some(Capability::EightBitMime),
                Some(Capability::EnhancedStatusCodes),
                offers.smtputf8.then_some(Capability::SmtpUtf8),
                offers.dsn.then_some(Capability::Dsn),
                (offers.chunking || offers.binary_mime).then_some(Capability::Chunking),
                offers.binary_mime.then_some(Capability::BinaryMime),
                (self.transport == Transport::StartTls).then_some(Capability::StartTls),
                (offers.require_tls && self.is_tls()).then_some(Capability::RequireTls),
                auth.then_some(Capability::Auth(self.mechanisms().into())),
                offers.deliver_by.map(|least| Capability::DeliverBy(Some(least).filter(|least| *least > 0))),
                hold.as_ref().map(|(seconds, latest)| Capability::FutureRelease {
                    max_interval: *seconds,
                    max_date_time: latest.as_str(),
                }),
                offers
                    .mt_priority
                    .as_deref()
                    .map(|profile| Capability::MtPriority(Some(profile).filter(|profile| !profile.is_empty()))),
                offers.rrvs.then_some(Capability::Rrvs),
                offers.no_soliciting.as_deref().map(|keywords| Capability::NoSoliciting(Words::new(keywords))),
                offers.limits.then_some(Capability::Limits(limits.into())),
                (offers.xclient && !self.is_introduced()).then_some(Capability::XClient(Words::new(facts::XCLIENT))),
                (offers.xforward && !self.is_introduced()).then_some(Capability::XForward(Words::new(facts::XFORWARD))),
            ];
            for line in lines.into_iter().flatten() {
                // Writing to a String does not fail.
                let _ = write!(text, "\n{line}");
            }
        }
        Reply::new(ReplyCode::OK, None, &text)
    }

    /// Why MAIL is refused without asking the application.
    pub(super) fn mail_refusal(&self, mail: &Mail<&str>, now: Tick) -> Option<&'static Reply> {
        let offers = &self.settings.offers;
        if offers.demand_tls && !self.is_tls() {
            return Some(&replies::TLS_REQUIRED);
        }
        if offers.demand_auth && !self.client.authenticated {
            return Some(&replies::AUTH_REQUIRED);
        }
        // Each parameter needs its extension. A new field has to be named here, and gets its row.
        let Mail {
            reverse_path: _,
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
        } = mail;
        let uses = [
            (*smtputf8, offers.smtputf8),
            (ret.is_some() || envid.is_some(), offers.dsn),
            (auth.is_some(), self.may_offer_auth() || self.client.authenticated),
            (*body == Some(BodyType::BinaryMime), offers.binary_mime),
            (*require_tls, offers.require_tls && self.is_tls()),
            (by.is_some(), offers.deliver_by.is_some()),
            (hold.is_some(), offers.future_release.is_some() && self.unix_origin.is_some()),
            (mt_priority.is_some(), offers.mt_priority.is_some()),
            (solicit.is_some(), offers.no_soliciting.is_some()),
            (mail.unknown().next().is_some(), false),
        ];
        if uses.iter().any(|(used, offered)| *used && !offered) {
            return Some(&replies::UNKNOWN_PARAMETER);
        }
        if size.is_some_and(|size| size > self.settings.limits.message_size) {
            return Some(replies::MESSAGE_TOO_LARGE.reply());
        }
        if by.is_some_and(|by| is_too_soon(by, offers)) {
            return Some(&replies::BY_TOO_SOON);
        }
        let is_too_long = match (*hold, self.longest_hold(now)) {
            (Some(Hold::For(seconds)), Some((longest, _))) => seconds > longest,
            (Some(Hold::Until(time)), Some((_, latest))) => time.unix_seconds() > latest.unix_seconds(),
            (None, _) | (_, None) => false,
        };
        is_too_long.then_some(&replies::HELD_TOO_LONG)
    }

    /// Why RCPT is refused without asking the application.
    pub(super) fn rcpt_refusal(&self, rcpt: &Rcpt<&str>) -> Option<&'static Reply> {
        let offers = &self.settings.offers;
        let Rcpt { forward_path: _, notify, orcpt, rrvs, parameters: _ } = rcpt;
        let uses = [
            (notify.is_some() || orcpt.is_some(), offers.dsn),
            (rrvs.is_some(), offers.rrvs),
            (rcpt.unknown().next().is_some(), false),
        ];
        uses.iter().any(|(used, offered)| *used && !offered).then_some(&replies::UNKNOWN_PARAMETER)
    }
}

/// Returns `true` if the client gives less time than the offered minimum (RFC 2852 section 3).
fn is_too_soon(by: DeliverBy, offers: &Offers) -> bool {
    let least = offers.deliver_by.unwrap_or(0);
    by.mode == DeliverByMode::Return && u32::try_from(by.seconds).unwrap_or(0) < least
}
