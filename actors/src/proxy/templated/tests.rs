#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;

fn template(text: &str, hosts: &[&str]) -> UpstreamTemplate {
    let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
    UpstreamTemplate::parse(text, hosts).unwrap()
}

fn members(value: Value) -> BTreeMap<String, Value> {
    value.as_object().unwrap().clone().into_iter().collect()
}

fn salesforce() -> UpstreamTemplate {
    template("{token.instance_url}/services/data/v60.0/", &["*.salesforce.com", "localhost:4000"])
}

#[test]
fn a_members_url_is_the_upstream() {
    for url in ["https://acme.my.salesforce.com", "https://ACME.my.salesforce.com:443/"] {
        let resolved = salesforce().resolve(&members(json!({"instance_url": url}))).unwrap();
        assert_eq!(&*resolved.origin.serialized, "https://acme.my.salesforce.com");
        assert_eq!((resolved.origin.tls, resolved.origin.port), (true, 443));
        assert_eq!(resolved.path, "/services/data/v60.0");
    }
    let local =
        salesforce().resolve(&members(json!({"instance_url": "http://localhost:4000/base"}))).unwrap();
    assert_eq!(&*local.origin.serialized, "http://localhost:4000");
    assert_eq!(local.path, "/base/services/data/v60.0");
}

#[test]
fn one_organisation_is_resolved_once() {
    let (template, extra) = (salesforce(), members(json!({"instance_url": "https://a.salesforce.com"})));
    let first = template.resolve(&extra).unwrap();
    assert!(Arc::ptr_eq(&first, &template.resolve(&extra).unwrap()));
}

#[test]
fn no_provider_chooses_any_upstream() {
    for url in [
        "https://evil.example",
        "https://salesforce.com",
        "https://evilsalesforce.com",
        "https://acme.salesforce.com.evil.example",
        "https://acme.salesforce.com@evil.example",
        "https://user@acme.salesforce.com",
        "https://acme.salesforce.com:8443",
        "http://acme.salesforce.com",
        "http://localhost",
        "http://localhost:4001",
        "https://acme.salesforce.com?x=",
        "https://acme.salesforce.com#",
        "https://acme.salesforce.com/../x",
        "https://acme.salesforce.com/%2e%2e/x",
        "https://acme.salesforce.com\\.evil.example",
        "https://evil.example/.salesforce.com",
        "https:evil.example",
        "https:acme.salesforce.com",
        "//acme.salesforce.com",
        "javascript:alert(1)",
        "https://acme.salesforce.com\r\nx: y",
        "https://.salesforce.com",
        "",
    ] {
        let resolved = salesforce().resolve(&members(json!({"instance_url": url})));
        assert!(resolved.is_err(), "{url}: {resolved:?}");
    }
    let missing = TemplateUrlError::Missing("instance_url".into());
    for other in
        [json!({}), json!({"instance_url": null}), json!({"instance_url": 1}), json!({"instance_url": ["x"]})]
    {
        assert_eq!(salesforce().resolve(&members(other)).unwrap_err(), missing);
    }
}

#[test]
fn a_value_within_cannot_leave_its_place() {
    let template = template("https://{token.host}/v3/{token.realm}", &["*.example.com"]);
    let resolve =
        |host: Value, realm: Value| template.resolve(&members(json!({"host": host, "realm": realm})));
    let resolved = resolve(json!("eu.example.com"), json!(93)).unwrap();
    assert_eq!((&*resolved.origin.serialized, &*resolved.path), ("https://eu.example.com", "/v3/93"));
    for host in [
        "eu.example.com/x",
        "x@eu.example.com",
        "eu.example.com:1",
        "evil.example",
        "[::1]",
        "eu.example.com?",
    ] {
        assert!(resolve(json!(host), json!("1")).is_err(), "{host}");
    }
    for realm in ["..", ".", "a/b", "a?b", "a#b", "%2e", "a b", ""] {
        assert!(resolve(json!("eu.example.com"), json!(realm)).is_err(), "{realm}");
    }
}

#[test]
fn what_a_token_is_bound_to_changes_with_template_and_hosts_but_not_with_the_path() {
    let base = salesforce().binding();
    assert_eq!(&*base, "{token.instance_url} at localhost:4000, *.salesforce.com");
    let hosts = ["localhost:4000", "*.salesforce.com", "*.salesforce.com"];
    assert_eq!(template("{token.instance_url}/other", &hosts).binding(), base);
    assert_ne!(template("{token.other}/other", &hosts).binding(), base);
    assert_ne!(template("{token.instance_url}", &["*.salesforce.com", "*.evil.example"]).binding(), base);
    assert_eq!(
        &*template("https://{token.a}/b/", &["x.example"]).binding(),
        "https://{token.a} at x.example"
    );
    assert_eq!(template("https://{token.a}/b/", &["x.example"]).path(), "/b");
}

#[test]
fn what_is_no_template_is_refused() {
    for text in [
        "{token.}",
        "{token.a",
        "token.a}",
        "{subject}/x",
        "{token.a}{",
        "{token.a b}",
        "http://{token.a}",
        "{token.a}?x=1",
        "https://x@{token.a}",
        "{token.a}/../b",
        "x{token.a}",
    ] {
        assert!(UpstreamTemplate::parse(text, Vec::new()).is_err(), "{text}");
    }
    for host in [
        "",
        "*",
        "*.",
        "*.com",
        "*.*.com",
        "a/b",
        "a b",
        "x@y",
        "a:b",
        "*.127.0.0.1",
        "https://a.example",
        "*.com.",
    ] {
        assert!(HostPattern::parse(host).is_err(), "{host}");
    }
    for host in ["api.example.com", "*.example.com", "localhost:80", "127.0.0.1:8080", "[::1]:8080", "[::1]"]
    {
        assert_eq!(HostPattern::parse(host).unwrap().to_string(), host);
    }
}
