//! The token endpoint (RFC 6749 section 3.2) and the revocation endpoint (RFC 7009).

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_actors::protocol::secret::Secret;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::authorize::requested_scope;
use super::state::{ACCESS_TOKEN_LIFETIME, Client, Issued, PEOPLE, Sandbox};

const ID_TOKEN_LIFETIME: u64 = 300;

/// A parsed form in which nothing is given twice.
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a form or query; a repeated parameter is an error (RFC 6749 section 3.1).
    pub fn parse(text: &[u8]) -> Result<Self, OAuthError> {
        let mut members = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text) {
            if members.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(INVALID_REQUEST);
            }
        }
        Ok(Self(members))
    }

    /// A parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// An error answer (RFC 6749 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OAuthError {
    status: StatusCode,
    code: &'static str,
    description: &'static str,
}

const INVALID_REQUEST: OAuthError = OAuthError {
    status: StatusCode::BAD_REQUEST,
    code: "invalid_request",
    description: "a parameter is missing or given twice",
};
const INVALID_CLIENT: OAuthError = OAuthError {
    status: StatusCode::UNAUTHORIZED,
    code: "invalid_client",
    description: "client authentication failed",
};
const INVALID_GRANT: OAuthError = OAuthError {
    status: StatusCode::BAD_REQUEST,
    code: "invalid_grant",
    description: "the code or refresh token is unknown, used, expired or not yours",
};
const INVALID_SCOPE: OAuthError =
    OAuthError { status: StatusCode::BAD_REQUEST, code: "invalid_scope", description: "a scope is unknown" };
const UNSUPPORTED_GRANT_TYPE: OAuthError = OAuthError {
    status: StatusCode::BAD_REQUEST,
    code: "unsupported_grant_type",
    description: "this grant type is not served",
};
const SERVER_ERROR: OAuthError = OAuthError {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    code: "server_error",
    description: "the ID token could not be signed",
};

impl OAuthError {
    fn response(self) -> HttpResponse {
        let mut builder = HttpResponse::build(self.status);
        builder.insert_header((CACHE_CONTROL, "no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            builder.insert_header((WWW_AUTHENTICATE, "Basic realm=\"sandbox\""));
        }
        builder.json(json!({ "error": self.code, "error_description": self.description }))
    }
}

/// `POST /token`.
pub async fn token(sandbox: web::Data<Sandbox>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    match exchange(&sandbox, &request, &body) {
        Ok(answer) => HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(answer),
        Err(error) => error.response(),
    }
}

/// `POST /revoke`.
pub async fn revoke(sandbox: web::Data<Sandbox>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let done = Form::parse(&body).and_then(|form| {
        let client = authenticate(&sandbox, &request, &form)?;
        sandbox.revoke(&client.id, form.get("token").ok_or(INVALID_REQUEST)?);
        Ok(())
    });
    match done {
        Ok(()) => HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).finish(),
        Err(error) => error.response(),
    }
}

fn exchange(sandbox: &Sandbox, request: &HttpRequest, body: &[u8]) -> Result<Value, OAuthError> {
    let form = Form::parse(body)?;
    let client = authenticate(sandbox, request, &form)?;
    let issued = match form.get("grant_type").ok_or(INVALID_REQUEST)? {
        "authorization_code" => {
            let need = |name| form.get(name).ok_or(INVALID_REQUEST);
            sandbox
                .redeem_code(&client.id, need("code")?, need("redirect_uri")?, need("code_verifier")?)
                .ok_or(INVALID_GRANT)?
        }
        "refresh_token" => sandbox
            .refresh(&client.id, form.get("refresh_token").ok_or(INVALID_REQUEST)?)
            .ok_or(INVALID_GRANT)?,
        "client_credentials" => {
            let scope = requested_scope(form.get("scope")).ok_or(INVALID_SCOPE)?;
            sandbox.issue_to_client(&client.id, scope)
        }
        _ => return Err(UNSUPPORTED_GRANT_TYPE),
    };
    answer(sandbox, &issued)
}

fn answer(sandbox: &Sandbox, issued: &Issued) -> Result<Value, OAuthError> {
    let mut answer = json!({
        "access_token": issued.access_token.expose(),
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFETIME.as_secs(),
        "scope": issued.grant.scope.to_string(),
    });
    if let Some(token) = &issued.refresh_token {
        answer["refresh_token"] = token.expose().into();
        if issued.grant.scope.contains("openid") {
            answer["id_token"] = id_token(sandbox, issued)?.into();
        }
    }
    Ok(answer)
}

fn id_token(sandbox: &Sandbox, issued: &Issued) -> Result<String, OAuthError> {
    let now = sandbox.now().as_secs();
    let user = issued.grant.user.as_str();
    let mut claims = json!({
        "iss": sandbox.issuer(),
        "sub": user,
        "aud": issued.grant.client_id,
        "iat": now,
        "exp": now.saturating_add(ID_TOKEN_LIFETIME),
        "name": PEOPLE.iter().find(|(name, _)| *name == user).map(|(_, full_name)| *full_name),
    });
    if let Some(nonce) = &issued.nonce {
        claims["nonce"] = nonce.as_str().into();
    }
    sandbox.keys().sign(&claims).map_err(|_| SERVER_ERROR)
}

/// `client_secret_basic` or `client_secret_post`, never both (RFC 6749 section 2.3).
fn authenticate<'s>(
    sandbox: &'s Sandbox,
    request: &HttpRequest,
    form: &Form,
) -> Result<&'s Client, OAuthError> {
    let in_header = match request.headers().get(AUTHORIZATION) {
        Some(value) => Some(value.to_str().ok().and_then(basic_credentials).ok_or(INVALID_CLIENT)?),
        None => None,
    };
    let in_body = form
        .get("client_secret")
        .map(|secret| (form.get("client_id").unwrap_or_default().to_owned(), Secret::new(secret)));
    let (id, secret) = match (in_header, in_body) {
        (Some(credentials), None) | (None, Some(credentials)) => credentials,
        (Some(_), Some(_)) => return Err(INVALID_REQUEST),
        (None, None) => return Err(INVALID_CLIENT),
    };
    sandbox.client(&id).filter(|client| client.secret == secret).ok_or(INVALID_CLIENT)
}

/// Both parts are form-encoded before they are joined (RFC 6749 section 2.3.1).
fn basic_credentials(header: &str) -> Option<(String, Secret)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decoded(id)?, Secret::new(form_decoded(secret)?)))
}

fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}
