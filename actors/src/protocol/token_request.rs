//! Form parameters and headers of a token request, before it is sent (RFC 6749 section 4).

use http::HeaderMap;

use super::secret::Secret;

/// A token request under construction: a grant fills it, client authentication adds to it.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// Form parameters, in order; none twice (RFC 6749 section 3.2).
    pub params: Vec<(String, Secret)>,
    /// Further headers, such as `Authorization`.
    pub headers: HeaderMap,
}
