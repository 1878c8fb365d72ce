#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, Context, Handler, Message, ResponseActFuture, ResponseFuture};
use actix_rt::Arbiter;
use futures_util::future::join_all;

use super::test_support::{TokioClock, run, run_paused};
use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Worker {
    handled: u32,
    _witness: Option<Arc<()>>,
    _guard: ExitGuard,
}

impl Worker {
    fn spec(id: &str, arbiter: actix_rt::ArbiterHandle, policy: RestartPolicy) -> ChildSpec<Self> {
        let factory = Box::new(|guard| Self { handled: 0, _witness: None, _guard: guard });
        ChildSpec { id: id.into(), policy, arbiter, factory }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Supervised for Worker {
    const KIND: ActorKind = ActorKind::Provider;
}

impl Handler<Observe> for Worker {
    type Result = actix::MessageResult<Observe>;
    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let detail = serde_json::json!({ "handled": self.handled });
        actix::MessageResult(Observation { state: "idle".into(), last_error: None, detail })
    }
}

/// Answers with how many were handled since the last restart.
#[derive(Clone, Message)]
#[rtype(result = "u32")]
struct Count;

impl Handler<Count> for Worker {
    type Result = u32;
    fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 {
        self.handled += 1;
        self.handled
    }
}

/// Answers only after a while, without holding up the mailbox.
#[derive(Clone, Message)]
#[rtype(result = "u32")]
struct CountLate(Duration);

impl Handler<CountLate> for Worker {
    type Result = ResponseActFuture<Self, u32>;
    fn handle(&mut self, CountLate(delay): CountLate, _: &mut Self::Context) -> Self::Result {
        Box::pin(wrap_future::<_, Self>(tokio::time::sleep(delay)).map(|(), this, _| {
            this.handled += 1;
            this.handled
        }))
    }
}

#[derive(Clone, Message)]
#[rtype(result = "()")]
enum Fail {
    InHandler,
    InContinuation,
    /// Blocks its thread until the barrier's other side is reached.
    Freeze(Arc<Barrier>),
}

impl Handler<Fail> for Worker {
    type Result = ResponseActFuture<Self, ()>;
    fn handle(&mut self, fail: Fail, _: &mut Self::Context) -> Self::Result {
        match fail {
            Fail::InHandler => panic!("in a handler"),
            Fail::Freeze(until) => {
                until.wait();
                Box::pin(wrap_future(async {}))
            }
            Fail::InContinuation => {
                let later = wrap_future::<_, Self>(tokio::task::yield_now());
                Box::pin(later.map(|(), _, _| panic!("in a continuation")))
            }
        }
    }
}

#[derive(Clone, Message)]
#[rtype(result = "()")]
struct FailDetached;

impl Handler<FailDetached> for Worker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: FailDetached, _: &mut Self::Context) -> Self::Result {
        Box::pin(async { panic!("in a future of its own") })
    }
}

async fn report(supervisor: &SupervisorHandle, id: &str) -> ActorReport {
    supervisor.inspect().await.into_iter().find(|report| report.id == id).expect("the child is reported")
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn a_panic_among_a_hundred_asks_is_survived_and_noticed_by_nobody_else() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let (one, two) = (Arbiter::new(), Arbiter::new());
        let victim = supervisor.start_child(Worker::spec("victim", one.handle(), RestartPolicy::default()));
        let neighbour =
            supervisor.start_child(Worker::spec("neighbour", one.handle(), RestartPolicy::default()));
        let other = supervisor.start_child(Worker::spec("other", two.handle(), RestartPolicy::default()));

        // The hundred wait behind the one that panics, in the same mailbox.
        victim.ask(Count, SOON).await.expect("up");
        let queued = Arc::new(Barrier::new(2));
        victim.tell(Fail::Freeze(queued.clone())).unwrap();
        let panicking = is_send(victim.ask(Fail::InHandler, SOON));
        let once = join_all((0..50).map(|_| victim.ask(CountLate(Duration::from_millis(1)), SOON)));
        let repeated = join_all((0..50).map(|_| is_send(victim.ask_idempotent(Count, SOON))));
        let others = join_all((0..50).flat_map(|_| [neighbour.ask(Count, SOON), other.ask(Count, SOON)]));
        let release = async {
            queued.wait();
        };
        let (panicking, once, repeated, others, ()) =
            futures_util::future::join5(panicking, once, repeated, others, release).await;

        assert_eq!(panicking, Err(AskError::Restarting));
        assert!(once.iter().all(|answer| matches!(answer, Ok(_) | Err(AskError::Restarting))), "{once:?}");
        assert!(repeated.iter().all(Result::is_ok), "{repeated:?}");
        assert!(others.iter().all(Result::is_ok), "{others:?}");

        let seen = report(&supervisor, "victim").await;
        assert_eq!((seen.restarts, seen.state.as_str(), seen.mailbox), (1, "idle", 0));
        let location = seen.last_error.unwrap();
        assert!(location.contains("supervision/tests.rs:") && !location.contains("handler"), "{location}");
        assert_eq!(supervisor.restarts_total(), 1);
        assert_eq!(report(&supervisor, "other").await.processed, 50);
    });
}

