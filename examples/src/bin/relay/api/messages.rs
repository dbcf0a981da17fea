//! Queued messages: found, shown, changed.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::header,
    response::{IntoResponse, Response},
};
use posthaste::{
    client::Resolver,
    queue::{Error, MessageId, Queue},
    relay::{Destinations, Label, MessageFilter, Relay},
};
use tokio::task::JoinSet;

use super::{
    App, Problem,
    forms::{Action, Change, Changed, Filter, Message, Overview, Page, Waiting, parsed},
};

/// The most messages of a page, and those of one whose size is not given.
const MOST: usize = 1_000;
const USUAL: usize = 100;
/// Changes that are written together.
const TOGETHER: usize = 64;

pub(super) async fn find<Q: Queue, R: Resolver>(
    State(app): State<App<Q, R>>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page>, Problem> {
    let filter = wanted.read().map_err(Problem::wrong)?;
    let after = parsed("after", wanted.after.as_deref()).map_err(Problem::wrong)?;
    let _slot = app.slots.acquire().await;
    let found = app.relay.operator().find(&filter, after, limit(&wanted)).await?;
    let messages = found.messages.into_iter().map(Message::of).collect();
    Ok(Json(Page { messages, next: found.next.map(|next| next.to_string()) }))
}

fn limit(wanted: &Filter) -> usize {
    wanted.limit.unwrap_or(USUAL).clamp(1, MOST)
}

pub(super) async fn show<Q: Queue, R: Resolver>(
    State(relay): State<Relay<Q, R>>,
    Path(id): Path<String>,
) -> Result<Json<Message>, Problem> {
    Ok(Json(Message::of(relay.operator().message(read(&id)?).await?)))
}

pub(super) async fn content<Q: Queue, R: Resolver>(
    State(relay): State<Relay<Q, R>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let content = relay.operator().content(read(&id)?).await?;
    let head = [
        (header::CONTENT_TYPE, "message/rfc822".to_owned()),
        (header::CONTENT_LENGTH, content.octets().to_string()),
        // A browser must not run what is in a message.
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.eml\"")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((head, Body::from_stream(content)).into_response())
}

fn read(id: &str) -> Result<MessageId, Problem> {
    id.parse().map_err(|error| Problem::wrong(format!("{id:?}: {error}")))
}

/// Sums the whole queue up.
pub(super) async fn destinations<Q: Queue, R: Resolver>(
    State(app): State<App<Q, R>>,
) -> Result<Json<Overview>, Problem> {
    let _slot = app.slots.acquire().await;
    let (filter, mut sum, mut after) = (MessageFilter::default(), Destinations::default(), None);
    loop {
        let page = app.relay.operator().find(&filter, after, MOST).await?;
        page.messages.iter().for_each(|message| sum.add(message));
        after = page.next;
        if after.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (messages, others) = (sum.messages(), sum.others());
    Ok(Json(Overview { messages, others, destinations: sum.list().into_iter().map(Waiting::of).collect() }))
}

pub(super) async fn change<Q: Queue, R: Resolver>(
    State(app): State<App<Q, R>>,
    change: Result<Json<Change>, JsonRejection>,
) -> Result<Json<Changed>, Problem> {
    let Json(change) = change.map_err(|error| Problem(error.status(), error.body_text()))?;
    let rule: Option<Label> = parsed("rule", change.rule.as_deref()).map_err(Problem::wrong)?;
    let _slot = app.slots.acquire().await;
    let (ids, next) = match &change.ids {
        Some(ids) if ids.len() > MOST => {
            return Err(Problem::wrong(format!("more than {MOST} ids; send them in parts")));
        }
        Some(ids) => (ids.iter().map(|id| read(id)).collect::<Result<Vec<_>, _>>()?, None),
        None => {
            let filter = change.filter.read().map_err(Problem::wrong)?;
            let after = parsed("after", change.filter.after.as_deref()).map_err(Problem::wrong)?;
            let page = app.relay.operator().find(&filter, after, limit(&change.filter)).await?;
            (page.messages.iter().map(|message| message.id).collect(), page.next)
        }
    };
    let mut changed = Changed { next: next.map(|next: MessageId| next.to_string()), ..Changed::default() };
    for some in ids.chunks(TOGETHER) {
        let mut writes = JoinSet::new();
        for id in some.iter().copied() {
            let (relay, rule) = (app.relay.clone(), rule.clone());
            writes.spawn(async move { act(&relay, change.action, id, rule.as_ref()).await });
        }
        while let Some(written) = writes.join_next().await {
            let count = match written {
                Ok(Ok(true)) => &mut changed.changed,
                Ok(Ok(false)) => &mut changed.same,
                Ok(Err(Error::NoSuchMessage(_))) => &mut changed.gone,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => continue,
            };
            *count = count.saturating_add(1);
        }
    }
    Ok(Json(changed))
}

/// Returns `true` if the message has changed.
async fn act<Q: Queue, R: Resolver>(
    relay: &Relay<Q, R>,
    action: Action,
    id: MessageId,
    rule: Option<&Label>,
) -> Result<bool, Error> {
    let operator = relay.operator();
    match action {
        Action::Hold => operator.hold(id).await,
        Action::Release => operator.release(id).await,
        Action::Retry => operator.retry(id).await.map(|count| count > 0),
        Action::Reroute => operator.reroute(id, rule).await.map(|count| count > 0),
        Action::Remove => operator.remove(id).await.map(|()| true),
    }
}
