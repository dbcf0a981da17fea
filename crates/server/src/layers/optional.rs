//! A layer that a configuration can leave out.

use std::sync::Arc;

use crate::{
    Asked, Body, Context, Envelope, Layer, Login, Refusal, SaslError,
    session::{ServerSettings, server::OtherCommand},
    wire::{EhloName, Mail, Rcpt},
};

/// `Some` decides as its layer does, and `None` changes nothing: for a layer that a configuration
/// switches on.
///
/// ```
/// # use posthaste_server::{Service, layers::Greylist};
/// fn guarded(service: impl Service, is_greylisting: bool) -> impl Service {
///     service.layer(is_greylisting.then(Greylist::default))
/// }
/// ```
impl<L: Layer> Layer for Option<L> {
    fn settings(&self, cx: &Context, settings: Arc<ServerSettings>) -> Arc<ServerSettings> {
        match self {
            Some(layer) => layer.settings(cx, settings),
            None => settings,
        }
    }

    async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
        match self {
            Some(layer) => layer.connect(cx).await,
            None => Ok(()),
        }
    }

    async fn hello(&mut self, cx: &Context, name: &EhloName) -> Result<(), Refusal> {
        match self {
            Some(layer) => layer.hello(cx, name).await,
            None => Ok(()),
        }
    }

    async fn login(&mut self, cx: &Context, login: Login<'_>) -> Result<(), SaslError> {
        match self {
            Some(layer) => layer.login(cx, login).await,
            None => Ok(()),
        }
    }

    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        match self {
            Some(layer) => layer.mail(cx, mail).await,
            None => Ok(()),
        }
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        match self {
            Some(layer) => layer.rcpt(cx, rcpt).await,
            None => Ok(()),
        }
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        match self {
            Some(layer) => layer.data(cx).await,
            None => Ok(()),
        }
    }

    async fn message<'b>(
        &mut self,
        cx: &Context,
        envelope: &mut Envelope,
        body: Body<'b>,
    ) -> Result<Body<'b>, Refusal> {
        match self {
            Some(layer) => layer.message(cx, envelope, body).await,
            None => Ok(body),
        }
    }

    async fn other(&mut self, cx: &Context, command: &OtherCommand) -> Result<(), Refusal> {
        match self {
            Some(layer) => layer.other(cx, command).await,
            None => Ok(()),
        }
    }

    fn decided(&mut self, cx: &Context, asked: Asked, refusal: Option<&Refusal>) {
        if let Some(layer) = self {
            layer.decided(cx, asked, refusal);
        }
    }
}
