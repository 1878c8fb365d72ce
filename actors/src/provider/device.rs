//! Authorization on another device (RFC 8628): the request for the codes, and the token requests
//! until the person has decided.

use std::sync::atomic::Ordering;

use super::capabilities;
use super::consent;
use super::context::ProviderContext;
use super::error::TokenError;
use super::grant_request::{self, GrantAsk, Granted};
use super::messages::DevicePoll;
use crate::authorization_server::unknown;
use crate::connection::{Failure, FailureClass};
use crate::grants::Redemption;
use crate::protocol::device_authorization::{DeviceAnswer, DeviceAuthorization, parse_device_answer};
use crate::protocol::identifiers::Subject;
use crate::protocol::template::CallContext;
use crate::protocol::token_request::TokenRequest;
use crate::token_endpoint::Addressee;
use crate::transport::IncomingResponse;

/// Asks for the codes (section 3.1).
pub(super) async fn authorize(
    context: &ProviderContext,
    params: &[(String, String)],
) -> Result<DeviceAuthorization, TokenError> {
    request(context, params).await.map_err(|failure| {
        context.note_error(&failure.detail);
        context.failure_error(&Subject::shared(), &failure, None)
    })
}

async fn request(
    context: &ProviderContext,
    params: &[(String, String)],
) -> Result<DeviceAuthorization, Failure> {
    let metadata = context.discovery.metadata().await?;
    capabilities::check(&context.profile, &metadata)?;
    let endpoint = metadata.endpoints.device_authorization_endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| unknown("device_authorization_endpoint"))?;
    let client = context.client().await?;
    let mut request = TokenRequest::default();
    // Every client names itself here, however it proves who it is (section 3.1).
    request.param("client_id", client.client_id.as_str());
    request.add_all(params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let to = Addressee { profile: &context.profile, client: &client, metadata: &metadata, endpoint };
    let read = |answer: &IncomingResponse| {
        parse_device_answer(answer.status, &answer.headers, &answer.body, context.now())
    };
    context.token_endpoint.ask(to, request, read).await.map_err(grant_request::before_any_grant)
}

/// Asks once whether the person has decided (section 3.4), and saves what that brings.
pub(super) async fn poll(
    context: &ProviderContext,
    subject: &Subject,
    redemption: &Redemption,
) -> Result<DevicePoll, TokenError> {
    let flight = consent::take_turn(context, subject).await?;
    match ask(context, subject, redemption).await {
        Ok(Asked::Granted(granted)) => {
            consent::accept(context, subject, *granted, redemption, None, flight).await?;
            Ok(DevicePoll::Connected)
        }
        Ok(Asked::Undecided(poll)) => Ok(poll),
        Err(failure) => {
            context.note_error(&failure.detail);
            match failure.class {
                FailureClass::ProviderUnavailable => {
                    Ok(DevicePoll::Later { after: failure.retry_after, detail: failure.detail })
                }
                _ => Err(context.failure_error(subject, &failure, None)),
            }
        }
    }
}

enum Asked {
    Granted(Box<Granted>),
    Undecided(DevicePoll),
}

async fn ask(
    context: &ProviderContext,
    subject: &Subject,
    redemption: &Redemption,
) -> Result<Asked, Failure> {
    let metadata = context.discovery.metadata().await?;
    let endpoint = metadata.token_endpoint()?;
    let (call, scopes) = (&CallContext::default(), &redemption.scopes);
    let ask = GrantAsk { subject, call, scopes, redemption: Some(redemption) };
    let client = context.client().await?;
    let mut request = grant_request::grant(context, &client, &metadata, ask)?;
    request.dpop_key = redemption.dpop_key.clone();
    if let Some(key) = &redemption.dpop_key {
        metadata.check_dpop(key.algorithm())?;
    }
    let requested_at = context.now();
    context.counters.token_requests.fetch_add(1, Ordering::Relaxed);
    let to = Addressee { profile: &context.profile, client: &client, metadata: &metadata, endpoint };
    let further = context.profile.registration.render_params(false, subject, call);
    let further = further.map_err(|error| grant_request::incomplete(&error))?;
    Ok(match context.token_endpoint.poll(to, request, &further).await? {
        DeviceAnswer::Granted(response) => {
            let requested = Some(scopes.clone()).filter(|scopes| !scopes.is_empty());
            let dpop_key = redemption.dpop_key.clone();
            context.count(&context.counters.granted);
            Asked::Granted(Box::new(Granted { response: *response, requested_at, dpop_key, requested }))
        }
        DeviceAnswer::Pending => Asked::Undecided(DevicePoll::Pending),
        DeviceAnswer::SlowDown => Asked::Undecided(DevicePoll::SlowDown),
        DeviceAnswer::Denied => Asked::Undecided(DevicePoll::Denied),
        DeviceAnswer::Expired => Asked::Undecided(DevicePoll::Expired),
    })
}
