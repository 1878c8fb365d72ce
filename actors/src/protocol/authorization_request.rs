//! The authorization request: where a browser is sent (RFC 6749 section 4.1.1).

use std::fmt;

use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::{self, Serializer};

use super::state::{Nonce, State};

/// Parameters that only the flow itself sets; neither configuration nor the endpoint's own query
/// can give them another value.
pub const RESERVED_PARAMS: [&str; 9] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "request",
    "request_uri",
];

/// The one parameter that may be sent several times (RFC 8707 section 2).
const REPEATABLE: &str = "resource";

/// What goes into an authorization request.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The redirection endpoint; the token request repeats it byte for byte.
    pub redirect_uri: &'a Url,
    /// What is asked for, with the name that the server has for it; left out when empty.
    pub scope: (&'a str, &'a str),
    /// Ties the response to this request.
    pub state: &'a State,
    /// The `S256` code challenge (RFC 7636 section 4.3).
    pub challenge: Option<&'a str>,
    /// Ties the ID token to this request.
    pub nonce: Option<&'a Nonce>,
    /// Parameters that have a key of their own in a profile, such as `max_age`.
    pub own: &'a [(&'static str, String)],
    /// Further parameters. One that is set already, or [reserved](RESERVED_PARAMS), is not sent.
    pub extra: &'a [(String, String)],
}

impl AuthorizationRequest<'_> {
    /// The parameters but for the client's: none twice but `resource`, none empty.
    pub fn params(&self) -> AuthorizationParams {
        let scope = self.scope;
        let mut params = vec![
            ("response_type", "code"),
            ("redirect_uri", self.redirect_uri.as_str()),
            scope,
            ("state", self.state.secret().expose()),
        ];
        if let Some(challenge) = self.challenge {
            params.push(("code_challenge", challenge));
            params.push(("code_challenge_method", "S256"));
        }
        if let Some(nonce) = self.nonce {
            params.push(("nonce", nonce.secret().expose()));
        }
        params.extend(self.own.iter().map(|(name, value)| (*name, value.as_str())));
        params.retain(|(_, value)| !value.is_empty());
        for (name, value) in self.extra {
            let taken =
                RESERVED_PARAMS.contains(&name.as_str()) || params.iter().any(|(known, _)| known == name);
            if !taken && !value.is_empty() {
                params.push((name, value));
            }
        }
        AuthorizationParams(params.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    }
}

/// The parameters of one authorization request, in order. `state` and `nonce` are among them, so
/// only names are printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationParams(Vec<(String, String)>);

