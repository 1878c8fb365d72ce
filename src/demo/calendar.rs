//! A small calendar API for the demo: what an upstream looks like to the gateway. NOT FOR
//! PRODUCTION: everything is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, web};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sandbox::state::{Grant, Sandbox};

const MAX_EVENTS: usize = 100;
const MAX_TEXT: usize = 200;

/// One entry of a calendar.
#[derive(Clone, Debug, Serialize)]
struct Event {
    id: usize,
    summary: String,
    start: String,
}

#[derive(Debug, Deserialize)]
struct NewEvent {
    summary: String,
    start: Option<String>,
}

/// Everybody's calendars.
#[derive(Debug, Default)]
pub struct Calendars(Mutex<BTreeMap<String, Vec<Event>>>);

impl Calendars {
    fn of(&self, user: &str) -> Vec<Event> {
        self.0.lock().entry(user.to_owned()).or_insert_with(|| first_events(user)).clone()
    }

    fn add(&self, user: &str, new: NewEvent) -> Option<Event> {
        if new.summary.len() > MAX_TEXT || new.start.as_ref().is_some_and(|start| start.len() > MAX_TEXT) {
            return None;
        }
        let mut calendars = self.0.lock();
        let events = calendars.entry(user.to_owned()).or_insert_with(|| first_events(user));
        if events.len() >= MAX_EVENTS {
            return None;
        }
        let start = new.start.unwrap_or_else(|| "tomorrow 12:00".to_owned());
        let event = Event { id: events.len() + 1, summary: new.summary, start };
        events.push(event.clone());
        Some(event)
    }
}

fn first_events(user: &str) -> Vec<Event> {
    let summaries = match user {
        "alice" => ["Design review", "Dinner with Bob"],
        "bob" => ["Dentist", "Dinner with Alice"],
        _ => ["Nightly backup", "Certificate check"],
    };
    let starts = ["tomorrow 09:30", "tomorrow 19:00"];
    std::iter::zip(summaries, starts)
        .enumerate()
        .map(|(index, (summary, start))| Event {
            id: index + 1,
            summary: summary.into(),
            start: start.into(),
        })
        .collect()
}

/// Adds the API's paths to a worker's application.
pub fn configure(cfg: &mut web::ServiceConfig, sandbox: Arc<Sandbox>, calendars: Arc<Calendars>) {
    cfg.app_data(web::Data::from(sandbox))
        .app_data(web::Data::from(calendars))
        .app_data(web::JsonConfig::default().limit(16 * 1024))
        .service(
            web::resource("/calendar/v3/events").route(web::get().to(list)).route(web::post().to(create)),
        );
}

async fn list(
    sandbox: web::Data<Sandbox>,
    calendars: web::Data<Calendars>,
    request: HttpRequest,
) -> HttpResponse {
    match authorize(&sandbox, &request, "calendar.read") {
        Ok(grant) => HttpResponse::Ok()
            .insert_header((CACHE_CONTROL, "no-store"))
            .json(json!({ "calendar": grant.user, "items": calendars.of(&grant.user) })),
        Err((status, error)) => refusal(status, error),
    }
}

async fn create(
    sandbox: web::Data<Sandbox>,
    calendars: web::Data<Calendars>,
    request: HttpRequest,
    new: web::Json<NewEvent>,
) -> HttpResponse {
    match authorize(&sandbox, &request, "calendar.write") {
        Ok(grant) => match calendars.add(&grant.user, new.into_inner()) {
            Some(event) => HttpResponse::Created().json(event),
            None => {
                HttpResponse::BadRequest().json(json!({ "error": "the calendar or the text is too full" }))
            }
        },
        Err((status, error)) => refusal(status, error),
    }
}

/// RFC 6750: a live token with the scope that is needed, or status and error code.
fn authorize(
    sandbox: &Sandbox,
    request: &HttpRequest,
    scope: &str,
) -> Result<Grant, (StatusCode, &'static str)> {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let Some(grant) = token.and_then(|token| sandbox.introspect(token)) else {
        return Err((StatusCode::UNAUTHORIZED, "invalid_token"));
    };
    if !grant.scope.contains(scope) {
        return Err((StatusCode::FORBIDDEN, "insufficient_scope"));
    }
    Ok(grant)
}

fn refusal(status: StatusCode, error: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((WWW_AUTHENTICATE, format!("Bearer error=\"{error}\"")))
        .json(json!({ "error": error }))
}
