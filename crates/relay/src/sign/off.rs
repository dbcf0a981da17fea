//! No message is signed.

use bytes::Bytes;
use posthaste_queue::MessageId;
use posthaste_server::{Refusal, wire::BodyType};

use crate::{RelayOptions, SubmitError};

#[derive(Debug, Default)]
pub(crate) struct Signatures;

#[derive(Debug)]
pub(crate) struct Signing;

/// There is none.
#[derive(Debug)]
pub(crate) enum SignatureError {}

impl Signatures {
    pub(crate) const fn of_client(
        &self,
        _: &RelayOptions,
        _logged_in: bool,
        _trusted: bool,
        _: Option<BodyType>,
    ) -> Signing {
        Signing
    }

    pub(crate) const fn of_application(&self, _: &RelayOptions, _: Option<BodyType>) -> Signing {
        Signing
    }

    pub(crate) fn of_report(&self, _: &RelayOptions, _: &Bytes, _: MessageId) -> std::future::Ready<Bytes> {
        std::future::ready(Bytes::new())
    }
}

impl Signing {
    pub(crate) const fn update(&mut self, _: &[u8]) {}

    pub(crate) fn finish(self, _: MessageId) -> std::future::Ready<Result<Bytes, SignatureError>> {
        std::future::ready(Ok(Bytes::new()))
    }
}

impl SignatureError {
    pub(crate) const fn into_refusal(self) -> Refusal {
        match self {}
    }
}

impl From<SignatureError> for SubmitError {
    fn from(error: SignatureError) -> Self {
        match error {}
    }
}