impl AuthorizationParams {
    /// The parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same request of the client `client_id` (RFC 6749 section 2.2); `name` is what the server calls
    /// that parameter.
    #[must_use]
    pub fn of_client(mut self, name: &str, client_id: &str) -> Self {
        self.0.insert(1.min(self.0.len()), (name.to_owned(), client_id.to_owned()));
        self
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The URL to send the browser to, with all of them in its query (RFC 6749 section 3.1).
    pub fn url(&self, endpoint: &Url) -> Url {
        let all: Vec<_> = self.iter().collect();
        self.url_showing(endpoint, &all)
    }

    /// The URL for parameters that were pushed: it shows `client_id` and the reference
    /// (RFC 9126 section 4).
    pub fn pushed_url(&self, endpoint: &Url, client_id: &str, request_uri: &str) -> Url {
        self.url_showing(endpoint, &[("client_id", client_id), ("request_uri", request_uri)])
    }

    /// The URL with a signed request object (RFC 9101 section 5): beside it `client_id` and, as
    /// OpenID Connect Core section 6.1 wants them, `response_type` and `scope`.
    pub fn signed_url(&self, endpoint: &Url, client_id: &str, request: &str) -> Url {
        let mut shown = vec![("client_id", client_id)];
        if self.get("scope").is_some_and(|scope| scope.split(' ').any(|token| token == "openid")) {
            let beside = |name: &&str| ["response_type", "scope"].contains(name);
            shown.extend(self.iter().filter(|(name, _)| beside(name)));
        }
        shown.push(("request", request));
        self.url_showing(endpoint, &shown)
    }

    /// The claims of a request object (RFC 9101 section 4): numbers as numbers, JSON as JSON, and
    /// several resources as an array.
    pub fn claims(&self) -> Map<String, Value> {
        let mut claims = Map::new();
        for (name, value) in self.iter() {
            let structured = ["max_age", "claims", "authorization_details"].contains(&name);
            let parsed = structured.then(|| serde_json::from_str(value).ok()).flatten();
            let value = parsed.unwrap_or_else(|| Value::from(value));
            match claims.get_mut(name) {
                None => drop(claims.insert(name.to_owned(), value)),
                Some(Value::Array(values)) if name == REPEATABLE => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        claims
    }

    /// What the endpoint's own query says stays as written, unless we say it too. No fragment.
    fn url_showing(&self, endpoint: &Url, shown: &[(&str, &str)]) -> Url {
        // An endpoint may have a `request` that means something else, unless we send one.
        let ours_too = |name: &str| ["request", "request_uri"].contains(&name);
        let by_reference = shown.iter().any(|(name, _)| ours_too(name));
        let theirs = |name: &str| ours_too(name) && !by_reference;
        let ours = |name: &str| {
            let sent =
                shown.iter().any(|(known, _)| *known == name) || self.iter().any(|(known, _)| known == name);
            sent || RESERVED_PARAMS.contains(&name) && !theirs(name)
        };
        let kept = endpoint.query().unwrap_or_default().split('&').filter(|pair| {
            form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| !ours(&name))
        });
        let mut query = kept.collect::<Vec<_>>().join("&");
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&Serializer::new(String::new()).extend_pairs(shown).finish());

        let mut url = endpoint.clone();
        url.set_fragment(None);
        url.set_query(Some(&query));
        url
    }
}

impl fmt::Debug for AuthorizationParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn url_for(endpoint: &str, scopes: &[&str], extra: &[(&str, &str)]) -> Url {
        let extra: Vec<_> = extra.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        params(scopes, &[], &extra).url(&endpoint.parse().unwrap())
    }

