//! The part for programs: message/delivery-status (RFC 3464 section 2) and
//! message/global-delivery-status (RFC 6533 section 4.1), with the fields of RFC 2852 section 5 and
//! RFC 4865 section 5.1.2.

use posthaste_server::wire::{OriginalRecipient, Utf8Xtext, parameter::Hold};

use super::{About, Action, Charset, Entry, Shape, address, date_of, mime::folded};
use crate::event::shortened;

pub(super) fn write(about: &About<'_>, entries: &[Entry], charset: Charset, shape: Shape) -> Vec<u8> {
    let mut fields = Fields { out: String::new(), charset, shape };
    fields.of_message(about);
    for entry in entries.iter().take(shape.recipients) {
        fields.out.push_str("\r\n");
        fields.of_recipient(about, entry);
    }
    fields.out.into_bytes()
}

struct Fields {
    out: String,
    charset: Charset,
    shape: Shape,
}

impl Fields {
    fn of_message(&mut self, about: &About<'_>) {
        let outside = about.outside;
        let mail = &outside.mail;
        if let Some(envid) = &mail.envid {
            self.put("Original-Envelope-Id", &String::from_utf8_lossy(&envid.decode()));
        }
        self.put("Reporting-MTA", &format!("dns; {}", about.own_name));
        if let Some(client) = &outside.received_from {
            self.put("Received-From-MTA", &format!("dns; {client}"));
        }
        self.put_date("Arrival-Date", Some(outside.accepted));
        if let Some(by) = mail.by {
            self.put_date("Deliver-By-Date", outside.accepted.checked_add(by.seconds.into()));
        }
        match &mail.hold {
            Some(Hold::For(seconds)) => self.put("Future-Release-Request", &format!("for;{seconds}")),
            Some(Hold::Until(time)) => self.put("Future-Release-Request", &format!("until;{time}")),
            None => {}
        }
        self.put("X-Queue-ID", &about.message.to_string());
    }

    fn of_recipient(&mut self, about: &About<'_>, entry: &Entry) {
        let is_bare = self.shape.is_bare();
        if let Some(orcpt) = entry.rcpt.orcpt.as_ref().filter(|_| !is_bare) {
            let (kind, address) = self.original(orcpt);
            self.put("Original-Recipient", &format!("{kind}; {address}"));
        }
        let address = address(&entry.rcpt, about.own_name);
        match address.is_ascii() {
            true => self.put("Final-Recipient", &format!("rfc822; {address}")),
            false => self.put("Final-Recipient", &format!("utf-8; {}", self.utf8(&address))),
        }
        self.put("Action", entry.action.word());
        let diagnostic = &entry.diagnostic;
        self.put("Status", &diagnostic.status.to_string());
        if is_bare {
            return;
        }
        if let Some(remote) = diagnostic.remote_host() {
            self.put("Remote-MTA", &format!("dns; {remote}"));
        }
        let kind = if diagnostic.is_reply { "smtp" } else { "x-posthaste" };
        self.put("Diagnostic-Code", &format!("{kind}; {}", shortened(&diagnostic.text, self.shape.words)));
        self.put_date("Last-Attempt-Date", entry.attempted);
        if entry.action == Action::Delayed {
            self.put_date("Will-Retry-Until", Some(about.will_retry_until));
        }
    }

    /// The type and the address of ORCPT, decoded where the charset has the characters (RFC 3461
    /// section 6.3, RFC 6533 section 4.1).
    fn original<'o>(&self, orcpt: &'o OriginalRecipient) -> (&'o str, String) {
        let (kind, address) = (orcpt.address_type(), orcpt.address());
        match kind.eq_ignore_ascii_case("utf-8") {
            true => (kind, self.utf8(&address)),
            false => (kind, address.into_owned()),
        }
    }

    /// An address of the type `utf-8`: as it is, or in the encoding that ASCII has for it (RFC 6533
    /// section 3).
    fn utf8(&self, address: &str) -> String {
        let encoded = match self.charset {
            Charset::Ascii => Utf8Xtext::encode(address).ok(),
            Charset::Utf8 => None,
        };
        encoded.map_or_else(|| address.to_owned(), |encoded| encoded.as_str().to_owned())
    }

    fn put(&mut self, name: &str, value: &str) {
        self.out.push_str(&folded(&format!("{name}: {}", self.charset.fit(value)), "\t"));
        self.out.push_str("\r\n");
    }

    fn put_date(&mut self, name: &str, seconds: Option<i64>) {
        if let Some(date) = seconds.and_then(date_of) {
            self.put(name, &date);
        }
    }
}
