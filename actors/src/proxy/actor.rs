//! placeholder until merged
use crate::connection::Connection;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::token::TokenFingerprint;
use crate::provider::error::TokenError;
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;
use std::time::Duration;
/// x
pub trait TokenSource: Send + Sync {
    /// x
    fn access_token(
        &self,
        id: ConnectionId,
        origin: Arc<str>,
        rejected: Option<TokenFingerprint>,
        deadline: Duration,
    ) -> LocalBoxFuture<'static, Result<Arc<Connection>, TokenError>>;
}
