//! The authorization request: where a browser is sent (RFC 6749 section 4.1.1).

use url::Url;
use url::form_urlencoded::{self, Serializer};

use super::scope::ScopeSet;
use super::state::{Nonce, State};

/// Parameters that only the flow itself sets; neither configuration nor the endpoint's own query
/// can give them another value.
pub const RESERVED_PARAMS: [&str; 7] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "nonce",
];

/// What goes into an authorization request.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The authorization endpoint; its query is kept (RFC 6749 section 3.1).
    pub endpoint: &'a Url,
    /// RFC 6749 section 2.2.
    pub client_id: &'a str,
    /// The redirection endpoint; the token request repeats it byte for byte.
    pub redirect_uri: &'a Url,
    /// What is asked for; the parameter is left out when empty.
    pub scopes: &'a ScopeSet,
    /// Ties the response to this request.
    pub state: &'a State,
    /// The `S256` code challenge (RFC 7636 section 4.3).
    pub challenge: Option<&'a str>,
    /// Ties the ID token to this request.
    pub nonce: Option<&'a Nonce>,
    /// Further parameters. One that is set already, or [reserved](RESERVED_PARAMS), is not sent.
    pub extra: &'a [(String, String)],
}

impl AuthorizationRequest<'_> {
    /// The URL to send the browser to: no parameter twice, none empty, no fragment.
    pub fn url(&self) -> Url {
        let scope = self.scopes.to_string();
        let mut params: Vec<(&str, &str)> = vec![
            ("response_type", "code"),
            ("client_id", self.client_id),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("scope", &scope),
            ("state", self.state.secret().expose()),
        ];
        if let Some(challenge) = self.challenge {
            params.push(("code_challenge", challenge));
            params.push(("code_challenge_method", "S256"));
        }
        if let Some(nonce) = self.nonce {
            params.push(("nonce", nonce.secret().expose()));
        }
        params.retain(|(_, value)| !value.is_empty());
        for (name, value) in self.extra {
            let taken =
                RESERVED_PARAMS.contains(&name.as_str()) || params.iter().any(|(known, _)| known == name);
            if !taken && !value.is_empty() {
                params.push((name, value));
            }
        }

        // What the endpoint's own query says stays as written, unless we say it too.
        let ours =
            |name: &str| RESERVED_PARAMS.contains(&name) || params.iter().any(|(known, _)| *known == name);
        let kept = self.endpoint.query().unwrap_or_default().split('&').filter(|pair| {
            form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| !ours(&name))
        });
        let mut query = kept.collect::<Vec<_>>().join("&");
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&Serializer::new(String::new()).extend_pairs(&params).finish());

        let mut url = self.endpoint.clone();
        url.set_fragment(None);
        url.set_query(Some(&query));
        url
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn url_for(endpoint: &str, scopes: &[&str], extra: &[(&str, &str)]) -> Url {
        let extra: Vec<_> = extra.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        AuthorizationRequest {
            endpoint: &endpoint.parse().unwrap(),
            client_id: "s6BhdRkqt3",
            redirect_uri: &"https://client.example.com/cb".parse().unwrap(),
            scopes: &ScopeSet::from_tokens(scopes.iter().copied()).unwrap(),
            state: &State("xyz".into()),
            challenge: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            nonce: Some(&Nonce("n-0S6_WzA2Mj".into())),
            extra: &extra,
        }
        .url()
    }

    fn values<'u>(url: &'u Url, name: &str) -> Vec<String> {
        let of_name = |(known, value): (std::borrow::Cow<'u, str>, std::borrow::Cow<'u, str>)| {
            (known == name).then(|| value.into_owned())
        };
        url.query_pairs().filter_map(of_name).collect()
    }

    #[test]
    fn the_url_has_every_parameter_of_rfc_6749_section_4_1_1_and_rfc_7636() {
        let url = url_for("https://server.example.com/authorize", &["openid", "mail"], &[]);
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
            assert_eq!(values(&url, name).len(), 1, "{name}");
        }
    }

    #[test]
    fn what_the_flow_leaves_out_nobody_else_puts_in() {
        let pair = ("code_challenge".to_owned(), "evil".to_owned());
        let url = AuthorizationRequest {
            endpoint: &"https://a.example/?nonce=evil&code_challenge_method=plain".parse().unwrap(),
            client_id: "c",
            redirect_uri: &"https://client.example.com/cb".parse().unwrap(),
            scopes: &ScopeSet::default(),
            state: &State("xyz".into()),
            challenge: None,
            nonce: None,
            extra: &[pair],
        }
        .url();
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
}
