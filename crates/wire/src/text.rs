//! Conversions of the types that hold text: from a `str`, and with the feature `serde` to and from
//! a string.

use core::str::FromStr;

use crate::{
    error::SyntaxError,
    parameter::{DateTime, OriginalRecipient, Rrvs, Solicitation},
    utf8_xtext::Utf8Xtext,
    xtext::Xtext,
};

/// Makes the owned form from the borrowed form that `parse` gives.
macro_rules! from_str {
    ($($name:ident),*) => {
        $(
            impl FromStr for $name {
                type Err = SyntaxError;

                fn from_str(text: &str) -> Result<Self, SyntaxError> {
                    $name::parse(text).map($name::into_owned)
                }
            }
        )*
    };
}

from_str!(DateTime, OriginalRecipient, Rrvs, Solicitation, Utf8Xtext, Xtext);

#[cfg(feature = "serde")]
mod serde {
    use alloc::{borrow::Cow, vec::Vec};
    use core::fmt;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{DateTime, OriginalRecipient, Rrvs, Solicitation, Utf8Xtext, Xtext};
    use crate::{
        address::{Domain, EhloName, ForwardPath, Mailbox, ReversePath},
        command::{Mail, Rcpt},
        parameter::{BodyType, DeliverBy, Notify, Priority, Ret},
        reply::{EnhancedCode, Reply, ReplyCode, ReplyLimits, ReplyRef},
    };

    /// A string. The type's own parser checks it on reading.
    macro_rules! string {
        ($($name:ident $(<$text:ident>)?),* $(,)?) => {
            $(
                impl$(<$text: AsRef<str>>)? Serialize for $name$(<$text>)? {
                    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                        serializer.collect_str(self)
                    }
                }

                impl<'de> Deserialize<'de> for $name {
                    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        let text = Cow::<'de, str>::deserialize(deserializer)?;
                        text.parse().map_err(de::Error::custom)
                    }
                }
            )*
        };
    }

    string!(
        BodyType,
        DateTime<S>,
        DeliverBy,
        Domain<S>,
        EhloName<S>,
        EnhancedCode,
        ForwardPath<S>,
        Mail<S>,
        Mailbox<S>,
        Notify,
        OriginalRecipient<S>,
        Rcpt<S>,
        Ret,
        ReversePath<S>,
        Rrvs<S>,
        Solicitation<S>,
        Utf8Xtext<S>,
        Xtext<S>,
    );

    /// A number. The type's constructor checks it on reading.
    macro_rules! number {
        ($($name:ident: $number:ty),*) => {
            $(
                impl Serialize for $name {
                    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                        self.get().serialize(serializer)
                    }
                }

                impl<'de> Deserialize<'de> for $name {
                    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        let number = <$number>::deserialize(deserializer)?;
                        Self::new(number).ok_or_else(|| de::Error::custom(concat!("no ", stringify!($name))))
                    }
                }
            )*
        };
    }

    number!(Priority: i8, ReplyCode: u16);

    /// The octets of the reply. A human-readable format gets a string if they are UTF-8, which is
    /// the usual case.
    impl Serialize for Reply {
        fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
            let octets = self.borrowed().as_bytes();
            match core::str::from_utf8(octets) {
                Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
                _ => serializer.serialize_bytes(octets),
            }
        }
    }

    impl<'de> Deserialize<'de> for Reply {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match deserializer.is_human_readable() {
                true => deserializer.deserialize_any(Octets),
                false => deserializer.deserialize_bytes(Octets),
            }
        }
    }

    struct Octets;

    impl<'de> de::Visitor<'de> for Octets {
        type Value = Reply;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the octets of a reply")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Reply, E> {
            self.visit_bytes(text.as_bytes())
        }

        fn visit_bytes<E: de::Error>(self, octets: &[u8]) -> Result<Reply, E> {
            ReplyRef::parse(octets).map(ReplyRef::into_owned).map_err(E::custom)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Reply, A::Error> {
            let mut octets = Vec::new();
            while let Some(octet) = sequence.next_element()? {
                // The parser refuses one octet more than the limit.
                if octets.len() <= ReplyLimits::default().octets {
                    octets.push(octet);
                }
            }
            self.visit_bytes(&octets)
        }
    }
}
