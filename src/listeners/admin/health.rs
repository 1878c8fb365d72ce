//! Whether the gateway lives, whether it can do its job, and what its actors do.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{AdminState, json};

/// `GET /healthz`: 200 while the process answers at all.
pub async fn healthz() -> HttpResponse {
    json::answer(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /readyz`: 200, or 503 and what is wrong.
pub async fn readyz(state: web::Data<AdminState>) -> HttpResponse {
    let readiness = state.gateway.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json::answer(status, &readiness)
}

/// `GET /debug/actors`: one row for every actor, and how the configuration in use came to be.
pub async fn actors(state: web::Data<AdminState>) -> HttpResponse {
    let actors = state.gateway.inspect().await;
    json::answer(StatusCode::OK, &json!({ "actors": actors, "configuration": state.configuration.show() }))
}