#[test]
fn a_panic_in_a_continuation_is_survived() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let spec = Worker::spec("w", Arbiter::current(), RestartPolicy::default());
        let worker = supervisor.start_child(spec);
        assert_eq!(worker.ask(Count, SOON).await, Ok(1));
        let waiting = worker.ask(CountLate(Duration::from_secs(60)), SOON);
        let (failed, waiting) =
            futures_util::future::join(worker.ask(Fail::InContinuation, SOON), waiting).await;
        assert_eq!(failed, Err(AskError::Restarting));
        assert_eq!(waiting, Err(AskError::Restarting), "who waits on the actor is told at once");
        assert_eq!(worker.ask(Count, SOON).await, Ok(1), "a new actor with no state of the old");
        assert_eq!(report(&supervisor, "w").await.restarts, 1);
    });
}

#[test]
fn an_injected_panic_restarts_the_named_actor_only() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let arbiter = Arbiter::new();
        let a = supervisor.start_child(Worker::spec("a", arbiter.handle(), RestartPolicy::default()));
        let b = supervisor.start_child(Worker::spec("b", arbiter.handle(), RestartPolicy::default()));
        assert_eq!((a.ask(Count, SOON).await, b.ask(Count, SOON).await), (Ok(1), Ok(1)));
        assert!(supervisor.inject_panic(ActorKind::Provider, "a").await);
        assert!(!supervisor.inject_panic(ActorKind::Proxy, "a").await);
        while supervisor.restarts_total() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((a.ask(Count, SOON).await, b.ask(Count, SOON).await), (Ok(1), Ok(2)));
    });
}

#[test]
fn a_panic_in_a_detached_future_fails_its_ask_and_leaves_the_actor_alone() {
    run_paused(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let worker = supervisor.start_child(Worker::spec("w", Arbiter::current(), RestartPolicy::default()));
        assert_eq!(worker.ask(FailDetached, SOON).await, Err(AskError::Restarting));
        assert_eq!(worker.ask_idempotent(FailDetached, SOON).await, Err(AskError::Restarting));
        assert_eq!(worker.ask(Count, SOON).await, Ok(1));
        assert_eq!(supervisor.restarts_total(), 0);
    });
}

#[test]
fn a_stopped_child_disappears_and_says_so_to_askers() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let arbiter = Arbiter::new();
        for policy in [RestartPolicy::default(), RestartPolicy::transient()] {
            let worker = supervisor.start_child(Worker::spec("w", arbiter.handle(), policy));
            assert_eq!(worker.ask(Count, SOON).await, Ok(1));
            let waiting = worker.ask(CountLate(Duration::from_secs(60)), SOON);
            supervisor.stop_child(&worker);
            let (waiting, later) =
                futures_util::future::join(waiting, async { worker.ask_idempotent(Count, SOON).await }).await;
            assert!(matches!(waiting, Err(AskError::Stopped | AskError::Restarting)), "{waiting:?}");
            assert!(matches!(later, Ok(2) | Err(AskError::Stopped)), "{later:?}");
            while worker.tell(Count) != Err(AskError::Stopped) {
                tokio::task::yield_now().await;
            }
            assert!(supervisor.inspect().await.is_empty());
        }
        assert_eq!(supervisor.restarts_total(), 0);
    });
}

#[test]
fn a_child_that_is_stopped_before_it_is_up_never_runs_on() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let arbiter = Arbiter::new();
        let (made, gone) = (Arc::new(AtomicU32::new(0)), Arc::new(()));
        // Holds the arbiter up, so that the stop is handled before the factory runs.
        arbiter.spawn_fn(|| std::thread::sleep(Duration::from_millis(100)));
        let (count, witness) = (made.clone(), gone.clone());
        let worker = supervisor.start_child(ChildSpec {
            factory: Box::new(move |guard| {
                count.fetch_add(1, Ordering::SeqCst);
                Worker { handled: 0, _witness: Some(witness.clone()), _guard: guard }
            }),
            ..Worker::spec("w", arbiter.handle(), RestartPolicy::default())
        });
        supervisor.stop_child(&worker);
        assert_eq!(worker.ask(Count, SOON).await, Err(AskError::Stopped));
        while made.load(Ordering::SeqCst) == 0 || Arc::strong_count(&gone) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(supervisor.restarts_total(), 0);
    });
}

