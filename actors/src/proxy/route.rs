//! What a route needs, and how a path finds its route.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::Method;
use rustls::ClientConfig;
use url::Url;

use super::endpoints::Endpoints;
use super::resilience::Resilience;
use super::templated::UpstreamTemplate;
use crate::protocol::identifiers::{ProfileId, RouteId};
use crate::protocol::template::{CallContext, CallNeeds, Placeholder, SubjectTemplate};

/// Whose token a call uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectSource {
    /// The caller's own.
    Caller,
    /// Whoever the `Claviger-Subject` header names.
    Header,
    /// Whom the caller's JWT is about.
    Jwt,
    /// One connection for all callers.
    Shared,
    /// Whoever the template names, filled in from the call.
    Template(SubjectTemplate),
}

impl SubjectSource {
    /// As the configuration writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Caller => "caller",
            Self::Header => "header",
            Self::Jwt => "jwt",
            Self::Shared => "shared",
            Self::Template(template) => template.as_str(),
        }
    }

    /// What has to be known of a call.
    fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        match self {
            Self::Template(template) => Some(template.placeholders()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }
}

/// API Y here, API X there, and the profile whose token goes between.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its key in the configuration.
    pub id: RouteId,
    /// Path prefix here, without a trailing slash (the root is empty).
    pub path: String,
    /// The upstream's scheme, host and port; of several, the first one's. Where the token answer names it, its serialization is what
    /// token sets are bound to, and nothing else of it is used.
    pub origin: Arc<UpstreamOrigin>,
    /// How TLS is spoken with it, if not as with all upstreams.
    pub tls: Option<UpstreamTls>,
    /// Which HTTP is spoken with it.
    pub protocol: UpstreamProtocol,
    /// Path prefix there, without a trailing slash; of several upstreams, the first one's.
    pub upstream_path: String,
    /// Makes the upstream of the token answer, if it is not the same for all.
    pub template: Option<Arc<UpstreamTemplate>>,
    /// The profile whose token it uses.
    pub profile: ProfileId,
    /// Whose token it uses.
    pub subject: SubjectSource,
    /// What its profile's token requests need of a call.
    pub needs: CallNeeds,
    /// Whether the subject alone tells callers' JWTs apart: it is the JWT's own, and all callers have
    /// theirs from one issuer.
    pub subject_names_jwt: bool,
    /// What every call brings along for its token: the scopes that the route needs beyond the
    /// profile's.
    pub context: Arc<CallContext>,
    /// Methods allowed; `None` for all.
    pub methods: Option<Vec<Method>>,
    /// Time until the upstream's response head, at most.
    pub timeout: Duration,
    /// Largest request body, in bytes.
    pub max_body: Option<u64>,
    /// Its limits, and how it copes with upstreams that fail.
    pub resilience: Resilience,
}

impl Route {
    /// Whether a caller chooses by its own word whose token it gets: only one that may name subjects
    /// may. What else a call fills in is the operator's choice, and tells callers apart.
    pub fn takes_callers_word(&self) -> bool {
        matches!(self.subject, SubjectSource::Header)
            || self.needs.callers_word_names_subject
            || self.subject.placeholders().any(Placeholder::is_callers_word)
    }

    /// Where its calls may go: what its tokens must be bound to, all of it.
    pub fn origins(&self) -> impl Iterator<Item = &Arc<str>> {
        let several = self.resilience.endpoints.as_deref();
        let one = several.is_none().then_some(&self.origin);
        several.into_iter().flat_map(Endpoints::origins).chain(one).map(|origin| &origin.serialized)
    }
}

/// Which HTTP is spoken with an upstream. What switches protocols is asked for over HTTP/1.1 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// Over TLS what the upstream chooses of HTTP/2 and HTTP/1.1 (ALPN, RFC 7301); else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: over TLS the upstream must choose it; else it is known to speak it (RFC 9113
    /// section 3.3).
    Http2,
}

