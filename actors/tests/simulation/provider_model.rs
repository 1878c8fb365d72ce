//! An authorization server as a model: it rotates refresh tokens, loses answers, fails, throttles,
//! and writes down whatever a client must never do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use claviger_actors::transport::{IncomingResponse, OutgoingRequest, Transport, TransportError};
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use url::Url;

use crate::rng::Rng;

/// The authorization server's host.
pub const AUTHORITY: &str = "as.example";

/// What one person granted.
#[derive(Clone, Debug)]
struct Grant {
    subject: String,
    current: String,
    /// Still accepted, as long as the client shows no sign of having got the current one.
    previous: Option<String>,
    revoked: bool,
    in_flight: u32,
}

#[derive(Clone, Debug)]
struct Code {
    subject: String,
    challenge: String,
    used: bool,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    grants: Vec<Grant>,
    codes: BTreeMap<String, Code>,
    minted: u64,
    faults: bool,
    violations: Vec<String>,
    token_requests: u64,
    robot_in_flight: u32,
}

/// The model, shared by all epochs of one seed.
#[derive(Clone, Debug)]
pub struct ProviderModel(Arc<Mutex<State>>);

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    Unreachable,
    LostBefore,
    LostAfter,
    ServerError,
    Throttled,
    Garbage,
}

impl ProviderModel {
    pub fn new(rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng,
            grants: Vec::new(),
            codes: BTreeMap::new(),
            minted: 0,
            faults: true,
            violations: Vec::new(),
            token_requests: 0,
            robot_in_flight: 0,
        })))
    }

    /// What the client did that no client may do.
    pub fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    pub fn token_requests(&self) -> u64 {
        self.0.lock().token_requests
    }

    /// From now on everything is answered.
    pub fn heal(&self) {
        self.0.lock().faults = false;
    }

    /// Whatever was under way when the process was killed is over.
    pub fn connections_cut(&self) {
        let mut state = self.0.lock();
        state.robot_in_flight = 0;
        state.grants.iter_mut().for_each(|grant| grant.in_flight = 0);
    }

    /// The person consents to the authorization request at `url`: the code and state that the
    /// browser brings back.
    pub fn consent(&self, url: &Url, subject: &str) -> (String, String) {
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let mut state = self.0.lock();
        for (key, wanted) in [("response_type", "code"), ("code_challenge_method", "S256")] {
            if query.get(key).map(String::as_str) != Some(wanted) {
                state.violations.push(format!("authorization request without {key}={wanted}"));
            }
        }
        let code = state.mint("code");
        let challenge = query.get("code_challenge").cloned().unwrap_or_default();
        state.codes.insert(code.clone(), Code { subject: subject.to_owned(), challenge, used: false });
        (code, query.get("state").cloned().unwrap_or_default())
    }

    /// The person revokes everything they granted.
    pub fn revoke(&self, subject: &str) {
        let mut state = self.0.lock();
        state
            .grants
            .iter_mut()
            .filter(|grant| grant.subject == subject)
            .for_each(|grant| grant.revoked = true);
    }

    /// Whether the person's newest grant is alive.
    pub fn has_live_grant(&self, subject: &str) -> bool {
        self.0
            .lock()
            .grants
            .iter()
            .rev()
            .find(|grant| grant.subject == subject)
            .is_some_and(|grant| !grant.revoked)
    }
}

impl State {
    fn mint(&mut self, kind: &str) -> String {
        self.minted += 1;
        format!("{kind}-{}-{:x}", self.minted, self.rng.next())
    }

    fn fate(&mut self) -> Fate {
        if !self.faults {
            return Fate::Answered;
        }
        match self.rng.below(100) {
            0..72 => Fate::Answered,
            72..77 => Fate::Unreachable,
            77..82 => Fate::LostBefore,
            82..87 => Fate::LostAfter,
            87..93 => Fate::ServerError,
            93..97 => Fate::Throttled,
            _ => Fate::Garbage,
        }
    }

    fn tokens(&mut self, subject: &str, refresh: Option<&str>) -> serde_json::Value {
        let access = self.mint(&format!("access.{subject}"));
        let mut answer = serde_json::json!({ "access_token": access, "token_type": "Bearer" });
        if self.rng.below(10) > 0 {
            answer["expires_in"] = (5 + self.rng.below(600)).into();
        }
        if let Some(refresh) = refresh {
            answer["refresh_token"] = refresh.into();
        }
        answer
    }

    /// Processes a request, whether or not its answer will arrive.
    fn process(&mut self, form: &BTreeMap<String, String>) -> (StatusCode, serde_json::Value) {
        let value = |key: &str| form.get(key).cloned().unwrap_or_default();
        match value("grant_type").as_str() {
            "client_credentials" => (StatusCode::OK, self.tokens("robot", None)),
            "authorization_code" => self.redeem(&value("code"), &value("code_verifier")),
            "refresh_token" => self.refresh(&value("refresh_token")),
            other => {
                self.violations.push(format!("unknown grant_type {other:?}"));
                refusal("unsupported_grant_type")
            }
        }
    }

