//! The queue, looked at: a search over what the spool holds, and one message.

use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;

use super::refusal::Refusal;
use super::search::{self, Search};
use super::state::Admin;
use super::view::{Message, Page};
use crate::message::{MessageId, Timestamp};
use crate::spool::{SpoolError, Stored};

/// How many messages one request looks at: well under a second of reading.
const LOOKED_AT: usize = 10_000;

/// Searches. Messages that end meanwhile, or cannot be read, are passed over: dispatch deals with those.
pub(super) async fn list(
    State(admin): State<Admin>,
    search: Result<Query<Search>, QueryRejection>,
) -> Result<Json<Page>, Refusal> {
    let Query(search) =
        search.map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let policy = admin.policy.borrow().clone();
    let now = Timestamp::from(SystemTime::now());
    let (spool, after) = (admin.spool.clone(), search.after);
    let looking = tokio::task::spawn_blocking(move || spool.ids_after(after, LOOKED_AT)).await;
    let ids = looking.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (more, mut messages, mut last) = (ids.len() == LOOKED_AT, Vec::new(), None);
    for id in ids {
        if !search.reaches(id, now) {
            return Ok(Json(Page { messages, next: None }));
        }
        if messages.len() == search.page() {
            return Ok(Json(Page { messages, next: last }));
        }
        last = Some(id);
        if let Ok(stored) = message(&admin, id).await {
            let summary = search::summary(&stored, &policy, now);
            messages.extend(search.finds(&summary, &stored).then_some(summary));
        }
    }
    Ok(Json(Page { messages, next: last.filter(|_| more) }))
}

/// One message.
pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<MessageId>, PathRejection>,
) -> Result<Json<Message>, Refusal> {
    let Path(id) = id.map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let stored = message(&admin, id).await?;
    let policy = admin.policy.borrow().clone();
    Ok(Json(search::message(&stored, &policy, SystemTime::now().into())))
}

/// What the spool holds of a message; nothing of one that is done with, though something of it may be left.
pub(super) async fn message(admin: &Admin, id: MessageId) -> Result<Stored, Refusal> {
    match admin.spool.load(id).await {
        Ok(stored) if stored.state.is_tombstone() => Err(Refusal::from(&SpoolError::Unknown(id))),
        Ok(stored) => Ok(stored),
        Err(error) => Err(Refusal::from(&error)),
    }
}
