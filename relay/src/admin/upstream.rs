//! Where the upstreams stand, and orders to drain one or to give it mail again. Dispatch knows and does it.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::refusal::Refusal;
use super::state::Admin;
use super::view::Upstreams;
use crate::order::{Order, UpstreamAct, UpstreamOrder, UpstreamState};

/// Lists the upstreams of the policy in force.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Upstreams>, Refusal> {
    let upstreams = ask(&admin, None).await?.unwrap_or_default();
    Ok(Json(Upstreams { upstreams }))
}

/// Gives an order for one upstream, and answers where it stands now.
pub(super) async fn give(
    State(admin): State<Admin>,
    path: Result<Path<(String, UpstreamAct)>, PathRejection>,
) -> Result<Json<UpstreamState>, Refusal> {
    let Path((name, act)) =
        path.map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let states = ask(&admin, Some((name.clone(), act))).await?;
    let state = states.into_iter().flatten().find(|state| state.name == name);
    state.map(Json).ok_or_else(|| {
        let reason =
            "no route of the pool names an Upstream of this name; GET /admin/v1/upstreams lists them";
        Refusal::new(StatusCode::NOT_FOUND, reason)
    })
}

async fn ask(
    admin: &Admin,
    act: Option<(String, UpstreamAct)>,
) -> Result<Option<Vec<UpstreamState>>, Refusal> {
    let (answer, answered) = oneshot::channel();
    let order = Order::Upstream(UpstreamOrder { act, answer });
    admin.orders.send(order).await.map_err(|_| Refusal::stopping())?;
    answered.await.map_err(|_| Refusal::stopping())
}
