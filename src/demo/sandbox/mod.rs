//! A small authorization server for the demo. NOT FOR PRODUCTION: anybody may log in as anybody,
//! everything is in memory, and it is gone when the demo ends.
//!
//! It does speak OAuth properly: exact redirect URIs, PKCE S256 only, single-use codes, `iss` in
//! every authorization response (RFC 9207), refresh tokens that rotate and whose reuse ends the
//! grant, ID tokens signed with a key made at start.
//!
//! Reading order: `state` (what it remembers), `keys`, `authorize` (the person), `token` (the
//! client), then the metadata below.

pub mod authorize;
pub mod keys;
pub mod state;
pub mod token;

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde_json::json;

use state::Sandbox;

/// Adds the sandbox's endpoints to a worker's application.
pub fn configure(cfg: &mut web::ServiceConfig, sandbox: Arc<Sandbox>) {
    cfg.app_data(web::Data::from(sandbox))
        .app_data(web::PayloadConfig::new(64 * 1024))
        .route("/.well-known/openid-configuration", web::get().to(metadata))
        .route("/.well-known/oauth-authorization-server", web::get().to(metadata))
        .route("/jwks", web::get().to(jwks))
        .route("/authorize", web::get().to(authorize::ask))
        .route("/authorize", web::post().to(authorize::decide))
        .route("/token", web::post().to(token::token))
        .route("/revoke", web::post().to(token::revoke));
}

/// OpenID Connect Discovery and RFC 8414.
async fn metadata(sandbox: web::Data<Sandbox>) -> HttpResponse {
    let issuer = sandbox.issuer();
    HttpResponse::Ok().json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "jwks_uri": format!("{issuer}/jwks"),
        "scopes_supported": state::SCOPES,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [keys::ALGORITHM],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn jwks(sandbox: web::Data<Sandbox>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "max-age=300")).json(sandbox.keys().jwk_set())
}

#[cfg(test)]
mod tests;