    fn redeem(&mut self, code: &str, verifier: &str) -> (StatusCode, serde_json::Value) {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
        let Some(known) = self.codes.get_mut(code) else {
            self.violations.push("a code that was never issued was sent".to_owned());
            return refusal("invalid_grant");
        };
        if known.used {
            self.violations.push("a code was sent twice".to_owned());
            return refusal("invalid_grant");
        }
        known.used = true;
        if known.challenge != URL_SAFE_NO_PAD.encode(hash) {
            self.violations.push("the code verifier does not fit".to_owned());
        }
        let subject = known.subject.clone();
        let current = self.mint("refresh");
        let grant = Grant {
            subject: subject.clone(),
            current: current.clone(),
            previous: None,
            revoked: false,
            in_flight: 0,
        };
        self.grants.push(grant);
        (StatusCode::OK, self.tokens(&subject, Some(&current)))
    }

    fn refresh(&mut self, token: &str) -> (StatusCode, serde_json::Value) {
        let Some(index) = self.grant_of(token) else {
            self.violations
                .push("a refresh token that is long gone was sent: a newer one was lost".to_owned());
            return refusal("invalid_grant");
        };
        if self.grants[index].revoked {
            return refusal("invalid_grant");
        }
        let rotate = self.rng.below(4) > 0;
        let new = if rotate { self.mint("refresh") } else { self.grants[index].current.clone() };
        let grant = &mut self.grants[index];
        if grant.current == token && rotate {
            grant.previous = Some(std::mem::replace(&mut grant.current, new));
        } else if rotate {
            grant.current = new;
        }
        let (subject, current) = (grant.subject.clone(), grant.current.clone());
        (StatusCode::OK, self.tokens(&subject, Some(&current)))
    }

    fn grant_of(&self, token: &str) -> Option<usize> {
        self.grants
            .iter()
            .position(|grant| grant.current == token || grant.previous.as_deref() == Some(token))
    }

    /// Counts a request in, and writes down when it is not alone.
    fn enter(&mut self, form: &BTreeMap<String, String>) {
        self.token_requests += 1;
        let in_flight = match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => &mut self.robot_in_flight,
            Some("refresh_token") => match self.grant_of(&form["refresh_token"]) {
                Some(index) => &mut self.grants[index].in_flight,
                None => return,
            },
            _ => return,
        };
        *in_flight += 1;
        if *in_flight > 1 {
            self.violations.push(format!("{in_flight} token requests in flight for one connection"));
        }
    }

    fn leave(&mut self, form: &BTreeMap<String, String>, grant: Option<usize>) {
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => self.robot_in_flight = self.robot_in_flight.saturating_sub(1),
            _ => {
                if let Some(index) = grant {
                    self.grants[index].in_flight = self.grants[index].in_flight.saturating_sub(1);
                }
            }
        }
    }
}

fn refusal(code: &str) -> (StatusCode, serde_json::Value) {
    (StatusCode::BAD_REQUEST, serde_json::json!({ "error": code }))
}

fn answer(status: StatusCode, body: impl Into<Bytes>, headers: HeaderMap) -> IncomingResponse {
    IncomingResponse { status, headers, body: body.into() }
}

impl Transport for ProviderModel {
    fn send(
        &self,
        request: OutgoingRequest,
    ) -> LocalBoxFuture<'static, Result<IncomingResponse, TransportError>> {
        let model = self.0.clone();
        Box::pin(async move {
            let form: BTreeMap<String, String> =
                url::form_urlencoded::parse(&request.body).into_owned().collect();
            let authority = || AUTHORITY.to_owned();
            let (fate, delay, grant) = {
                let mut state = model.lock();
                state.enter(&form);
                let grant = form.get("refresh_token").and_then(|token| state.grant_of(token));
                (state.fate(), Duration::from_millis(1 + state.rng.below(400)), grant)
            };
            tokio::time::sleep(delay).await;
            let processed = match fate {
                Fate::Answered | Fate::LostAfter => Some(model.lock().process(&form)),
                _ => None,
            };
            // An answer travels too: there is time to be killed between it and its arrival.
            tokio::time::sleep(delay).await;
            let timeout = || TransportError::Timeout { authority: authority(), after: request.deadline };
            if matches!(fate, Fate::LostAfter | Fate::LostBefore) {
                tokio::time::sleep(request.deadline.saturating_sub(delay * 2)).await;
            }
            model.lock().leave(&form, grant);
            match (fate, processed) {
                (Fate::Answered, Some((status, body))) => {
                    Ok(answer(status, body.to_string(), HeaderMap::new()))
                }
                (Fate::Unreachable, _) => {
                    Err(TransportError::Connect { authority: authority(), cause: "refused".to_owned() })
                }
                (Fate::ServerError, _) => {
                    Ok(answer(StatusCode::INTERNAL_SERVER_ERROR, "<html>oops", HeaderMap::new()))
                }
                (Fate::Throttled, _) => {
                    let headers =
                        HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static("2"))]);
                    Ok(answer(StatusCode::TOO_MANY_REQUESTS, "", headers))
                }
                (Fate::Garbage, _) => Ok(answer(StatusCode::OK, "{]", HeaderMap::new())),
                _ => Err(timeout()),
            }
        })
    }
}
