//! What people do in browsers: consent, refuse, come back twice, or are somebody else.

use std::time::Duration;

use claviger_actors::flow::error::FlowError;
use claviger_actors::flow::messages::{AuthorizationRedirect, Opened};
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::authorization_response::{AuthorizationResponse, FurtherParams};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::template::CallContext;

use crate::driver::{Shared, Who, fault, name, teller};
use crate::rng::Rng;
use crate::world::{World, connection_id};

/// A person consents, and things go right or wrong on the way back.
pub fn spawn_consent(world: &mut World, story: &Shared, gateway: &GatewayHandle, who: Who) {
    let (gateway, tell, story) = (gateway.clone(), teller(world, story), story.clone());
    let (provider, mut rng) = (world.provider.clone(), world.rng.fork());
    // Until it is known how this ends, nothing can be expected of this subject.
    let begun_at = story.borrow_mut().doubt(who);
    tokio::task::spawn_local(async move {
        let begun = match rng.below(2) {
            0 => gateway.begin_authorization(connection_id(who), None, None, CallContext::none()).await,
            _ => by_link(&gateway, &story, who, &mut rng).await,
        };
        let redirect = match begun {
            Ok(redirect) => redirect,
            Err(error) => return tell(format!("consent {who:?}: not begun: {error}")),
        };
        let (code, state) = provider.consent(&redirect.url, who.1);
        tokio::time::sleep(Duration::from_millis(rng.below(30_000))).await;
        let genuine = response(&state, Ok(&code));
        if let Some((forged, browser)) = forged(&genuine, &redirect, &code, &mut rng) {
            let answer = gateway.accept_authorization_response(forged, browser).await;
            tell(format!(
                "forged callback for {who:?}: {:?}",
                answer.as_ref().err().map(ToString::to_string)
            ));
            if answer.is_ok() {
                fault(&story, format!("a forged callback was accepted for {who:?}"));
            }
        }
        let browser = Some(redirect.browser.clone());
        if rng.below(8) == 0 {
            let refusal = response(&state, Err("access_denied"));
            let answer = gateway.accept_authorization_response(refusal, browser.clone()).await;
            tell(format!("refusal of {who:?}: {:?}", answer.as_ref().err().map(ToString::to_string)));
            if matches!(answer, Err(FlowError::Refused { .. })) {
                let late = gateway.accept_authorization_response(genuine, browser).await;
                if !is_harmless(&late) {
                    fault(&story, format!("a code was taken after {who:?} had refused: {late:?}"));
                }
                return;
            }
        }
        let first = gateway.accept_authorization_response(genuine.clone(), browser.clone());
        let outcome = if rng.below(2) == 0 {
            let (first, second) =
                tokio::join!(first, gateway.accept_authorization_response(genuine.clone(), browser.clone()));
            if first.is_ok() && second.is_ok() {
                fault(&story, format!("one state of {who:?} was used twice"));
            }
            if first.is_ok() { first } else { second }
        } else {
            first.await
        };
        tell(format!("consent {who:?}: {:?}", outcome.as_ref().err().map(ToString::to_string)));
        if outcome.is_ok() && provider.has_live_grant(&name(who)) {
            story.borrow_mut().trust(who, begun_at);
        }
        let replay = gateway.accept_authorization_response(genuine, browser).await;
        if outcome.is_ok() && !is_harmless(&replay) {
            fault(&story, format!("a replayed callback of {who:?} gave {replay:?}"));
        }
    });
}

/// Begins by a connect link, which two browsers may open at once: one of them gets in.
async fn by_link(
    gateway: &GatewayHandle,
    story: &Shared,
    who: Who,
    rng: &mut Rng,
) -> Result<AuthorizationRedirect, FlowError> {
    let link = gateway.create_connect_link(connection_id(who), None, ScopeSet::default()).await?;
    tokio::time::sleep(Duration::from_millis(rng.below(2000))).await;
    let (first, second) = tokio::join!(
        gateway.open_connect_link(link.token.clone(), None),
        gateway.open_connect_link(link.token.clone(), None)
    );
    let third = gateway.open_connect_link(link.token, None).await;
    if [&first, &second, &third].into_iter().filter(|opened| opened.is_ok()).count() > 1 {
        fault(story, format!("a connect link of {who:?} was used twice"));
    }
    match first.or(second).or(third)? {
        Opened::Redirect(redirect) => Ok(redirect),
        Opened::Device(_) => unreachable!("no profile here uses a device"),
    }
}

/// What an attacker, or another browser, might bring.
fn forged(
    genuine: &AuthorizationResponse,
    redirect: &AuthorizationRedirect,
    code: &str,
    rng: &mut Rng,
) -> Option<(AuthorizationResponse, Option<Secret>)> {
    match rng.below(5) {
        0 => Some((genuine.clone(), Some(Secret::new("B".repeat(43))))),
        1 => Some((genuine.clone(), None)),
        2 => Some((response("no-such-state", Ok(code)), Some(redirect.browser.clone()))),
        _ => None,
    }
}

fn is_harmless<T>(answer: &Result<T, FlowError>) -> bool {
    matches!(answer, Err(FlowError::Invalid { .. } | FlowError::Store(_) | FlowError::Ask(_)))
}

fn response(state: &str, result: Result<&str, &str>) -> AuthorizationResponse {
    AuthorizationResponse {
        state: Secret::new(state),
        iss: None,
        result: result.map(Secret::new).map_err(str::to_owned),
        further: FurtherParams::default(),
    }
}