    fn params(
        scopes: &[&str],
        own: &[(&'static str, String)],
        extra: &[(String, String)],
    ) -> AuthorizationParams {
        AuthorizationRequest {
            redirect_uri: &"https://client.example.com/cb".parse().unwrap(),
            scope: ("scope", &scopes.join(" ")),
            state: &State("xyz".into()),
            challenge: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            nonce: Some(&Nonce("n-0S6_WzA2Mj".into())),
            own,
            extra,
        }
        .params()
        .of_client("client_id", "s6BhdRkqt3")
    }

    fn values<'u>(url: &'u Url, name: &str) -> Vec<String> {
        let of_name = |(known, value): (std::borrow::Cow<'u, str>, std::borrow::Cow<'u, str>)| {
            (known == name).then(|| value.into_owned())
        };
        url.query_pairs().filter_map(of_name).collect()
    }

    #[test]
    fn the_url_has_every_parameter_of_rfc_6749_section_4_1_1_and_rfc_7636() {
        let url = url_for("https://server.example.com/authorize", &["mail", "openid"], &[]);
        assert_eq!(
            url.as_str(),
            "https://server.example.com/authorize?response_type=code&client_id=s6BhdRkqt3\
             &redirect_uri=https%3A%2F%2Fclient.example.com%2Fcb&scope=mail+openid&state=xyz\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256\
             &nonce=n-0S6_WzA2Mj"
        );
    }

    #[test]
    fn an_empty_scope_is_left_out() {
        assert!(values(&url_for("https://a.example/", &[], &[]), "scope").is_empty());
    }

    #[test]
    fn the_endpoints_own_query_is_kept_as_written_and_its_fragment_dropped() {
        let url = url_for("https://a.example/x?tenant=a%20b&p=1#top", &[], &[]);
        assert!(url.as_str().starts_with("https://a.example/x?tenant=a%20b&p=1&response_type=code&"));
        assert_eq!(url.fragment(), None);
    }

    #[test]
    fn neither_configuration_nor_endpoint_can_override_the_flow() {
        let extra: Vec<_> = RESERVED_PARAMS.iter().map(|name| (*name, "evil")).collect();
        let url = url_for("https://a.example/?state=evil&client%5Fid=evil&scope=evil", &["s"], &extra);
        assert!(!url.as_str().contains("evil"), "{url}");
        for name in RESERVED_PARAMS.into_iter().chain(["scope"]) {
            let sent = usize::from(!name.starts_with("request"));
            assert_eq!(values(&url, name).len(), sent, "{name}");
        }
    }

    #[test]
    fn what_the_flow_leaves_out_nobody_else_puts_in() {
        let pair = ("code_challenge".to_owned(), "evil".to_owned());
        let url = AuthorizationRequest {
            redirect_uri: &"https://client.example.com/cb".parse().unwrap(),
            scope: ("scope", ""),
            state: &State("xyz".into()),
            challenge: None,
            nonce: None,
            own: &[],
            extra: &[pair],
        }
        .params()
        .of_client("client_id", "c")
        .url(&"https://a.example/?nonce=evil&code_challenge_method=plain".parse().unwrap());
        let rest =
            "response_type=code&client_id=c&redirect_uri=https%3A%2F%2Fclient.example.com%2Fcb&state=xyz";
        assert_eq!(url.query(), Some(rest));
    }

    #[test]
    fn further_parameters_are_sent_once_and_never_empty() {
        let extra = [("access_type", "offline"), ("access_type", "online"), ("prompt", "")];
        let url = url_for("https://a.example/?access_type=none", &[], &extra);
        assert_eq!(values(&url, "access_type"), ["offline"]);
        assert!(values(&url, "prompt").is_empty());
    }

    #[test]
    fn a_pushed_request_shows_client_and_reference_only() {
        // RFC 9126 section 4.
        let params = params(&["accounts"], &[], &[]);
        let url = params.pushed_url(
            &"https://as.example.com/authorize?tenant=a&scope=evil&request=evil".parse().unwrap(),
            "s6BhdRkqt3",
            "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c",
        );
        assert_eq!(
            url.as_str(),
            "https://as.example.com/authorize?tenant=a&client_id=s6BhdRkqt3\
             &request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3A6esc_11ACC5bwc014ltc14eY22c"
        );
    }

    #[test]
    fn an_endpoint_keeps_a_request_of_its_own_while_we_send_none() {
        let url = url_for("https://as.example/authorize.php?request=authorize", &[], &[]);
        assert!(url.query().unwrap().starts_with("request=authorize&response_type=code&"), "{url}");
    }

    #[test]
    fn a_signed_request_repeats_what_openid_connect_wants_beside_it() {
        let endpoint = "https://as.example/a".parse().unwrap();
        let url = params(&["mail", "openid"], &[], &[]).signed_url(&endpoint, "c", "j.w.t");
        assert_eq!(url.query(), Some("client_id=c&response_type=code&scope=mail+openid&request=j.w.t"));
        let url = params(&["mail"], &[], &[]).signed_url(&endpoint, "c", "j.w.t");
        assert_eq!(url.query(), Some("client_id=c&request=j.w.t"));
    }

    #[test]
    fn resources_repeat_in_the_query_and_are_an_array_in_a_request_object() {
        let own = [
            ("resource", "https://a.example/".to_owned()),
            ("resource", "https://b.example/".to_owned()),
            ("max_age", "300".to_owned()),
            ("claims", r#"{"id_token":{"acr":{"essential":true}}}"#.to_owned()),
            ("prompt", "300".to_owned()),
        ];
        let params = params(&[], &own, &[("resource".to_owned(), "https://c.example/".to_owned())]);
        let url = params.url(&"https://as.example/".parse().unwrap());
        assert_eq!(values(&url, "resource"), ["https://a.example/", "https://b.example/"]);
        let claims = params.claims();
        assert_eq!(claims["resource"], serde_json::json!(["https://a.example/", "https://b.example/"]));
        assert_eq!((&claims["max_age"], &claims["prompt"]), (&Value::from(300), &Value::from("300")));
        assert_eq!(claims["claims"]["id_token"]["acr"]["essential"], true);
        assert_eq!(claims["state"], "xyz");
    }

    #[test]
    fn values_are_not_printed() {
        let printed = format!("{:?}", params(&["mail"], &[], &[]));
        assert!(printed.contains("state") && !printed.contains("xyz"), "{printed}");
    }
}
