//! `GET /metrics`: what the gateway does, in numbers, as Prometheus asks for them (its text format
//! 0.0.4). Nothing is gathered before it is asked for.
//!
//! To add a metric: one row in [`METRICS`], and one in `docs/metrics.md`. What an actor shows in its
//! detail at `/debug/actors` is at hand by [`Scrape::shown`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use arc_swap::ArcSwap;
use claviger_actors::supervision::ActorKind::{self, Flow, Provider, Proxy};
use claviger_actors::supervision::ActorReport;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::AdminState;
use crate::caller_auth::{CallerDirectory, Verdicts};
use crate::counts::{CallCounts, ListenerCounts, STATUS_CLASSES};
use crate::listeners::problem::ProblemCode;

/// What every name begins with.
const PREFIX: &str = "claviger";

/// Where numbers come from that the engine does not have.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The proxy listener's calls.
    pub calls: CallCounts,
    /// Connections, by the listener's name.
    pub listeners: BTreeMap<&'static str, Arc<ListenerCounts>>,
    /// Callers, for what is remembered of their credentials.
    pub callers: Arc<ArcSwap<CallerDirectory>>,
}

/// The values of a metric's labels, and its number.
type Series = (Vec<String>, u64);

/// One metric, and how it is read.
struct Metric {
    /// Without what every name begins with, and without what counters end with.
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape) -> Vec<Series>,
}

/// A number that only grows.
const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape) -> Vec<Series>,
) -> Metric {
    Metric { name, kind: MetricType::Counter, labels, help, read }
}

/// How it is now.
const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Scrape) -> Vec<Series>,
) -> Metric {
    Metric { name, kind: MetricType::Gauge, labels, help, read }
}

/// Every metric, in the order in which they are written.
const METRICS: &[Metric] = &[
    counter("calls", &["route", "status"], "Calls answered", Scrape::calls),
    counter("problems", &["code"], "Answers of the gateway's own", Scrape::problems),
    gauge("calls_in_flight", &["worker"], "Calls being forwarded", |s| s.shown(Proxy, "in_flight")),
    counter("upstream_failures", &["worker"], "Calls that an upstream failed", |s| {
        s.shown(Proxy, "failures")
    }),
    counter("upstream_connections_opened", &["worker"], "Connections opened to upstreams", |s| {
        s.shown(Proxy, "opened_connections")
    }),
    gauge("upstream_connections_idle", &["worker"], "Connections to upstreams that wait for a call", |s| {
        s.shown(Proxy, "idle_connections")
    }),
    gauge(
        "upstream_connections_idle_limit",
        &["worker"],
        "Connections that may wait for a call, for each origin",
        |s| s.shown(Proxy, "idle_connections_limit"),
    ),
    gauge(
        "upstream_breaker_open",
        &["route", "origin"],
        "Whether an upstream is held back from",
        Scrape::upstream_breakers,
    ),
    counter(
        "token_requests",
        &["profile", "result"],
        "Token requests by what became of them",
        Scrape::token_requests,
    ),
    gauge("token_requests_in_flight", &["profile"], "Connections whose token is being obtained", |s| {
        s.shown(Provider, "flights")
    }),
    counter("token_request_joins", &["profile"], "Calls that waited for a token request under way", |s| {
        s.shown(Provider, "single_flight_joins")
    }),
    gauge("provider_breaker_open", &["profile"], "Whether a provider is held back from", |s| {
        s.shown(Provider, "breaker_open_until")
    }),
    gauge(
        "connections_needing_attention",
        &["profile"],
        "Connections that are not well, as far as they are listed",
        |s| s.shown(Provider, "needing_attention"),
    ),
    gauge("published_connections", &[], "Connections in memory", |s| {
        one(s.state.gateway.connections().len())
    }),
    gauge("published_connections_limit", &[], "Connections in memory at most", |s| {
        one(s.state.gateway.connections().capacity())
    }),
    gauge("verified_credentials", &["method"], "Verdicts on callers' credentials in memory", |s| {
        s.verdicts(|verdicts| verdicts.kept)
    }),
    gauge("verified_credentials_limit", &["method"], "Verdicts in memory at most", |s| {
        s.verdicts(|verdicts| verdicts.most)
    }),
    counter("listener_connections", &["listener"], "Connections accepted", |s| {
        s.listeners(ListenerCounts::opened)
    }),
    gauge("listener_connections_open", &["listener"], "Connections open", |s| {
        s.listeners(ListenerCounts::now_open)
    }),
    counter("listener_handshake_failures", &["listener"], "TLS handshakes that came to nothing", |s| {
        s.listeners(ListenerCounts::failed_handshakes)
    }),
    gauge("pending_authorizations", &[], "Authorizations begun and not ended", |s| one(s.of(Flow).count())),
    counter("actor_restarts", &[], "Restarts of actors", |s| {
        vec![(Vec::new(), s.state.gateway.supervisor().restarts_total())]
    }),
    gauge("actor_mailbox", &["kind", "actor"], "Asks sent to an actor and not answered", |s| {
        s.actors(|report| report.mailbox as u64)
    }),
    gauge("actor_down", &["kind", "actor"], "Whether an actor cannot work", |s| {
        s.actors(|report| report.is_down().into())
    }),
];

