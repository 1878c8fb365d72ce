//! What the end-to-end tests share: real servers on free ports, a browser, and the gateway itself.

pub mod browser;
pub mod caller_issuer;
pub mod certificates;
pub mod dpop_upstream;
pub mod gateway;
pub mod gateway_config;
pub mod grpc;
pub mod http;
pub mod in_process;
pub mod load;
pub mod npm;
pub mod oidc_provider;
pub mod ports;
pub mod raw_upstream;
pub mod scene;
pub mod scripted_as;
pub mod strict_assertions;
pub mod tls_upstream;
pub mod tools;
pub mod upstream;

use std::future::Future;
use std::time::Duration;

/// Asks until `probe` says yes. Fails the test, with `what`, after twenty seconds.
pub async fn eventually<F, Fut>(what: &str, mut probe: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let asking = async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}