impl UpstreamProtocol {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Http1, Self::Http2];

    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamOrigin {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, as in the URL (IPv6 in brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// ASCII serialization, `scheme://host:port` with the default port left out: what connections
    /// are bound to.
    pub serialized: Arc<str>,
}

impl UpstreamOrigin {
    /// The origin of `url`, if it has a host (RFC 6454 section 6.2).
    pub fn of(url: &Url) -> Option<Self> {
        Some(Self {
            tls: url.scheme() == "https",
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
            serialized: url.origin().ascii_serialization().into(),
        })
    }

    /// What stands for the origin of a route whose upstream the token answer names.
    pub fn templated(template: &UpstreamTemplate) -> Self {
        Self { tls: true, host: String::new(), port: 0, serialized: template.binding() }
    }
}

/// TLS with a private CA or a client certificate of our own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Whom we trust, and what we show.
    pub config: Arc<ClientConfig>,
    /// Names both.
    pub identity: TlsIdentity,
}

/// Names whom TLS trusts and which certificate it shows. A connection opened with one identity is
/// never used for a call with another. The default is the one that all upstreams share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsIdentity([u8; 16]);

impl TlsIdentity {
    /// The identity of these certificates: authorities that are trusted, then those that are shown.
    pub fn of<'a>(
        trusted: impl IntoIterator<Item = &'a [u8]>,
        shown: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |kind: u8, certificate: &[u8]| {
            hash.update(&[kind]);
            hash.update(&certificate.len().to_be_bytes());
            hash.update(certificate);
        };
        trusted.into_iter().for_each(|certificate| add(0, certificate));
        shown.into_iter().for_each(|certificate| add(1, certificate));
        let mut name = [0; 16];
        name.copy_from_slice(&hash.finish().as_ref()[..16]);
        Self(name)
    }
}

/// All routes, by longest path prefix on segment boundaries.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    routes: Vec<Arc<Route>>,
    by_path: HashMap<String, Arc<Route>>,
    /// Segments of the longest configured prefix: deeper in a path there is nothing to look for.
    depth: usize,
}

impl RoutingTable {
    /// Gathers routes. Two routes with the same path are a configuration error found before.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        Self {
            by_path: routes.iter().map(|route| (route.path.clone(), route.clone())).collect(),
            depth: routes.iter().map(|route| slashes(&route.path).count()).max().unwrap_or(0),
            routes,
        }
    }

    /// The same routes, each changed by `change`, which must leave their paths alone.
    #[must_use]
    pub fn map(self, mut change: impl FnMut(&mut Route)) -> Self {
        let routes = self.routes.iter().map(|route| {
            let mut route = Route::clone(route);
            change(&mut route);
            route
        });
        Self::new(routes)
    }

    /// The same routes; those that were there `before` under their names go on with what they did
    /// ([`Resilience::continuing`]).
    #[must_use]
    pub fn continuing(self, before: &Self) -> Self {
        let known: HashMap<_, _> = before.routes.iter().map(|route| (&route.id, route)).collect();
        self.map(|route| {
            if let Some(known) = known.get(&route.id) {
                route.resilience = std::mem::take(&mut route.resilience).continuing(&known.resilience);
            }
        })
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// The route with the longest prefix of `path` on a segment boundary, and the prefix's length in
    /// bytes. One look-up for each segment that any prefix has, whatever the number of routes.
    pub fn find(&self, path: &str) -> Option<(&Arc<Route>, usize)> {
        let mut end = slashes(path).nth(self.depth).unwrap_or(path.len());
        loop {
            let prefix = path.get(..end)?;
            if let Some(route) = self.by_path.get(prefix) {
                return Some((route, end));
            }
            end = prefix.rfind('/')?;
        }
    }

    /// The origins of all routes that use `profile`: what its new token sets are bound to.
    pub fn origins_of(&self, profile: &ProfileId) -> BTreeSet<String> {
        self.routes
            .iter()
            .filter(|r| r.profile == *profile)
            .flat_map(|r| r.origins().map(ToString::to_string))
            .collect()
    }
}