#[test]
fn a_frozen_actor_is_reported_with_its_last_detail() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let worker =
            supervisor.start_child(Worker::spec("w", Arbiter::new().handle(), RestartPolicy::default()));
        assert_eq!(worker.ask(Count, SOON).await, Ok(1));
        while report(&supervisor, "w").await.detail["handled"] != 1 {}
        let frozen = Arc::new(Barrier::new(2));
        worker.tell(Fail::Freeze(frozen.clone())).unwrap();
        let asked = worker.ask(Count, Duration::from_millis(100)).await;
        assert_eq!(asked, Err(AskError::TimedOut));
        let seen = report(&supervisor, "w").await;
        assert_eq!((seen.state.as_str(), &seen.detail["handled"]), ("unresponsive", &1.into()));
        frozen.wait();
        assert!(worker.ask(Count, SOON).await.is_ok());
    });
}

#[test]
fn after_many_panics_restarts_wait_and_asks_wait_with_them() {
    run_paused(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let worker = supervisor.start_child(Worker::spec("w", Arbiter::current(), RestartPolicy::default()));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert_eq!(worker.ask(Fail::InHandler, SOON).await, Err(AskError::Restarting));
            let before = tokio::time::Instant::now();
            assert_eq!(worker.ask(Count, SOON).await, Ok(1));
            pauses.push(before.elapsed().as_millis());
        }
        assert!(pauses[..3].iter().all(|pause| *pause < 5), "{pauses:?}");
        for (pause, expected) in pauses[3..].iter().zip([100, 200, 400, 800]) {
            assert!((expected..expected + 5).contains(pause), "{pauses:?}");
        }
        assert_eq!(worker.ask(Fail::InHandler, SOON).await, Err(AskError::Restarting));
        let short = Duration::from_millis(10);
        assert_eq!(worker.ask(Count, short).await, Err(AskError::Restarting));
        assert_eq!(report(&supervisor, "w").await.state, "restarting");
    });
}

#[test]
fn a_factory_that_panics_is_tried_again() {
    run_paused(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let attempts = AtomicU32::new(0);
        let worker = supervisor.start_child(ChildSpec {
            factory: Box::new(move |guard| {
                assert!(attempts.fetch_add(1, Ordering::SeqCst) >= 5, "not yet");
                Worker { handled: 0, _witness: None, _guard: guard }
            }),
            ..Worker::spec("w", Arbiter::current(), RestartPolicy::default())
        });
        assert_eq!(worker.ask(Count, SOON).await, Ok(1));
        assert_eq!(report(&supervisor, "w").await.restarts, 5);
    });
}

#[test]
fn a_child_whose_thread_is_gone_has_failed() {
    run(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let arbiter = Arbiter::new();
        let worker = supervisor.start_child(Worker::spec("w", arbiter.handle(), RestartPolicy::default()));
        assert_eq!(worker.ask(Count, SOON).await, Ok(1));
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!(worker.ask(Count, SOON).await, Err(AskError::Stopped));
        let failed = report(&supervisor, "w").await;
        assert_eq!((failed.state.as_str(), failed.restarts), ("failed", 1), "and is left alone");
    });
}

#[test]
fn asks_beyond_the_cap_are_refused_at_once() {
    run_paused(async {
        let supervisor = Supervisor::start(TokioClock::shared());
        let worker = supervisor.start_child(Worker::spec("w", Arbiter::current(), RestartPolicy::default()));
        let asks = (0..actor_ref::MAX_ASKS_IN_FLIGHT + 3)
            .map(|_| worker.ask(CountLate(Duration::from_secs(1)), SOON));
        let answers = join_all(asks).await;
        let refused = answers.iter().filter(|answer| **answer == Err(AskError::Full)).count();
        assert_eq!(refused, 3);
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), actor_ref::MAX_ASKS_IN_FLIGHT);
        assert_eq!(worker.ask(Count, SOON).await.map(|_| ()), Ok(()));
    });
}

#[test]
fn told_messages_never_pile_up() {
    run(async {
        let worker = ActorRef::detached(
            "w",
            Worker { handled: 0, _witness: None, _guard: ExitGuard::detached() }.start(),
        );
        let told: Vec<_> = (0..100).map(|_| worker.tell(Count)).collect();
        assert!(told.contains(&Err(AskError::Full)));
        let taken = told.iter().filter(|told| told.is_ok()).count();
        assert_eq!(worker.ask(Count, SOON).await, Ok(u32::try_from(taken).unwrap() + 1));
    });
}

#[test]
fn the_end_of_the_supervisor_is_noticed() {
    run(async {
        let arbiter = Arbiter::new();
        let (send, receive) = tokio::sync::oneshot::channel();
        arbiter.spawn(async move {
            assert!(send.send(Supervisor::start(TokioClock::shared())).is_ok());
        });
        let supervisor = receive.await.unwrap();
        arbiter.stop();
        tokio::time::timeout(SOON, supervisor.ended()).await.expect("noticed");
        assert!(supervisor.inspect().await.is_empty());
    });
}
