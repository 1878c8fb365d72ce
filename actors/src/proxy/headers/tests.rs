#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

static PEER: HeaderValue = HeaderValue::from_static("192.0.2.7");

fn forward_as(incoming: &[(&str, &str)], length: RequestLength) -> Result<Vec<String>, HeaderError> {
    let mut token = HeaderValue::from_static("Bearer token");
    token.set_sensitive(true);
    let added = Additions {
        upstream_host: "api.example",
        token_header: &header::AUTHORIZATION,
        authorization: &token,
        proof: None,
        forwarded_for: Some(&PEER),
        host: b"gw.internal:8080",
        https: false,
        request_id: "id-1",
        length,
    };
    let pairs = || incoming.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let headers = request_headers(pairs, &added, &mut BytesMut::new())?;
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    Ok(lines)
}

fn forward(incoming: &[(&str, &str)]) -> Vec<String> {
    forward_as(incoming, RequestLength::Absent).unwrap()
}

const OURS: [&str; 7] = [
    "authorization: Bearer token",
    "host: api.example",
    "via: 1.1 claviger",
    "x-forwarded-for: 192.0.2.7",
    "x-forwarded-host: gw.internal:8080",
    "x-forwarded-proto: http",
    "x-request-id: id-1",
];

fn ours_and(more: &[&str]) -> Vec<String> {
    let mut lines: Vec<_> = OURS.iter().chain(more).map(|line| (*line).to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn what_is_hop_by_hop_forged_or_a_credential_stays_here() {
    let incoming = [
        ("host", "gw.internal:8080"),
        ("authorization", "Basic c2VjcmV0"),
        ("x-api-key", "k"),
        ("x_api_key", "k"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("transfer_encoding", "chunked"),
        ("content-length", "3"),
        ("content_length", "3"),
        ("upgrade", "websocket"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("expect", "100-continue"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x_forwarded_for", "1.2.3.4"),
        ("x-forwarded_host", "evil"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-user", "admin"),
        ("x-real-ip", "1.2.3.4"),
        ("x-request-id", "theirs"),
        ("claviger-subject", "alice"),
        ("claviger_subject", "alice"),
        ("claviger-anything", "x"),
    ];
    assert_eq!(forward(&incoming), ours_and(&[]));
}

#[test]
fn everything_else_passes_and_repeated_fields_stay_apart() {
    let incoming = [
        ("accept", "*/*"),
        ("x-trace", "1"),
        ("x-trace", "2"),
        ("user_agent_hint", "x"),
        ("range", "bytes=0-1"),
        ("via", "1.0 other"),
        ("cookie", "a=1; b=2"),
    ];
    let expected = ours_and(&[
        "accept: */*",
        "x-trace: 1",
        "x-trace: 2",
        "user_agent_hint: x",
        "range: bytes=0-1",
        "via: 1.0 other",
        "cookie: a=1; b=2",
    ]);
    assert_eq!(forward(&incoming), expected);
}

#[test]
fn connection_names_the_callers_headers_away_but_never_ours() {
    let incoming = [
        ("connection", "aUtHoRiZaTiOn, X-Secret,close"),
        ("connection", "via, x-forwarded-for, host, x-request-id"),
        ("x-secret", "1"),
        ("x-public", "2"),
    ];
    assert_eq!(forward(&incoming), ours_and(&["x-public: 2"]));
    let many = vec!["x"; MAX_CONNECTION_OPTIONS + 1].join(",");
    let refused = forward_as(&[("connection", &many)], RequestLength::Absent);
    assert_eq!(refused, Err(HeaderError::TooManyConnectionOptions));
}

#[test]
fn only_the_gateways_cookies_are_taken_out() {
    let cookie = |value| {
        forward(&[("cookie", value)]).into_iter().find_map(|l| l.strip_prefix("cookie: ").map(str::to_owned))
    };
    assert_eq!(cookie("a=1; claviger_browser=x; b=2").as_deref(), Some("a=1; b=2"));
    assert_eq!(cookie("__Host-claviger_browser=x;a=1").as_deref(), Some("a=1"));
    assert_eq!(cookie("claviger_browser=x"), None);
    assert_eq!(cookie("a=claviger_browser").as_deref(), Some("a=claviger_browser"));
}

#[test]
fn the_length_is_told_in_one_way_only() {
    let lines =
        |length| forward_as(&[("content-length", "9"), ("transfer-encoding", "chunked")], length).unwrap();
    assert_eq!(lines(RequestLength::Exact(9)), ours_and(&["content-length: 9"]));
    assert_eq!(lines(RequestLength::Exact(0)), ours_and(&["content-length: 0"]));
    assert_eq!(lines(RequestLength::Chunked), ours_and(&["transfer-encoding: chunked"]));
}

#[test]
fn the_token_stays_marked_as_sensitive() {
    let mut token = HeaderValue::from_static("Bearer token");
    token.set_sensitive(true);
    let added = Additions {
        upstream_host: "h",
        token_header: &header::AUTHORIZATION,
        authorization: &token,
        proof: None,
        forwarded_for: None,
        host: b"",
        https: true,
        request_id: "i",
        length: RequestLength::Absent,
    };
    let headers = request_headers(std::iter::empty, &added, &mut BytesMut::new()).unwrap();
    assert!(headers[header::AUTHORIZATION].is_sensitive());
    assert_eq!(headers[&FORWARDED_PROTO], "https");
}

#[test]
fn an_answer_loses_what_is_hop_by_hop_and_gains_via() {
    let mut upstream = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "5"),
        ("connection", "close, X-Internal"),
        ("x-internal", "1"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("trailer", "x"),
        ("proxy-authenticate", "Basic"),
        ("server", "x/1"),
        ("date", "Tue, 24 Nov 2026 07:00:00 GMT"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("set-cookie", "claviger_browser=planted; Path=/"),
        ("set-cookie", "__Host-claviger_browser=planted; Secure; Path=/"),
        ("www-authenticate", "Bearer"),
    ] {
        upstream.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let mut lines = Vec::new();
    response_headers(&upstream, |name, value| lines.push(format!("{name}: {}", value.to_str().unwrap())))
        .unwrap();
    lines.sort();
    assert_eq!(
        lines,
        [
            "content-type: text/plain",
            "date: Tue, 24 Nov 2026 07:00:00 GMT",
            "server: x/1",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "via: 1.1 claviger",
            "www-authenticate: Bearer",
        ]
    );
}

#[test]
fn a_token_in_a_header_of_its_own_replaces_every_spelling_of_it() {
    let token = HeaderValue::from_static("shpat");
    let name = HeaderName::from_static("x-shopify-access-token");
    let added = Additions {
        proof: None,
        upstream_host: "h",
        token_header: &name,
        authorization: &token,
        forwarded_for: None,
        host: b"",
        https: true,
        request_id: "i",
        length: RequestLength::Absent,
    };
    let incoming = [
        ("authorization", "Basic callers"),
        ("x-shopify-access-token", "forged"),
        ("x_shopify_access_token", "forged"),
        ("connection", "x-shopify-access-token"),
        ("x-shopify-other", "kept"),
    ];
    let pairs = || incoming.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let headers = request_headers(pairs, &added, &mut BytesMut::new()).unwrap();
    assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["shpat"]);
    assert!(!headers.contains_key(header::AUTHORIZATION) && !headers.contains_key("x_shopify_access_token"));
    assert_eq!(headers["x-shopify-other"], "kept");
}

#[test]
fn only_free_headers_can_carry_a_token() {
    for name in ["authorization", "x-api-key", "x-shopify-access-token", "private-token"] {
        assert!(may_carry_token(name), "{name}");
    }
    for name in
        ["host", "connection", "content-length", "cookie", "via", "claviger-subject", "proxy-authorization"]
    {
        assert!(!may_carry_token(name), "{name}");
    }
}

#[test]
fn trailers_are_announced_where_they_can_come_and_only_those_that_pass() {
    let announced =
        [("trailer", "X-Checksum, Authorization,, Content-Length, grpc-status"), ("trailer", "X_Api_Key")];
    let of = |length| {
        let lines = forward_as(&announced, length).unwrap();
        lines.into_iter().filter(|line| line.starts_with("trailer:")).collect::<Vec<_>>()
    };
    assert_eq!(of(RequestLength::Chunked), ["trailer: grpc-status", "trailer: x-checksum"]);
    assert!(of(RequestLength::Exact(5)).is_empty());
    let named_away = [("connection", "trailer"), ("trailer", "x-checksum")];
    let lines = forward_as(&named_away, RequestLength::Chunked).unwrap();
    assert!(!lines.iter().any(|line| line.starts_with("trailer:")), "{lines:?}");
}

#[test]
fn trailers_pass_unless_they_came_too_late() {
    let own = HeaderName::from_static("x-shop-token");
    let map = |names: &[&str]| {
        let line = |name: &&str| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
        names.iter().map(line).collect::<HeaderMap>()
    };
    let too_late = [
        "transfer-encoding",
        "content-length",
        "content-type",
        "host",
        "authorization",
        "dpop",
        "x-api-key",
        "cookie",
        "set-cookie",
        "te",
        "connection",
        "x-forwarded-for",
        "claviger-subject",
        "via",
        "cache-control",
        "if-match",
        "trailer",
        "proxy-authorization",
    ];
    for name in too_late {
        assert_eq!(request_trailers(&map(&[name]), &own), None, "{name}");
        assert_eq!(response_trailers(map(&[name])), None, "{name}");
    }
    let all = map(&["x-checksum", "grpc-status", "x-shop-token", "etag"]);
    assert_eq!(response_trailers(all.clone()), Some(all.clone()));
    assert_eq!(request_trailers(&all, &own), Some(map(&["x-checksum", "grpc-status", "etag"])));
    assert_eq!(request_trailers(&map(&["x_shop_token"]), &own), None);
}
