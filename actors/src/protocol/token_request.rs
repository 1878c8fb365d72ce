//! Form parameters and headers of a token request, before it is sent (RFC 6749 section 4).

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use super::dpop::DpopKey;
use super::secret::{Secret, wiped_bytes};

/// Parameters that belong to client authentication; configuration must not set them
/// (RFC 6749 section 2.3: one method per request).
pub const CLIENT_AUTH_PARAMS: [&str; 4] =
    ["client_id", "client_secret", "client_assertion", "client_assertion_type"];

/// A token request under construction: a grant fills it, client authentication adds to it.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// Form parameters, in order; none twice (RFC 6749 section 3.2) but `resource` (RFC 8707).
    pub params: Vec<(String, Secret)>,
    /// Further headers, such as `Authorization`.
    pub headers: HeaderMap,
    /// The key that it is proven with, and its tokens will be bound to (RFC 9449 section 5).
    pub dpop_key: Option<DpopKey>,
}

impl TokenRequest {
    /// Begins a request of the grant type `grant_type`.
    pub fn new(grant_type: &str) -> Self {
        let mut request = Self::default();
        request.param("grant_type", grant_type);
        request
    }

    /// Sets a parameter, replacing an earlier one of the same name. An empty value takes the
    /// parameter out: RFC 6749 section 3.2 treats one without a value as not sent.
    pub fn param(&mut self, name: &str, value: impl Into<Secret>) {
        let value = value.into();
        let place = self.params.iter().position(|(known, _)| known == name);
        match (place, value.expose().is_empty()) {
            (Some(place), true) => drop(self.params.remove(place)),
            (Some(place), false) => self.params[place].1 = value,
            (None, true) => {}
            (None, false) => self.params.push((name.to_owned(), value)),
        }
    }

    /// Adds a `resource`, the one parameter that may be sent several times (RFC 8707 section 2).
    pub fn add_resource(&mut self, resource: &str) {
        self.params.push(("resource".to_owned(), Secret::from(resource)));
    }

    /// The value of a parameter, if set.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Headers and form body, ready to be sent (RFC 6749 appendix B). The body is wiped when its
    /// last clone is dropped.
    pub fn into_form(self) -> (HeaderMap, Bytes) {
        let mut headers = self.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Reserved for the worst case: growing would leave an unwiped copy behind.
        let most = |text: &str| text.len().saturating_mul(3);
        let room = self.params.iter().map(|(name, value)| most(name) + most(value.expose()) + 2).sum();
        let mut body = Vec::with_capacity(room);
        for (name, value) in &self.params {
            if !body.is_empty() {
                body.push(b'&');
            }
            encode(name, &mut body);
            body.push(b'=');
            encode(value.expose(), &mut body);
        }
        (headers, wiped_bytes(body))
    }
}

fn encode(text: &str, out: &mut Vec<u8>) {
    for piece in url::form_urlencoded::byte_serialize(text.as_bytes()) {
        out.extend_from_slice(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(request: TokenRequest) -> String {
        String::from_utf8_lossy(&request.into_form().1).into_owned()
    }

    #[test]
    fn the_form_is_the_one_of_rfc_6749_section_4_1_3() {
        let mut request = TokenRequest::new("authorization_code");
        request.param("code", "SplxlOBeZQQYbYS6WxSbIA");
        request.param("redirect_uri", "https://client.example.com/cb");
        assert_eq!(
            body_of(request),
            "grant_type=authorization_code&code=SplxlOBeZQQYbYS6WxSbIA\
             &redirect_uri=https%3A%2F%2Fclient.example.com%2Fcb"
        );
    }

    #[test]
    fn values_are_encoded_per_rfc_6749_appendix_b() {
        let mut request = TokenRequest::default();
        request.param("a", " %&+£€");
        assert_eq!(body_of(request), "a=+%25%26%2B%C2%A3%E2%82%AC");
    }

    #[test]
    fn no_parameter_is_sent_twice_nor_empty() {
        let mut request = TokenRequest::new("refresh_token");
        request.param("scope", "one");
        request.param("scope", "two");
        request.param("audience", "");
        request.param("resource", "x");
        request.param("resource", "");
        assert_eq!(body_of(request), "grant_type=refresh_token&scope=two");
    }

    #[test]
    fn headers_name_the_form_and_ask_for_json() {
        let (headers, _) = TokenRequest::new("client_credentials").into_form();
        assert_eq!(headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert_eq!(headers[ACCEPT], "application/json");
    }
}
