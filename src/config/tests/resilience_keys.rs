//! Limits, retries, breakers and several upstreams: what is read, and what is told of a bad one.

use claviger_actors::proxy::route::Route;

use super::*;

fn text(route: &str, more: &str) -> String {
    let text = good().replace("profile = \"books\"\n", &format!("profile = \"books\"\n{route}\n"));
    format!("{text}\n{more}")
}

fn route(lines: &str) -> Route {
    let config = load_text(&text(lines, ""), &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    Route::clone(config.routing.iter().next().unwrap())
}

fn told(route: &str, more: &str) -> Vec<String> {
    faults(&text(route, more), &Variables::new())
}

#[test]
fn a_route_that_asks_for_nothing_has_one_retry_and_nothing_else() {
    let resilience = route("").resilience;
    assert!(resilience.endpoints.is_none() && resilience.rate.is_none() && resilience.in_flight.is_none());
    assert!(resilience.connect_timeout.is_none() && resilience.total_timeout.is_none());
    assert_eq!(resilience.retries.retries(), 1);
    assert_eq!(load_text(&good(), &Variables::new()).unwrap().limits, Limits::default());
}

#[test]
fn what_a_route_asks_for_is_read() {
    let resilience = route(
        "connect_timeout = \"2s\"\nidle_timeout = \"15m\"\ntotal_timeout = \"1h\"\nretries = 3\nmax_in_flight = 7\nhonor_retry_after = true\n\
         rate = { requests = 10, per = \"1m\" }",
    )
    .resilience;
    assert_eq!(resilience.connect_timeout, Some(Duration::from_secs(2)));
    assert_eq!(resilience.total_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(resilience.idle_timeout, Some(Duration::from_secs(900)));
    assert_eq!(resilience.retries.retries(), 3);
    assert_eq!(resilience.in_flight.unwrap().max(), 7);
    assert_eq!(resilience.endpoints.unwrap().views().len(), 1);
    let rate = resilience.rate.unwrap().rate();
    assert_eq!((rate.requests.get(), rate.per.as_secs(), rate.burst.get()), (10, 60, 10));
    assert!(route("breaker = true").resilience.endpoints.is_some());
    assert!(route("breaker = { failures = 2, open = \"90s\" }").resilience.endpoints.is_some());
    assert!(route("breaker = false").resilience.endpoints.is_none());
}

#[test]
fn several_upstreams_bind_the_tokens_to_all_of_them() {
    let several = r#"upstream = ["https://a.example/v1", "https://b.example"]"#;
    let text = good().replace(r#"upstream = "https://api.acme.example/v1/""#, several);
    let config = load_text(&text, &Variables::new()).unwrap();
    let route = config.routing.iter().next().unwrap();
    assert_eq!(route.origins().map(|o| &**o).collect::<Vec<_>>(), ["https://a.example", "https://b.example"]);
    assert_eq!(route.upstream_path, "/v1");
    let origins: Vec<_> = config.profiles[0].origins.iter().collect();
    assert_eq!(origins, ["https://a.example", "https://b.example"]);
    let one = text.replace(several, r#"upstream = ["https://a.example/v1"]"#);
    let one = load_text(&one, &Variables::new()).unwrap();
    assert!(one.routing.iter().next().unwrap().resilience.endpoints.is_none());
}

#[test]
fn bad_lists_of_upstreams_are_told() {
    for (list, expected) in [
        ("[]", "routes.books.upstream: leads nowhere; name the base URL of the API"),
        (r#"["https://a.example", "https://a.example/"]"#, "routes.books.upstream.1: stands there twice; "),
        (r#"["https://a.example", "http://b.example"]"#, "routes.books.upstream.1: must be https"),
        (
            r#"["https://a.example", "{token.instance_url}"]"#,
            "routes.books.upstream.1: has {token.NAME} in it",
        ),
        ("7", "routes.books.upstream: must be an array, not a number"),
    ] {
        let text =
            good().replace(r#"upstream = "https://api.acme.example/v1/""#, &format!("upstream = {list}"));
        let told = faults(&text, &Variables::new());
        assert!(told.len() == 1 && told[0].starts_with(expected), "{list}: {told:?}");
    }
}

#[test]
fn values_out_of_bounds_are_told() {
    for (lines, expected) in [
        ("connect_timeout = \"0s\"", "connect_timeout: must be longer than nothing, and at most a day"),
        ("total_timeout = \"25h\"", "total_timeout: must be longer than nothing, and at most a day"),
        ("retries = 11", "retries: must be from 0 to 10"),
        ("retries = 0\nretry_budget = { percent = 5 }", "retry_budget: is of no use: `retries` is 0"),
        ("retry_budget = { percent = 101 }", "retry_budget.percent: must be from 0 to 100"),
        ("max_in_flight = 0", "max_in_flight: must be from 1 to 1000000000"),
        ("breaker = 3", "breaker: must be true or false, not a number"),
        ("breaker = { failures = 0 }", "breaker.failures: must be from 1 to 10000"),
        ("breaker = { failure_percent = 200 }", "breaker.failure_percent: must be from 1 to 100"),
        (
            "breaker = { open = \"2m\", longest_open = \"1m\" }",
            "breaker.longest_open: must not be shorter than `open`",
        ),
        ("breaker = { failurs = 1 }", "breaker.failurs: unknown key; did you mean `failures`?"),
        ("rate = { per = \"1s\" }", "rate.requests: is missing"),
        ("rate = { requests = 0 }", "rate.requests: must be from 1 to 1000000000"),
        ("rate = { requests = 1, per = \"1500ms\" }", "rate.per: must be of whole seconds, from 1s to 1day"),
        ("rate = { requests = 1, per = \"1day\", burst = 1000 }", "rate.burst: would take more than a year"),
    ] {
        let told = told(lines, "");
        assert!(
            told.len() == 1 && told[0].starts_with(&format!("routes.books.{expected}")),
            "{lines}: {told:?}"
        );
    }
    for (lines, expected) in [
        ("max_in_flight = 0", "max_in_flight: must be from 1 to 100000000"),
        ("max_request_head = \"129KiB\"", "max_request_head: must be from 1KiB to 128KiB"),
        ("cached_conections = 5", "cached_conections: unknown key; did you mean `cached_connections`?"),
    ] {
        let told = told("", &format!("[limits]\n{lines}"));
        assert!(told.len() == 1 && told[0].starts_with(&format!("limits.{expected}")), "{lines}: {told:?}");
    }
}

#[test]
fn a_callers_rate_is_read_and_checked() {
    let with = |rate: &str| good().replace("[callers.billing]", &format!("[callers.billing]\nrate = {rate}"));
    let config = load_text(&with("{ requests = 5, burst = 9 }"), &Variables::new()).unwrap();
    let rate = config.callers[0].caller.rate.as_ref().unwrap().rate();
    assert_eq!((rate.requests.get(), rate.per.as_secs(), rate.burst.get()), (5, 1, 9));
    let told = faults(&with("{ requests = 5, per = \"0s\" }"), &Variables::new());
    assert_eq!(told, ["callers.billing.rate.per: must be of whole seconds, from 1s to 1day"]);
}

#[test]
fn an_upstream_that_the_token_names_has_no_breaker() {
    let text = good().replace(
        r#"upstream = "https://api.acme.example/v1/""#,
        "upstream = \"{token.instance_url}\"\nupstream_hosts = [\"*.acme.example\"]\nbreaker = true\nhonor_retry_after = true",
    );
    let told = faults(&text, &Variables::new());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|fault| fault.contains("is for upstreams that are always the same")), "{told:?}");
}
