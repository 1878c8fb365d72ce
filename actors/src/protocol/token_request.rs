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

/// How the body of a token request is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 section 3.2).
    #[default]
    Form,
    /// A JSON object of texts.
    Json,
}

/// A token request under construction: a grant fills it, client authentication adds to it.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// Form parameters, in order; none twice (RFC 6749 section 3.2) but `resource` (RFC 8707).
    pub params: Vec<(String, Secret)>,
    /// Parameters that go into the URL's query instead, where a server insists on it.
    pub query: Vec<(String, Secret)>,
    /// Further headers, such as `Authorization`.
    pub headers: HeaderMap,
    /// How the body is written.
    pub format: RequestFormat,
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

    /// Sets each parameter in turn; every `resource` is kept (RFC 8707 section 2).
    pub fn add_all<'a>(&mut self, params: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, value) in params {
            match name {
                "resource" => self.add_resource(value),
                _ => self.param(name, value),
            }
        }
    }

    /// The value of a parameter, if set.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Calls the parameter `name` by the name `other`, in the body and in the query.
    pub fn rename(&mut self, name: &str, other: &str) {
        for params in [&mut self.params, &mut self.query] {
            if name != other && params.iter().any(|(known, _)| known == name) {
                params.retain(|(known, _)| known != other);
                params
                    .iter_mut()
                    .filter(|(known, _)| known == name)
                    .for_each(|(known, _)| other.clone_into(known));
            }
        }
    }

    /// Headers and body, ready to be sent (RFC 6749 appendix B). The body is wiped when its last
    /// clone is dropped. The query is not in it.
    pub fn into_body(self) -> (HeaderMap, Bytes) {
        let mut headers = self.headers;
        let kind = match self.format {
            RequestFormat::Form => "application/x-www-form-urlencoded",
            RequestFormat::Json => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let body = match self.format {
            RequestFormat::Form => form(&self.params),
            RequestFormat::Json => json(&self.params),
        };
        (headers, wiped_bytes(body))
    }
}

/// Room for `params`, none of whose bytes becomes more than `growth`: growing would leave an unwiped
/// copy behind.
fn room(params: &[(String, Secret)], growth: usize) -> Vec<u8> {
    let most = |text: &str| text.len().saturating_mul(growth);
    let each = |(name, value): &(String, Secret)| most(name) + most(value.expose()) + 8;
    Vec::with_capacity(params.iter().map(each).sum::<usize>() + 2)
}

fn form(params: &[(String, Secret)]) -> Vec<u8> {
    let mut body = room(params, 3);
    for (name, value) in params {
        if !body.is_empty() {
            body.push(b'&');
        }
        encode(name, &mut body);
        body.push(b'=');
        encode(value.expose(), &mut body);
    }
    body
}

fn json(params: &[(String, Secret)]) -> Vec<u8> {
    let mut body = room(params, 6);
    body.push(b'{');
    for (at, (name, value)) in params.iter().enumerate() {
        if params[..at].iter().any(|(known, _)| known == name) {
            continue;
        }
        if at > 0 {
            body.push(b',');
        }
        text(name, &mut body);
        body.push(b':');
        // The one that may be sent several times is an array then (RFC 8707 section 2).
        let mut others = params[at + 1..].iter().filter(|(known, _)| known == name).peekable();
        let several = others.peek().is_some();
        if several {
            body.push(b'[');
        }
        text(value.expose(), &mut body);
        for (_, other) in others {
            body.push(b',');
            text(other.expose(), &mut body);
        }
        if several {
            body.push(b']');
        }
    }
    body.push(b'}');
    body
}

/// A JSON string.
fn text(text: &str, out: &mut Vec<u8>) {
    // Writing a text into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
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
        String::from_utf8_lossy(&request.into_body().1).into_owned()
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
        let (headers, _) = TokenRequest::new("client_credentials").into_body();
        assert_eq!(headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert_eq!(headers[ACCEPT], "application/json");
    }

    #[test]
    fn a_json_body_has_the_same_parameters_as_texts() {
        let mut request = TokenRequest::new("authorization_code");
        request.param("code", "a\"b\\c\u{1}é");
        request.add_resource("x");
        request.add_resource("y");
        request.format = RequestFormat::Json;
        let (headers, body) = request.clone().into_body();
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let expected = serde_json::json!({"grant_type": "authorization_code", "code": "a\"b\\c\u{1}é", "resource": ["x", "y"]});
        assert_eq!(read, expected);
        let empty = TokenRequest { format: RequestFormat::Json, ..TokenRequest::default() };
        assert_eq!(body_of(empty), "{}");
    }

    #[test]
    fn no_body_outgrows_the_room_reserved_for_it() {
        let nasty = "\u{1}\u{7f}\"é".repeat(50);
        let params = vec![(nasty.clone(), Secret::new(nasty))];
        for (body, reserved) in [(form(&params), room(&params, 3)), (json(&params), room(&params, 6))] {
            assert!(body.len() <= reserved.capacity(), "{} > {}", body.len(), reserved.capacity());
        }
    }

    #[test]
    fn a_parameter_that_has_another_name_is_sent_under_that_one_only() {
        let mut request = TokenRequest::new("refresh_token");
        request.param("client_key", "from-configuration");
        request.param("client_id", "c");
        request.query.push(("client_id".into(), "c".into()));
        request.rename("client_id", "client_key");
        request.rename("absent", "grant_type");
        assert_eq!(request.query[0].0, "client_key");
        assert_eq!(body_of(request), "grant_type=refresh_token&client_key=c");
    }
}
