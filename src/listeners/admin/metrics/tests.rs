#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use actix_web::body::to_bytes;
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, RouteId, Subject};
use serde_json::json;

use super::super::tests::state;
use super::*;

const PAGE: &str = include_str!("../../../../docs/metrics.md");

async fn scraped(state: AdminState) -> String {
    let response = metrics(web::Data::new(state)).await;
    assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), prometheus_text::CONTENT_TYPE);
    String::from_utf8(to_bytes(response.into_body()).await.unwrap().to_vec()).unwrap()
}

/// The name as it is written, with what counters end with.
fn full_name(metric: &Metric) -> String {
    let ending = if matches!(metric.kind, MetricType::Counter) { "_total" } else { "" };
    format!("{PREFIX}_{}{ending}", metric.name)
}

/// The value of the series that is written so.
#[track_caller]
fn value(text: &str, series: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

#[actix_web::test]
async fn every_metric_is_written_with_its_type_and_is_on_the_page() {
    let text = scraped(state().await).await;
    let mut rows = BTreeSet::new();
    for metric in METRICS {
        let name = full_name(metric);
        let kind = if matches!(metric.kind, MetricType::Counter) { "counter" } else { "gauge" };
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}:\n{text}");
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{name}` | {kind} | {} | {} |", labels.join(", "), metric.help);
        assert!(PAGE.lines().any(|line| line == row), "docs/metrics.md must have\n{row}");
        assert!(rows.insert(name), "twice");
    }
    let shown = PAGE.lines().filter(|line| line.starts_with("| `claviger_")).count();
    assert_eq!(shown, METRICS.len(), "the page has rows of metrics that are none");
}

#[actix_web::test]
async fn what_was_counted_is_read() {
    let state = state().await;
    let counter = state.metrics.calls.counter();
    let route = RouteId::new("calendar").unwrap();
    counter.answered(Some(&route), 200);
    counter.answered(Some(&route), 204);
    counter.answered(Some(&route), 502);
    counter.answered(None, 401);
    counter.problem("caller_unauthenticated");
    let text = scraped(state.clone()).await;
    assert_eq!(value(&text, "claviger_calls_total{route=\"calendar\",status=\"2xx\"}"), 2);
    assert_eq!(value(&text, "claviger_calls_total{route=\"calendar\",status=\"5xx\"}"), 1);
    assert_eq!(value(&text, "claviger_calls_total{route=\"\",status=\"4xx\"}"), 1);
    assert_eq!(value(&text, "claviger_problems_total{code=\"caller_unauthenticated\"}"), 1);
    assert_eq!(value(&text, "claviger_published_connections"), 0);
    assert!(value(&text, "claviger_published_connections_limit") >= 100);
    assert_eq!(value(&text, "claviger_provider_breaker_open{profile=\"robot\"}"), 0);

    let id =
        ConnectionId { profile: ProfileId::new("robot").unwrap(), subject: Subject::new("shared").unwrap() };
    state.gateway.refresh_connection(&id).await.unwrap();
    let text = scraped(state).await;
    let granted = "claviger_token_requests_total{profile=\"robot\",result=\"granted\"}";
    assert_eq!(value(&text, granted), 1);
    assert_eq!(value(&text, &granted.replace("granted", "failed")), 0);
    assert_eq!(value(&text, "claviger_published_connections"), 1);
    assert_eq!(value(&text, "claviger_actor_down{kind=\"provider\",actor=\"robot\"}"), 0);
}

#[test]
fn what_an_actor_shows_becomes_a_number() {
    let cases = [
        (json!(7), 7),
        (json!([1, 2]), 2),
        (json!(null), 0),
        (json!(false), 0),
        (json!(true), 1),
        (json!("2026-01-01T00:00:00Z"), 1),
        (json!(-1), 0),
    ];
    for (shown, wanted) in cases {
        assert_eq!(number(&shown), wanted, "{shown}");
    }
}
