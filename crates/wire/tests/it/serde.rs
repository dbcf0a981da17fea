//! Serialized values are deserialized to the same, and text that a parser refuses is refused.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::fmt::{Debug, Display};

use posthaste_wire::{
    BodyType, Domain, EhloName, EnhancedCode, ForwardPath, Mail, Mailbox, Notify, OriginalRecipient, Rcpt, Reply,
    ReplyCode, ReplyRef, Ret, ReversePath, Utf8Xtext, Xtext,
    parameter::{DateTime, DeliverBy, Priority, Rrvs, Solicitation},
};
use serde_json::{from_str, to_string};

/// The text is deserialized and serialized to the same string. With a line break it is refused.
fn string<T: serde::Serialize + serde::de::DeserializeOwned + Display + Debug>(text: &str) {
    let json = to_string(text).unwrap();
    let value: T = from_str(&json).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(value.to_string(), text);
    assert_eq!(to_string(&value).unwrap(), json);
    for wrong in [format!("{text}\r\n"), format!("{text}\0"), format!("\n{text}")] {
        assert!(from_str::<T>(&to_string(&wrong).unwrap()).is_err(), "{wrong:?}");
    }
}

#[test]
fn types_of_text_are_serialized_as_their_string() {
    string::<BodyType>("8BITMIME");
    string::<DateTime>("2009-07-07T04:00:00+02:00");
    string::<DeliverBy>("-10;NT");
    string::<Domain>("b\u{fc}cher.example");
    string::<EhloName>("[192.0.2.1]");
    string::<EnhancedCode>("5.7.30");
    string::<ForwardPath>("<Postmaster>");
    string::<Mail>("<a@b.example> SIZE=10 REQUIRETLS X=y");
    string::<Mailbox>("\"a b\"@c.example");
    string::<Notify>("SUCCESS,DELAY");
    string::<OriginalRecipient>("rfc822;a+2Bb@c.example");
    string::<Rcpt>("<a@b.example> NOTIFY=NEVER");
    string::<Ret>("HDRS");
    string::<ReversePath>("<>");
    string::<Rrvs>("2014-04-03T23:01:00Z;C");
    string::<Solicitation>("org.example:ADV:ADLT");
    string::<Utf8Xtext>("b\\x{FC}cher@c.example");
    string::<Xtext>("a+2Bb");
}

#[test]
fn deserialized_numbers_are_checked() {
    assert_eq!(from_str::<Priority>("-3").unwrap(), Priority::new(-3).unwrap());
    assert_eq!(to_string(&ReplyCode::OK).unwrap(), "250");
    for wrong in ["10", "-10", "1000", "\"3\""] {
        assert!(from_str::<Priority>(wrong).is_err(), "{wrong}");
    }
    for wrong in ["199", "600", "65536"] {
        assert!(from_str::<ReplyCode>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_reply_is_serialized_as_its_octets() {
    let reply = Reply::new(ReplyCode::OK, EnhancedCode::new(2, 0, 0), "one\ntwo");
    assert_eq!(to_string(&reply).unwrap(), r#""250-2.0.0 one\r\n250 2.0.0 two\r\n""#);
    assert_eq!(from_str::<Reply>(&to_string(&reply).unwrap()).unwrap(), reply);
    let latin1 = ReplyRef::parse(b"550 na\xefve\r\n").unwrap().into_owned();
    assert_eq!(from_str::<Reply>(&to_string(&latin1).unwrap()).unwrap(), latin1);
    for wrong in [r#""250 one\r\n250 two\r\n""#, r#""250 one""#, "[50, 53, 48]", "250"] {
        assert!(from_str::<Reply>(wrong).is_err(), "{wrong}");
    }
    let endless = format!("[{}50]", "50,".repeat(100_000));
    assert!(from_str::<Reply>(&endless).is_err());
}
