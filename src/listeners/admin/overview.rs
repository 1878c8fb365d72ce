//! What is configured: profiles and routes, without their secrets.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use claviger_actors::profile::Profile;
use claviger_actors::proxy::route::Route;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::{AdminState, json};

#[derive(Serialize)]
struct ProfileView<'a> {
    name: &'a str,
    provider: &'a str,
    issuer: Option<&'a str>,
    grant: &'static str,
    needs_person: bool,
    client_auth: &'static str,
    /// Null until a client that registers itself is registered.
    client_id: Option<String>,
    scopes: Vec<&'a str>,
    redirect_uri: &'a str,
    upstreams: Vec<&'a str>,
}

impl<'a> ProfileView<'a> {
    fn of(profile: &'a Profile, client_id: Option<String>) -> Self {
        let registration = &profile.registration;
        Self {
            name: registration.profile.as_str(),
            provider: &registration.provider.name,
            issuer: registration.provider.issuer.as_deref(),
            grant: profile.grant_name,
            needs_person: profile.grant.needs_person(),
            client_auth: profile.client_auth_name,
            client_id,
            scopes: registration.scopes.iter().collect(),
            redirect_uri: registration.redirect_uri.as_str(),
            upstreams: profile.origins.iter().collect(),
        }
    }
}

#[derive(Serialize)]
struct RouteView<'a> {
    name: &'a str,
    path: &'a str,
    upstream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstreams: Option<Vec<&'a str>>,
    protocol: &'a str,
    profile: &'a str,
    subject: &'a str,
    methods: Option<Vec<&'a str>>,
    timeout: String,
    max_body: Option<u64>,
    scopes: Vec<&'a str>,
}

impl<'a> RouteView<'a> {
    fn of(route: &'a Route) -> Self {
        Self {
            name: route.id.as_str(),
            path: if route.path.is_empty() { "/" } else { &route.path },
            upstream: format!("{}{}", route.origin.serialized, route.upstream_path),
            upstreams: Some(route.origins().map(|origin| &**origin).collect())
                .filter(|all: &Vec<_>| all.len() > 1),
            protocol: route.protocol.as_str(),
            profile: route.profile.as_str(),
            subject: route.subject.as_str(),
            methods: route.methods.as_ref().map(|all| all.iter().map(http::Method::as_str).collect()),
            timeout: humantime::format_duration(route.timeout).to_string(),
            max_body: route.max_body,
            scopes: route.context.scopes.iter().collect(),
        }
    }
}

/// `GET /api/profiles`.
pub async fn profiles(state: web::Data<AdminState>) -> HttpResponse {
    let profiles = state.gateway.profiles();
    let ids = profiles.iter().map(|profile| state.gateway.client_id(&profile.registration.profile));
    let ids = join_all(ids).await;
    let views: Vec<_> = profiles.iter().zip(ids).map(|(profile, id)| ProfileView::of(profile, id)).collect();
    json::answer(StatusCode::OK, &json!({ "profiles": views }))
}

/// `GET /api/routes`.
pub async fn routes(state: web::Data<AdminState>) -> HttpResponse {
    let table = state.gateway.routes();
    let views: Vec<_> = table.iter().map(|route| RouteView::of(route)).collect();
    json::answer(StatusCode::OK, &json!({ "routes": views }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;
    use std::time::Duration;

    use claviger_actors::protocol::identifiers::{ProfileId, RouteId};
    use claviger_actors::protocol::scope::ScopeSet;
    use claviger_actors::protocol::template::{CallContext, CallNeeds};
    use claviger_actors::proxy::resilience::Resilience;
    use claviger_actors::proxy::route::{SubjectSource, UpstreamOrigin, UpstreamProtocol};

    use super::*;

    #[test]
    fn a_route_is_shown_as_it_was_configured() {
        let route = Route {
            id: RouteId::new("calendar").unwrap(),
            path: String::new(),
            origin: Arc::new(UpstreamOrigin {
                tls: true,
                host: "api.example".into(),
                port: 443,
                serialized: Arc::from("https://api.example"),
            }),
            tls: None,
            protocol: UpstreamProtocol::Http2,
            upstream_path: "/v3".into(),
            template: None,
            profile: ProfileId::new("google").unwrap(),
            subject: SubjectSource::Header,
            needs: CallNeeds::default(),
            subject_names_jwt: false,
            context: Arc::new(CallContext {
                scopes: ScopeSet::parse("read").unwrap(),
                ..CallContext::default()
            }),
            methods: Some(vec![http::Method::GET]),
            timeout: Duration::from_secs(30),
            max_body: None,
            resilience: Resilience::default(),
        };
        let expected = json!({
            "name": "calendar", "path": "/", "upstream": "https://api.example/v3", "protocol": "http2",
            "profile": "google", "subject": "header", "methods": ["GET"], "timeout": "30s", "max_body": null,
            "scopes": ["read"],
        });
        assert_eq!(serde_json::to_value(RouteView::of(&route)).unwrap(), expected);
    }
}
