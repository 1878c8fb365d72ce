//! The authorization endpoint (RFC 6749 section 3.1) with its login-and-consent page.

use std::fmt::Write as _;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, X_FRAME_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use claviger_actors::protocol::scope::ScopeSet;
use url::Url;

use super::state::{AuthorizationRequest, PEOPLE, SCOPES, Sandbox};
use super::token::Form;
use crate::listeners::pages::escape;

/// Why a request got no login page.
enum Refusal {
    /// Client or redirect URI is not known: nobody is redirected (RFC 6749 section 4.1.2.1).
    Page(&'static str),
    /// Told to the client.
    Redirect { to: Box<AuthorizationRequest>, error: &'static str, description: &'static str },
}

/// `GET /authorize`: the login-and-consent page.
pub async fn ask(sandbox: web::Data<Sandbox>, request: HttpRequest) -> HttpResponse {
    match check(&sandbox, request.query_string()) {
        Ok(checked) => login_page(&sandbox, checked),
        Err(Refusal::Page(why)) => error_page(why),
        Err(Refusal::Redirect { to, error, description }) => {
            respond(&sandbox, &to, &[("error", error), ("error_description", description)])
        }
    }
}

/// `POST /authorize`: the person's decision.
pub async fn decide(sandbox: web::Data<Sandbox>, body: web::Bytes) -> HttpResponse {
    let Ok(form) = Form::parse(&body) else { return error_page("The form cannot be read.") };
    let Some(request) = form.get("request").and_then(|name| sandbox.take_login(name)) else {
        return error_page("This page was used before, or is too old. Start again.");
    };
    let person = PEOPLE.iter().map(|(name, _)| *name).find(|name| form.get("user") == Some(*name));
    match (form.get("decision"), person) {
        (Some("allow"), Some(person)) => {
            let code = sandbox.issue_code(request.clone(), person);
            respond(&sandbox, &request, &[("code", code.expose())])
        }
        _ => respond(
            &sandbox,
            &request,
            &[("error", "access_denied"), ("error_description", "the person said no")],
        ),
    }
}

fn check(sandbox: &Sandbox, query: &str) -> Result<AuthorizationRequest, Refusal> {
    let form = Form::parse(query.as_bytes()).map_err(|_| Refusal::Page("A parameter is given twice."))?;
    let client = form.get("client_id").and_then(|id| sandbox.client(id));
    let client = client.ok_or(Refusal::Page("There is no such client."))?;
    let redirect_uri = form.get("redirect_uri").filter(|uri| client.redirect_uri.as_deref() == Some(*uri));
    let redirect_uri =
        redirect_uri.ok_or(Refusal::Page("The redirect URI is not the one registered for the client."))?;
    let mut request = AuthorizationRequest {
        client_id: client.id.clone(),
        redirect_uri: redirect_uri.to_owned(),
        state: form.get("state").map(str::to_owned),
        scope: ScopeSet::default(),
        code_challenge: form.get("code_challenge").unwrap_or_default().to_owned(),
        nonce: form.get("nonce").map(str::to_owned),
    };
    let refuse = |request: &AuthorizationRequest, error, description| {
        Err(Refusal::Redirect { to: Box::new(request.clone()), error, description })
    };
    if form.get("response_type") != Some("code") {
        return refuse(&request, "unsupported_response_type", "response_type must be code");
    }
    // 32 bytes of SHA-256 are 43 characters of base64url.
    if request.code_challenge.len() != 43 || form.get("code_challenge_method") != Some("S256") {
        return refuse(&request, "invalid_request", "PKCE with S256 is required");
    }
    match requested_scope(form.get("scope")) {
        Some(scope) => request.scope = scope,
        None => return refuse(&request, "invalid_scope", "a scope is unknown"),
    }
    Ok(request)
}

/// The scopes of a request; all of them if it names none, nothing if one is unknown.
pub(super) fn requested_scope(scope: Option<&str>) -> Option<ScopeSet> {
    let known = ScopeSet::from_tokens(SCOPES).ok()?;
    match scope {
        None => Some(known),
        Some(text) => ScopeSet::parse(text).ok().filter(|scope| known.covers(scope)),
    }
}

/// 303, so that the browser does not repeat the form (RFC 9700 section 4.12).
fn respond(sandbox: &Sandbox, request: &AuthorizationRequest, answer: &[(&str, &str)]) -> HttpResponse {
    let Ok(mut url) = Url::parse(&request.redirect_uri) else {
        return error_page("The registered redirect URI is not a URL.");
    };
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(answer);
        if let Some(state) = &request.state {
            query.append_pair("state", state);
        }
        query.append_pair("iss", sandbox.issuer());
    }
    HttpResponse::SeeOther()
        .insert_header((LOCATION, url.as_str()))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .finish()
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;font:1rem/1.5 system-ui,sans-serif;padding:1rem}\
main{width:100%;max-width:26rem;border:2px dashed #c77700;border-radius:.6rem;padding:1.5rem}\
h1{font-size:1.25rem;margin:.2rem 0 1rem}\
.sandbox{color:#c77700;font-weight:600;font-size:.85rem;margin:0}\
label{display:block;padding:.35rem 0}\
button{font:inherit;padding:.5rem 1.2rem;margin:.8rem .6rem 0 0;border-radius:.4rem;border:1px solid #888;cursor:pointer}\
button[value=allow]{background:#1d5fd1;border-color:#1d5fd1;color:#fff}";

fn login_page(sandbox: &Sandbox, request: AuthorizationRequest) -> HttpResponse {
    let mut html =
        format!("<h1>{} asks for access</h1><p>It wants to use:</p><ul>", escape(&request.client_id));
    for scope in request.scope.iter() {
        // Writing to a `String` cannot fail.
        let _ = write!(html, "<li>{}</li>", escape(scope));
    }
    let name = sandbox.remember_login(request);
    let _ = write!(
        html,
        "</ul><form method=\"post\" action=\"/authorize\"><input type=\"hidden\" name=\"request\" value=\"{}\">\
         <p>Log in as:</p>",
        escape(name.expose())
    );
    for (index, (person, full_name)) in PEOPLE.iter().enumerate() {
        let checked = if index == 0 { " checked" } else { "" };
        let _ = write!(
            html,
            "<label><input type=\"radio\" name=\"user\" value=\"{}\"{checked}> {}</label>",
            escape(person),
            escape(full_name)
        );
    }
    html.push_str(
        "<button name=\"decision\" value=\"allow\">Allow</button>\
         <button name=\"decision\" value=\"deny\">Deny</button></form>",
    );
    page(StatusCode::OK, &html)
}

fn error_page(why: &str) -> HttpResponse {
    page(StatusCode::BAD_REQUEST, &format!("<h1>This request cannot be served</h1><p>{}</p>", escape(why)))
}

fn page(status: StatusCode, content: &str) -> HttpResponse {
    // No `form-action` in a policy here: browsers hold it against every redirect after the form,
    // and the redirection endpoint may send the person on to anywhere.
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .body(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Sandbox login</title><style>{STYLE}</style></head><body><main>\
             <p class=\"sandbox\">SANDBOX: a demonstration, not for production</p>{content}</main></body></html>\n"
        ))
}
