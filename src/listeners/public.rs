//! The listener for browsers: one-time connect links and the redirection endpoint. Providers fetch our
//! key set from it.
//!
//! The first two act on `GET`, as OAuth has it, and use something up. So a `HEAD` or a speculative
//! `GET` is answered without acting.

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    SET_COOKIE,
};
use actix_web::{HttpRequest, HttpResponse, Resource, web};
use claviger_actors::clock::SystemEntropy;
use claviger_actors::flow::error::FlowError;
use claviger_actors::flow::messages::{DeviceView, FlowOutcome, Opened};
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::authorization_response::AuthorizationResponse;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::provider::error::TokenError;
use url::Url;

use super::browser_cookie::BrowserCookie;
use super::pages::{Page, Waiting};
use super::request_id::new_request_id;
use super::return_to::with_error;

/// Longest connect token looked at, in bytes; ours are much shorter.
const MAX_CONNECT_TOKEN: usize = 256;

/// How long a provider may keep our key set without asking again.
const JWKS_CACHE: &str = "max-age=300";

/// What the public listener works with. Cheap to clone: one for each worker.
#[derive(Clone, Debug)]
pub struct PublicState {
    /// The engine.
    pub gateway: GatewayHandle,
    /// Base of connect links and of the redirect URI. If it has a path, the listener also serves
    /// below that path, for a front end that does not take it off.
    pub public_url: Url,
}

impl PublicState {
    fn cookie(&self) -> BrowserCookie {
        BrowserCookie::new(&self.public_url)
    }

    fn reference(&self) -> String {
        new_request_id(self.gateway.entropy().as_ref())
    }
}

/// The one-time link of `token`: the only place that spells it.
pub fn connect_url(public_url: &Url, token: &Secret) -> String {
    format!("{}/connect/{}", public_url.as_str().trim_end_matches('/'), token.expose())
}

/// Adds the public listener's paths to a worker's application.
pub fn configure(cfg: &mut web::ServiceConfig, state: PublicState) {
    let prefix = state.public_url.path().trim_end_matches('/').to_owned();
    cfg.app_data(web::Data::new(state));
    if !prefix.is_empty() {
        cfg.service(web::scope(&prefix).configure(paths));
    }
    cfg.configure(paths).default_service(web::to(nothing_here));
}

fn paths(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/connect/{session}").route(web::get().to(connect)))
        .service(resource("/callback").route(web::get().to(callback)))
        .service(
            web::resource("/jwks.json")
                .route(web::get().to(jwks))
                .route(web::head().to(jwks))
                .default_service(web::to(method_not_allowed)),
        );
}

fn resource(path: &str) -> Resource {
    web::resource(path).route(web::head().to(untouched)).default_service(web::to(method_not_allowed))
}

async fn connect(state: web::Data<PublicState>, request: HttpRequest) -> HttpResponse {
    if is_speculative(request.headers()) {
        return no_content();
    }
    let token = request.match_info().get("session").and_then(connect_token);
    let result = match token {
        Some(token) => state.gateway.open_connect_link(token, state.cookie().read(request.headers())).await,
        None => Err(FlowError::Invalid { why: "not a connect token", connection: None }),
    };
    connect_answer(result, state.cookie(), state.reference())
}

async fn callback(state: web::Data<PublicState>, request: HttpRequest) -> HttpResponse {
    if is_speculative(request.headers()) {
        return no_content();
    }
    let result = match AuthorizationResponse::parse(request.query_string()) {
        Ok(response) => {
            let browser = state.cookie().read(request.headers());
            state.gateway.accept_authorization_response(response, browser).await
        }
        Err(error) => {
            tracing::debug!(%error, "no authorization response");
            Err(FlowError::Invalid { why: "not an authorization response", connection: None })
        }
    };
    callback_answer(result, state.reference())
}

/// The keys that our signatures are verified with (RFC 7517 section 5), for providers that fetch them.
async fn jwks(state: web::Data<PublicState>) -> HttpResponse {
    let set = serde_json::json!({ "keys": state.gateway.published_keys() });
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/jwk-set+json"))
        .insert_header((CACHE_CONTROL, JWKS_CACHE))
        .body(set.to_string())
}

fn connect_token(text: &str) -> Option<Secret> {
    let url_safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    (text.len() <= MAX_CONNECT_TOKEN && text.bytes().all(url_safe)).then(|| Secret::new(text))
}

/// Whether a browser or a preview fetches this before anybody asked for it.
fn is_speculative(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        headers.get_all(*name).filter_map(|value| value.to_str().ok()).any(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("prefetch") || value.contains("prerender") || value.contains("preview")
        })
    })
}

fn connect_answer(
    result: Result<Opened, FlowError>,
    cookie: BrowserCookie,
    reference: String,
) -> HttpResponse {
    match result {
        Ok(Opened::Device(view)) => device_answer(*view, reference),
        Ok(Opened::Redirect(redirect)) => {
            let mut response = found(redirect.url.as_str());
            if let Ok(value) = HeaderValue::from_str(&cookie.set(&redirect.browser, redirect.expires_in)) {
                response.headers_mut().insert(SET_COOKIE, value);
            }
            response
        }
        Err(error) => failure(&error, reference),
    }
}

