//! The listener for operators: health, debug and the admin API.
//!
//! Reading order: `guard` (who may), `json` (how bodies come and go), `health` and `overview` (what
//! is there), `connections`, `lifecycle` and `connect_sessions` (what can be done), `import`, `cursor`.

pub mod configuration;
pub mod connect_sessions;
pub mod connections;
pub mod cursor;
pub mod guard;
pub mod health;
pub mod import;
pub mod json;
pub mod lifecycle;
pub mod metrics;
pub mod overview;
pub mod people;

use std::net::SocketAddr;

use actix_web::dev::HttpServiceFactory;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::from_fn;
use actix_web::{HttpResponse, Resource, web};
use claviger_actors::clock::SystemEntropy;
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::secret::Secret;
use url::Url;

use super::problem::{Problem, ProblemCode};
use super::request_id::new_request_id;
use configuration::ConfigurationStatus;
use guard::GuardRules;

/// What the admin listener works with. Cheap to clone: one for each worker.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The engine.
    pub gateway: GatewayHandle,
    /// Base of connect links and of the redirect URI.
    pub public_url: Url,
    /// The admin token; `None` only on loopback, or if certificates are demanded.
    pub token: Option<Secret>,
    /// Whether client certificates are taken.
    pub certificates: bool,
    /// Where `/metrics` takes numbers from that the engine does not have.
    pub metrics: metrics::Sources,
    /// The address that the listener is bound to, with its real port (never 0).
    pub bind: SocketAddr,
    /// How the configuration in use came to be.
    pub configuration: ConfigurationStatus,
}

impl AdminState {
    fn request_id(&self) -> String {
        new_request_id(self.gateway.entropy().as_ref())
    }

    fn problem(&self, code: ProblemCode, detail: impl Into<String>) -> HttpResponse {
        logged(Problem::new(code, detail, self.request_id()))
    }
}

/// Answers with a problem and notes it in the log, under the same reference number.
fn logged(problem: Problem) -> HttpResponse {
    let Problem { status, code, detail, request_id, .. } = &problem;
    if *status < 500 {
        tracing::info!(request_id, status, code, detail, "admin request refused");
    } else {
        tracing::warn!(request_id, status, code, detail, "admin request failed");
    }
    problem.response()
}

/// Adds the admin listener's paths to a worker's application.
pub fn configure(cfg: &mut web::ServiceConfig, state: AdminState) {
    let rules = GuardRules { token: state.token.clone(), certificates: state.certificates, bind: state.bind };
    cfg.app_data(web::Data::new(state))
        .app_data(web::Data::new(rules))
        .service(
            resource("/healthz", "GET, HEAD")
                .route(web::get().to(health::healthz))
                .route(web::head().to(health::healthz)),
        )
        .service(
            resource("/readyz", "GET, HEAD")
                .route(web::get().to(health::readyz))
                .route(web::head().to(health::readyz)),
        )
        .service(guarded());
}

fn guarded() -> impl HttpServiceFactory {
    web::scope("")
        .wrap(from_fn(guard::guard))
        .service(resource("/debug/actors", "GET").route(web::get().to(health::actors)))
        .service(resource("/metrics", "GET").route(web::get().to(metrics::metrics)))
        .service(resource("/api/profiles", "GET").route(web::get().to(overview::profiles)))
        .service(resource("/api/routes", "GET").route(web::get().to(overview::routes)))
        .service(
            resource("/api/connections", "GET, DELETE")
                .route(web::get().to(connections::list))
                .route(web::delete().to(lifecycle::revoke_all)),
        )
        .service(
            resource("/api/connections/{profile}/{subject}", "GET, PUT, DELETE")
                .route(web::get().to(connections::show))
                .route(web::put().to(import::import))
                .route(web::delete().to(connections::delete)),
        )
        .service(
            resource("/api/connections/{profile}/{subject}/refresh", "POST")
                .route(web::post().to(connections::refresh)),
        )
        .service(
            resource("/api/connections/{profile}/{subject}/introspect", "POST")
                .route(web::post().to(lifecycle::introspect)),
        )
        .service(
            resource("/api/connections/{profile}/{subject}/userinfo", "GET")
                .route(web::get().to(people::userinfo)),
        )
        .service(
            resource("/api/connections/{profile}/{subject}/rekey", "POST")
                .route(web::post().to(people::rekey)),
        )
        .service(resource("/api/connect-sessions", "POST").route(web::post().to(connect_sessions::create)))
        .default_service(web::to(not_found))
}

/// A path that answers 405 with `Allow` (RFC 9110 section 15.5.6) to every other method.
fn resource(path: &str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || method_not_allowed(allow)))
}

async fn method_not_allowed(allow: &'static str) -> HttpResponse {
    let id = new_request_id(&SystemEntropy);
    let detail = format!("this path serves {allow}");
    let mut response = logged(Problem::new(ProblemCode::MethodNotAllowed, detail, id));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

async fn not_found() -> HttpResponse {
    let id = new_request_id(&SystemEntropy);
    logged(Problem::new(ProblemCode::NotFound, "the admin API has no such path", id))
}

#[cfg(test)]
mod tests;