fn one(number: usize) -> Vec<Series> {
    vec![(Vec::new(), number as u64)]
}

/// What is at hand for one answer.
struct Scrape {
    state: AdminState,
    reports: Vec<ActorReport>,
}

impl Scrape {
    fn of(&self, kind: ActorKind) -> impl Iterator<Item = &ActorReport> {
        self.reports.iter().filter(move |report| report.kind == kind)
    }

    /// What each actor of this kind shows under `member` of its detail, by the actor's name. One that
    /// could not speak has no series.
    fn shown(&self, kind: ActorKind, member: &str) -> Vec<Series> {
        let series =
            |report: &ActorReport| Some((vec![report.id.clone()], number(report.detail.get(member)?)));
        self.of(kind).filter_map(series).collect()
    }

    /// A number of every actor but flows, of which there may be many.
    fn actors(&self, read: impl Fn(&ActorReport) -> u64) -> Vec<Series> {
        let named = |report: &ActorReport| {
            let kind = serde_json::to_value(report.kind).ok();
            vec![kind.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(), report.id.clone()]
        };
        let reports = self.reports.iter().filter(|report| report.kind != Flow);
        reports.map(|report| (named(report), read(report))).collect()
    }

    fn calls(&self) -> Vec<Series> {
        let calls = &self.state.metrics.calls;
        let unrouted = calls.unrouted.sums().into_values().map(|classes| (String::new(), classes));
        let routed = calls.routed.sums().into_iter().map(|(route, classes)| (route.to_string(), classes));
        let series = |(route, numbers): (String, [u64; 5])| {
            let classes = STATUS_CLASSES.into_iter().zip(numbers);
            classes.map(move |(class, number)| (vec![route.clone(), class.to_owned()], number))
        };
        unrouted.chain(routed).flat_map(series).collect()
    }

    fn problems(&self) -> Vec<Series> {
        let problems = self.state.metrics.calls.problems.sums().into_iter();
        problems.map(|(code, [number])| (vec![code.to_owned()], number)).collect()
    }

    fn token_requests(&self) -> Vec<Series> {
        let results = [("granted", "token_requests_granted"), ("failed", "token_request_failures")];
        let series = |(result, member): (&str, &str)| {
            let shown = self.shown(Provider, member).into_iter();
            let named = shown.map(|(mut labels, number)| {
                labels.push(result.to_owned());
                (labels, number)
            });
            named.collect::<Vec<_>>()
        };
        results.into_iter().flat_map(series).collect()
    }

    /// All workers see the same ones.
    fn upstream_breakers(&self) -> Vec<Series> {
        let upstreams = self.of(Proxy).find_map(|report| report.detail.get("upstreams")?.as_array());
        let series = |upstream: &Value| {
            let text = |member| upstream.get(member).and_then(Value::as_str);
            let labels = vec![text("route")?.to_owned(), text("origin")?.to_owned()];
            Some((labels, u64::from(text("state")? != "closed")))
        };
        upstreams.into_iter().flatten().filter_map(series).collect()
    }

    fn listeners(&self, read: impl Fn(&ListenerCounts) -> u64) -> Vec<Series> {
        let listeners = self.state.metrics.listeners.iter();
        listeners.map(|(name, counts)| (vec![(*name).to_owned()], read(counts))).collect()
    }

    fn verdicts(&self, read: impl Fn(&Verdicts) -> usize) -> Vec<Series> {
        let kept = self.state.metrics.callers.load();
        kept.verdicts().map(|(method, verdicts)| (vec![method.to_owned()], read(&verdicts) as u64)).collect()
    }
}

/// A number as it is, how many there are of a list, and else 1 for what is there or true.
fn number(shown: &Value) -> u64 {
    match shown {
        Value::Number(number) => number.as_u64().unwrap_or_default(),
        Value::Array(list) => list.len() as u64,
        Value::Null | Value::Bool(false) => 0,
        _ => 1,
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in METRICS {
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            for (values, number) in (metric.read)(self) {
                let labels: Vec<(&str, String)> = metric.labels.iter().copied().zip(values).collect();
                write(&mut family.encode_family(&labels)?, metric.kind, number)?;
            }
        }
        Ok(())
    }
}

fn write(series: &mut MetricEncoder<'_>, kind: MetricType, number: u64) -> Result<(), fmt::Error> {
    match kind {
        MetricType::Counter => series.encode_counter::<NoLabelSet, _, u64>(&number, None),
        _ => series.encode_gauge(&number),
    }
}

/// `GET /metrics`
pub async fn metrics(state: web::Data<AdminState>) -> HttpResponse {
    let state = AdminState::clone(&state);
    let reports = state.gateway.inspect().await;
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape { state: state.clone(), reports }));
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, prometheus_text::CONTENT_TYPE))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(text),
        Err(_) => state.problem(ProblemCode::Internal, "the metrics could not be written"),
    }
}

#[cfg(test)]
mod tests;