/// The page that shows what to enter on another device, until that is done or has failed.
fn device_answer(view: DeviceView, reference: String) -> HttpResponse {
    match view.outcome {
        Some(outcome) => callback_answer(outcome, reference),
        None => Page {
            status: StatusCode::OK,
            title: "Enter this code",
            paragraphs: vec![
                format!(
                    "To give access for {} ({}), open {} and enter this code. Go on there only if it shows the \
                     same one.",
                    view.connection.subject, view.connection.profile, view.verification_uri
                ),
                "This page changes by itself once that is done.".to_owned(),
            ],
            link: Some((view.verification_uri_complete.unwrap_or(view.verification_uri), "Open that page")),
            waiting: Some(Waiting { user_code: view.user_code, again_in: view.interval.clamp(2, 10) }),
            reference,
        }
        .response(),
    }
}

fn callback_answer(result: Result<FlowOutcome, FlowError>, reference: String) -> HttpResponse {
    if let Ok(outcome) = &result {
        tracing::info!(request_id = reference, connection = %outcome.connection, "connected");
    }
    match result {
        Ok(FlowOutcome { return_to: Some(return_to), .. }) => found(&return_to),
        Ok(FlowOutcome { connection, return_to: None }) => Page {
            status: StatusCode::OK,
            title: "Connected",
            paragraphs: vec![
                format!("Access for {} ({}) is set up.", connection.subject, connection.profile),
                "You can close this window and go back to the application.".to_owned(),
            ],
            link: None,
            waiting: None,
            reference,
        }
        .response(),
        Err(error) => failure(&error, reference),
    }
}

/// What a person is told. The log has the rest, under the same reference.
fn failure(error: &FlowError, reference: String) -> HttpResponse {
    log(error, &reference);
    let page = |status, title, text: &str, return_to: Option<&String>| {
        let link = return_to.map(|url| (url.clone(), "Back to the application"));
        let paragraphs = vec![text.to_owned()];
        Page { status, title, paragraphs, link, waiting: None, reference: reference.clone() }.response()
    };
    match error {
        FlowError::Invalid { .. }
        | FlowError::NoConsentNeeded(_)
        | FlowError::OtherConsent(_)
        | FlowError::UnknownProfile(_) => page(
            StatusCode::BAD_REQUEST,
            "This link is not valid",
            "It was used before, has expired, or was begun in another browser. Nothing was changed. Go back \
             to the application and start again.",
            None,
        ),
        FlowError::Call { .. } => page(
            StatusCode::BAD_REQUEST,
            "A link is not enough here",
            "The gateway must be told more than a link can say. Go back to the application and start there.",
            None,
        ),
        FlowError::Refused { code, return_to: Some(return_to), .. } => found(&with_error(return_to, code)),
        FlowError::Refused { code, return_to: None, .. } => page(
            StatusCode::FORBIDDEN,
            "Access was not granted",
            &format!("The authorization server answered: {code}. Nothing was changed."),
            None,
        ),
        FlowError::Token { source: TokenError::StoreUnavailable { .. }, return_to, .. } => {
            page(StatusCode::SERVICE_UNAVAILABLE, STORE_TITLE, STORE_TEXT, return_to.as_ref())
        }
        FlowError::Store(_) => page(StatusCode::SERVICE_UNAVAILABLE, STORE_TITLE, STORE_TEXT, None),
        FlowError::Token { return_to, .. } => {
            page(StatusCode::BAD_GATEWAY, PROVIDER_TITLE, PROVIDER_TEXT, return_to.as_ref())
        }
        FlowError::Provider(_) => page(StatusCode::BAD_GATEWAY, PROVIDER_TITLE, PROVIDER_TEXT, None),
        FlowError::TooMany | FlowError::Ask(_) => {
            let mut response = page(
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway is busy",
                "Please try again in a minute.",
                None,
            );
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
            response
        }
        _ => page(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong",
            "This is a fault of the gateway. Whoever runs it finds it by the reference below.",
            None,
        ),
    }
}

const PROVIDER_TITLE: &str = "The provider gave no access";
const PROVIDER_TEXT: &str =
    "The authorization server did not complete the request. Go back to the application and try again.";
const STORE_TITLE: &str = "Access cannot be stored right now";
const STORE_TEXT: &str =
    "The gateway cannot save anything at the moment. Go back to the application and try again later.";

fn log(error: &FlowError, reference: &str) {
    match error {
        FlowError::Invalid { why, connection } => {
            let connection = connection.as_ref().map(tracing::field::display);
            tracing::warn!(request_id = reference, why, connection, "link or authorization response refused");
        }
        FlowError::Refused { .. } => tracing::info!(request_id = reference, %error, "consent was not given"),
        _ => tracing::error!(request_id = reference, %error, "authorization failed"),
    }
}

/// 302 that leaks nothing: the URL just left may hold a code or a token.
fn found(location: &str) -> HttpResponse {
    HttpResponse::Found()
        .insert_header((LOCATION, location))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .finish()
}

fn no_content() -> HttpResponse {
    HttpResponse::NoContent().insert_header((CACHE_CONTROL, "no-store")).finish()
}

async fn untouched() -> HttpResponse {
    no_content()
}

async fn method_not_allowed() -> HttpResponse {
    let mut response = not_served(
        StatusCode::METHOD_NOT_ALLOWED,
        "Not served this way",
        "This address is opened in a browser.",
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

async fn nothing_here() -> HttpResponse {
    not_served(
        StatusCode::NOT_FOUND,
        "There is nothing here",
        "Connect links come from the application that wants access.",
    )
}

fn not_served(status: StatusCode, title: &'static str, text: &str) -> HttpResponse {
    let reference = new_request_id(&SystemEntropy);
    tracing::info!(request_id = reference, status = status.as_u16(), "not served");
    Page { status, title, paragraphs: vec![text.to_owned()], link: None, waiting: None, reference }.response()
}

#[cfg(test)]
mod tests;
