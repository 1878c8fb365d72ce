//! Tokens bound to a key (RFC 9449): a real authorization server binds them, and an API that checks
//! every proof takes them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::support::dpop_upstream::DpopUpstream;
use crate::support::gateway::Gateway;
use crate::support::gateway_config::GatewayConfig;
use crate::support::http::Response;
use crate::support::oidc_provider::{OidcProvider, OidcProviderBuilder};

struct Scene {
    provider: OidcProvider,
    upstream: DpopUpstream,
    config: GatewayConfig,
}

impl Scene {
    async fn new(
        client: &str,
        grant: &str,
        set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder,
    ) -> Self {
        let mut config = GatewayConfig::new();
        let provider = set_up(OidcProvider::builder(&config.callback())).start().await;
        let upstream = DpopUpstream::start(&provider.issuer).await;
        config.section("providers.idp", &format!("issuer = \"{}\"", provider.issuer));
        let scopes =
            if grant == "authorization_code" { r#"["openid", "calendar"]"# } else { r#"["calendar"]"# };
        if client == "public" {
            let profile = format!(
                "provider = \"idp\"\nclient_id = \"public\"\ngrant = \"{grant}\"\nscopes = {scopes}\n\
                 client_auth = \"none\""
            );
            config.section("profiles.calendar", &profile);
        } else {
            config.profile("calendar", "idp", client, grant, scopes);
        }
        config.extend("profiles.calendar", "dpop = true");
        let route = format!(
            "path = \"/calendar\"\nupstream = \"{}/api\"\nprofile = \"calendar\"\nsubject = \"caller\"",
            upstream.url()
        );
        config.section("routes.calendar", &route);
        config.caller("billing", "[\"calendar\"]");
        Self { provider, upstream, config }
    }

    async fn person(set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder) -> Self {
        Self::new("confidential", "authorization_code", set_up).await
    }

    async fn machine(set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder) -> Self {
        Self::new("machine", "client_credentials", set_up).await
    }

    /// What a token is bound to, by the authorization server's own word.
    async fn binding(&self, token: &str) -> String {
        self.provider.describe_token(token).await["jkt"].as_str().expect("a bound token").to_owned()
    }

    /// The one key that all calls served so far were proven with.
    fn key(&self) -> String {
        let keys: BTreeSet<_> = self.upstream.keys().into_iter().collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys.into_iter().next().unwrap()
    }
}

async fn echo(gateway: &Gateway, path: &str) -> Value {
    gateway.call(path).await.expect_status(200).json()
}

fn token_of(echo: &Value) -> String {
    echo["token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_proves_its_key_at_both_ends() {
    let scene = Scene::machine(|provider| provider).await;
    let gateway = scene.config.start().await;
    // `htu` is the path as it went upstream, without the query.
    let first = echo(&gateway, "/calendar/a%2Fb/%C3%A9?x=y%20z").await;
    assert_eq!(first["target"], "/api/a%2Fb/%C3%A9?x=y%20z");
    let token = token_of(&first);
    for answer in gateway.call_at_once("/calendar/events", 20).await {
        assert_eq!(token_of(&answer.expect_status(200).json()), token);
    }
    scene.upstream.assert_no_fault();
    assert_eq!(scene.key(), scene.binding(&token).await);
    assert_eq!(scene.provider.count("total").await, 1);
    assert_eq!(gateway.connection("calendar", "billing").await["token_type"], "DPoP");
    gateway.assert_no_secret_in_log(&[token]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_are_taken_up_with_one_repeat_and_kept() {
    let scene = Scene::machine(OidcProviderBuilder::dpop_nonces).await;
    scene.upstream.demand("first-nonce");
    let gateway = scene.config.start().await;
    let token = token_of(&echo(&gateway, "/calendar/events").await);
    // One request without a nonce, one with it.
    assert_eq!(scene.provider.count("total").await, 2);
    assert_eq!(scene.upstream.challenges(), 1);
    for answer in gateway.call_at_once("/calendar/events", 20).await {
        answer.expect_status(200);
    }
    assert_eq!(scene.upstream.challenges(), 1, "on whichever worker");

    scene.upstream.demand("second-nonce");
    let posted = gateway.request("POST", "/calendar/events").body("text/plain", "once more").send().await;
    let posted = posted.expect_status(200).json();
    assert_eq!((posted["body"].as_str(), token_of(&posted)), (Some("once more"), token.clone()));
    assert_eq!(scene.upstream.challenges(), 2);

    // The key and its nonces outlive the token.
    scene.upstream.refuse(&token);
    let renewed = token_of(&echo(&gateway, "/calendar/events").await);
    assert_ne!(renewed, token);
    assert_eq!(scene.upstream.challenges(), 2);
    assert_eq!(scene.provider.count("total").await, 3, "with the nonce that the server gave last");
    assert_eq!(scene.key(), scene.binding(&renewed).await);
    scene.upstream.assert_no_fault();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_sent_again_costs_no_token() {
    let scene = Scene::machine(|provider| provider).await;
    let gateway = scene.config.start().await;
    echo(&gateway, "/calendar/events").await;
    scene.upstream.demand("a-nonce");
    let large = vec![b'x'; 100_000];
    let post = || gateway.request("POST", "/calendar/events").body("text/plain", large.clone()).send();
    let refused = post().await.expect_status(401);
    assert!(refused.header("www-authenticate").unwrap().contains("use_dpop_nonce"));
    assert_eq!(scene.provider.count("total").await, 1, "the token was not at fault");
    let taken = post().await.expect_status(200).json();
    assert_eq!(taken["body"].as_str().unwrap().len(), large.len());
    assert_eq!(scene.upstream.challenges(), 1);
    scene.upstream.assert_no_fault();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_code_tokens_and_refreshes_go_with_one_key() {
    for (client, pushed) in [("confidential", false), ("public", false), ("confidential", true)] {
        let mut scene = Scene::new(client, "authorization_code", |provider| {
            let provider = provider.access_token_seconds(3).dpop_nonces();
            if pushed {
                let enabled = serde_json::json!({ "pushedAuthorizationRequests": { "enabled": true } });
                return provider.features(enabled);
            }
            provider
        })
        .await;
        if pushed {
            scene.config.extend("profiles.calendar", "par = true");
        }
        let gateway = scene.config.start().await;
        gateway.connect("alice").await;
        let first = token_of(&echo(&gateway, "/calendar/events").await);
        let key = scene.binding(&first).await;
        let asked = scene.provider.asked().await;
        assert_eq!(asked[0]["dpop_jkt"], key.as_str(), "the code was bound, too");

        sleep(Duration::from_millis(3200)).await;
        let second = token_of(&echo(&gateway, "/calendar/events").await);
        assert_ne!(first, second);
        assert_eq!(scene.binding(&second).await, key);

        // The key is kept with the tokens.
        let gateway = gateway.restart().await;
        sleep(Duration::from_millis(3200)).await;
        let third = token_of(&echo(&gateway, "/calendar/events").await);
        assert_ne!(second, third);
        assert_eq!(scene.binding(&third).await, key);
        assert_eq!(scene.key(), key);
        assert_eq!(scene.provider.count("authorization_code").await, 2, "challenged once");
        scene.upstream.assert_no_fault();
        gateway.assert_no_secret_in_log(&[first, second, third]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_has_a_key_of_its_own() {
    let mut scene = Scene::machine(|provider| provider).await;
    scene.config.caller("payroll", "[\"calendar\"]");
    let gateway = scene.config.start().await;
    echo(&gateway, "/calendar/events").await;
    let url = gateway.proxy_url("/calendar/events");
    let password = crate::support::gateway_config::PASSWORD;
    crate::support::http::get(&url).basic("payroll", password).send().await.expect_status(200);
    let keys: BTreeSet<_> = scene.upstream.keys().into_iter().collect();
    assert_eq!(keys.len(), 2);
    scene.upstream.assert_no_fault();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_says_of_a_person_is_asked_for_with_a_proof() {
    let userinfo = serde_json::json!({ "userinfo": { "enabled": true } });
    let scene = Scene::person(|provider| provider.dpop_nonces().features(userinfo)).await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let path = "/api/connections/calendar/billing/userinfo";
    for _ in 0..2 {
        let claims = gateway.admin("GET", path).send().await.expect_status(200).json();
        assert_eq!(claims["sub"], "alice", "{claims}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_own_proof_goes_nowhere() {
    let scene = Scene::machine(|provider| provider).await;
    let gateway = scene.config.start().await;
    let call = |name: &str| gateway.request("GET", "/calendar/events").header(name, "forged").send();
    for name in ["DPoP", "dpop"] {
        let echo = call(name).await.expect_status(200).json();
        assert_ne!(echo["proof"], "forged");
    }
    scene.upstream.assert_no_fault();
}

fn refused(answer: Response, why: &str) {
    let problem = answer.expect_problem(502, "token_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_token_instead_is_no_substitute_nor_the_other_way_round() {
    let off = serde_json::json!({ "dPoP": { "enabled": false } });
    let scene = Scene::machine(|provider| provider.features(off)).await;
    let gateway = scene.config.start().await;
    refused(gateway.call("/calendar/events").await, "although DPoP was asked for");
    assert!(scene.upstream.keys().is_empty());
    scene.upstream.assert_no_fault();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_algorithm_that_the_server_does_not_take_is_named_before_anything_is_sent() {
    let mut scene = Scene::person(|provider| provider).await;
    scene.config.extend("profiles.calendar", "dpop_signing_alg = \"ES384\"");
    let gateway = scene.config.start().await;
    refused(gateway.call("/calendar/events").await, "no DPoP proofs signed with ES384, only with ES256");
    assert_eq!(scene.provider.count("total").await, 0);
}
