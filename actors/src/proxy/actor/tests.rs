#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use actix_rt::Arbiter;

use super::*;
use crate::clock::SystemClock;
use crate::connection::Reason;
use crate::protocol::identifiers::{ProfileId, Subject};
use crate::proxy::connect::tls_client_config_with_roots;
use crate::supervision::Supervisor;

/// Refuses every token, after a moment.
struct Refusing;

impl TokenSource for Refusing {
    fn access_token(
        &self,
        id: ConnectionId,
        _: Arc<str>,
        _: Option<TokenFingerprint>,
        _: Arc<CallContext>,
        _: Duration,
    ) -> LocalBoxFuture<'static, Result<Arc<Connection>, TokenError>> {
        Box::pin(async move {
            actix_rt::time::sleep(Duration::from_millis(20)).await;
            Err(TokenError::AuthorizationRequired { id, reason: Reason::NeverConnected })
        })
    }
}

fn call() -> PrepareForward {
    PrepareForward {
        id: ConnectionId { profile: ProfileId::new("p").unwrap(), subject: Subject::new("alice").unwrap() },
        origin: Arc::from("http://127.0.0.1:1"),
        rejected: None,
        call: CallContext::none(),
        deadline: Duration::from_secs(2),
    }
}

#[test]
fn a_panic_costs_the_pool_and_nothing_else() {
    actix::System::new().block_on(async {
        let supervisor = Supervisor::start(Arc::new(SystemClock));
        let roots = rustls::RootCertStore::empty();
        let settings = Arc::new(UpstreamSettings::new(tls_client_config_with_roots(roots).unwrap()));
        let (worker, actor) = ProxyActor::start_worker(
            &supervisor,
            Arbiter::current(),
            "worker-0",
            settings,
            Arc::new(Refusing),
        );
        let deadline = Duration::from_secs(2);
        let answer = actor.ask_idempotent(call(), deadline).await.unwrap();
        assert!(matches!(answer, Err(TokenError::AuthorizationRequired { .. })));

        let before = worker.pool();
        let in_flight = worker.begin();
        let waiting = actix_rt::spawn({
            let actor = actor.clone();
            async move { actor.ask_idempotent(call(), deadline).await }
        });
        tokio::task::yield_now().await;
        assert!(supervisor.inject_panic(ActorKind::Proxy, "worker-0").await);
        let answer = waiting.await.unwrap().expect("asked again of the new actor");
        assert!(matches!(answer, Err(TokenError::AuthorizationRequired { .. })));
        assert!(!Rc::ptr_eq(&before, &worker.pool()), "the new actor brings a new pool");

        let reports = supervisor.inspect().await;
        let [report] = reports.as_slice() else { panic!("one child: {reports:?}") };
        assert_eq!(
            (report.kind, report.restarts, report.state.as_str()),
            (ActorKind::Proxy, 1, "forwarding")
        );
        assert_eq!(report.detail["in_flight"], 1);
        drop(in_flight);
        assert_eq!(supervisor.inspect().await[0].detail["in_flight"], 0);
    });
}
