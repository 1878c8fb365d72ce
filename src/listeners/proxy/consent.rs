//! What a call without a token is answered with: a problem, or the way to the provider.

use actix_web::HttpResponse;
use actix_web::http::header::{ACCEPT, CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use actix_web::http::{Method, StatusCode};
use claviger_actors::provider::error::TokenError;

use super::Desk;
use super::asked::Asked;
use super::call::Call;
use super::gateway::ProxyGateway;
use super::request_id::RequestId;
use super::token::TokenFault;
use crate::listeners::problem::{Problem, ProblemCode};
use crate::listeners::public::connect_url;

/// Answers a call for which there is no token.
pub(super) async fn refuse<G: ProxyGateway>(
    desk: &Desk<G>,
    asked: &Asked<'_>,
    call: &Call,
    fault: TokenFault,
    id: &RequestId,
) -> HttpResponse {
    let problem = match fault {
        TokenFault::Token(error @ TokenError::AuthorizationRequired { .. }) => {
            return ask_for_consent(desk, asked, call, &error, id)
                .await
                .unwrap_or_else(|problem| problem.response());
        }
        TokenFault::Token(error) => {
            tracing::info!(request_id = id.as_str(), route = %call.route.id, %error, "no token for a call");
            Problem::from_token_error(&error, id)
        }
        TokenFault::Ask(error) => {
            let detail = format!("route {}: {error}", call.route.id);
            Problem::from_ask_error(error, detail, id)
        }
        TokenFault::Unusable => {
            let detail = format!("{}: the token obtained cannot be used for this route", call.id);
            Problem::new(ProblemCode::TokenUnavailable, detail, id)
        }
    };
    problem.response()
}

async fn ask_for_consent<G: ProxyGateway>(
    desk: &Desk<G>,
    asked: &Asked<'_>,
    call: &Call,
    error: &TokenError,
    id: &RequestId,
) -> Result<HttpResponse, Problem> {
    let browser = is_browser(asked);
    if browser && shares_cookies(desk, asked) && !desk.gateway.uses_device(&call.id.profile) {
        let bound = desk.cookie.read(asked.headers());
        let redirect = desk
            .gateway
            .begin_authorization(call.id.clone(), bound, call.context.clone())
            .await
            .map_err(|error| Problem::from_flow_error(&error, id))?;
        let cookie = desk.cookie.set(&redirect.browser, redirect.expires_in);
        return Ok(found(redirect.url.as_str(), Some(&cookie)));
    }
    let link = desk
        .gateway
        .create_connect_link(call.id.clone(), call.context.scopes.clone())
        .await
        .map_err(|error| Problem::from_flow_error(&error, id))?;
    let url = connect_url(&desk.public_url, &link.token);
    if browser {
        return Ok(found(&url, None));
    }
    Ok(Problem::from_token_error(error, id).authorization_url(url).response())
}

fn found(location: &str, cookie: Option<&str>) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::FOUND);
    response
        .insert_header((LOCATION, location))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    if let Some(cookie) = cookie {
        response.insert_header((SET_COOKIE, cookie));
    }
    response.finish()
}

fn is_browser(asked: &Asked<'_>) -> bool {
    *asked.method() == Method::GET
        && asked.headers().get_all(ACCEPT).any(|value| accepts_html(value.as_bytes()))
}

/// Whether `text/html` is named in this `Accept` value, and not with a weight of nought (RFC 9110
/// section 12.4.2).
fn accepts_html(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case(b"text/html"));
        named && !parts.any(is_weight_nought)
    })
}

fn is_weight_nought(parameter: &[u8]) -> bool {
    let (name, value) = parameter.split_at(parameter.len().min(2));
    name.eq_ignore_ascii_case(b"q=")
        && value.first() == Some(&b'0')
        && !value.iter().any(|byte| (b'1'..=b'9').contains(byte))
}

/// Whether a cookie set here will reach the public listener: cookies know hosts, but no ports.
fn shares_cookies<G: ProxyGateway>(desk: &Desk<G>, asked: &Asked<'_>) -> bool {
    let host = match asked.host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => asked.host,
    };
    desk.public_url.host_str().is_some_and(|public| public.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::accepts_html;

    #[test]
    fn a_browser_names_html_among_what_it_accepts() {
        for value in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=0.9, Text/HTML;q=0.1",
            "text/html;level=1;q=0.05",
        ] {
            assert!(accepts_html(value.as_bytes()), "{value}");
        }
        for value in
            ["", "*/*", "text/*", "application/json", "text/htmlx", "text/html;q=0", "text/html; Q=0.000"]
        {
            assert!(!accepts_html(value.as_bytes()), "{value}");
        }
    }
}
