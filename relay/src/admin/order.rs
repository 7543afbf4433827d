//! Orders of people: retry, hold, release, drop. Dispatch carries them out; this waits for what came of it.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::queue::message;
use super::refusal::Refusal;
use super::state::Admin;
use super::view::Done;
use crate::message::MessageId;
use crate::order::{Act, MessageOrder, Order, OrderRefused};

/// Gives an order, and answers when it is on stable storage.
pub(super) async fn give(
    State(admin): State<Admin>,
    path: Result<Path<(MessageId, Act)>, PathRejection>,
) -> Result<Json<Done>, Refusal> {
    let Path((id, act)) =
        path.map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    // Dispatch knows which messages are under way, not which there are.
    message(&admin, id).await?;
    let (answer, answered) = oneshot::channel();
    let order = Order::Message(MessageOrder { id, act, answer });
    admin.orders.send(order).await.map_err(|_| Refusal::stopping())?;
    match answered.await.map_err(|_| Refusal::stopping())? {
        Ok(()) => Ok(Json(Done { id, done: act })),
        Err(OrderRefused::Spool(error)) => Err(Refusal::from(&error)),
        Err(refused) => Err(Refusal::new(StatusCode::CONFLICT, refused.to_string())),
    }
}