fn slashes(path: &str) -> impl Iterator<Item = usize> {
    path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::super::in_flight::InFlightLimit;
    use super::*;

    fn table(paths: &[String]) -> RoutingTable {
        RoutingTable::new(paths.iter().enumerate().map(|(n, path)| Route {
            id: RouteId::new(&format!("r{n}")).unwrap(),
            path: path.clone(),
            origin: Arc::new(UpstreamOrigin {
                tls: false,
                host: "127.0.0.1".into(),
                port: 1,
                serialized: Arc::from("http://127.0.0.1:1"),
            }),
            tls: None,
            protocol: UpstreamProtocol::Auto,
            upstream_path: String::new(),
            template: None,
            profile: ProfileId::new("p").unwrap(),
            subject: SubjectSource::Caller,
            needs: CallNeeds::default(),
            subject_names_jwt: false,
            context: CallContext::none(),
            methods: None,
            timeout: Duration::from_secs(30),
            max_body: None,
            resilience: Resilience::default(),
        }))
    }

    fn find<'a>(table: &'a RoutingTable, path: &str) -> Option<&'a str> {
        table.find(path).map(|(route, length)| {
            assert_eq!(length, route.path.len());
            route.path.as_str()
        })
    }

    #[test]
    fn the_longest_prefix_on_a_segment_boundary_wins() {
        let t = table(&["/a".into(), "/a/b".into(), "/a/b/c/d".into(), "/google/calendar".into()]);
        assert_eq!(find(&t, "/a"), Some("/a"));
        assert_eq!(find(&t, "/a/"), Some("/a"));
        assert_eq!(find(&t, "/a/b/c/x/y/z"), Some("/a/b"));
        assert_eq!(find(&t, "/a/b/c/d/e/f"), Some("/a/b/c/d"));
        assert_eq!(find(&t, "/a/bc"), Some("/a"));
        for path in
            ["/", "/ab", "/google", "/google/calendarx", "/google%2Fcalendar", "/A", "/google//calendar"]
        {
            assert_eq!(find(&t, path), None, "{path}");
        }
        assert_eq!(find(&table(&[]), "/a"), None);
    }

    #[test]
    fn the_empty_prefix_takes_what_no_other_does() {
        let t = table(&[String::new(), "/a".into()]);
        assert_eq!(find(&t, "/"), Some(""));
        assert_eq!(find(&t, "/x/y"), Some(""));
        assert_eq!(find(&t, "/a/y"), Some("/a"));
    }

    #[test]
    fn a_thousand_routes_and_a_path_of_a_thousand_segments() {
        let t = table(&(0..1000).map(|n| format!("/team/{n}/api")).collect::<Vec<_>>());
        assert_eq!(find(&t, &format!("/team/731/api{}", "/x".repeat(1000))), Some("/team/731/api"));
        assert_eq!(find(&t, &"/".repeat(100_000)), None);
    }

    #[test]
    fn a_route_that_stays_goes_on_with_its_limits() {
        let limited = |max| {
            table(&["/a".into(), "/b".into()])
                .map(|route| route.resilience.in_flight = Some(InFlightLimit::new(max)))
        };
        let before = limited(1);
        let limit = |table: &RoutingTable| table.find("/a").unwrap().0.resilience.in_flight.clone().unwrap();
        let _under_way = limit(&before).enter().unwrap();
        assert!(limit(&limited(1).continuing(&before)).enter().is_none());
        assert!(limit(&limited(2).continuing(&before)).enter().is_some());
        assert!(limit(&limited(1)).enter().is_some());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_linear_search(
            paths in prop::collection::btree_set("(/[ab]{1,2}){0,4}", 0..12),
            path in "(/[ab]{0,2}){1,6}",
        ) {
            let paths: Vec<String> = paths.into_iter().collect();
            let expected = paths
                .iter()
                .filter(|p| path.strip_prefix(p.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/')))
                .max_by_key(|p| p.len());
            let table = table(&paths);
            prop_assert_eq!(find(&table, &path), expected.map(String::as_str));
        }
    }
}
