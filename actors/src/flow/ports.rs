//! What flows need of providers and of the store. Every future ends by itself within a deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::LocalBoxFuture;

use super::record::{ConnectSession, FlowRecord, StateHash};
use crate::clock::Timestamp;
use crate::grants::Redemption;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::device_authorization::DeviceAuthorization;
use crate::protocol::identifiers::{ProfileId, Subject};
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::provider::error::TokenError;
use crate::provider::messages::{AuthorizationTarget, DevicePoll};
use crate::registration::ClientRegistration;
use crate::store::StoreError;

/// A profile, as a flow sees it.
pub trait AuthorizationProvider: Send + Sync + fmt::Debug {
    /// What we are to the authorization server.
    fn registration(&self) -> &ClientRegistration;

    /// Whether its grant has a person in it.
    fn needs_person(&self) -> bool;

    /// Whether that person consents on another device (RFC 8628).
    fn uses_device(&self) -> bool;

    /// Asks for the codes that a person enters on another device.
    fn authorize_device(
        &self,
        params: Vec<(String, String)>,
    ) -> LocalBoxFuture<'static, Result<DeviceAuthorization, TokenError>>;

    /// Asks once whether the person has consented there, and saves the token set if so.
    fn poll_device(
        &self,
        subject: Subject,
        redemption: Redemption,
    ) -> LocalBoxFuture<'static, Result<DevicePoll, TokenError>>;

    /// Where to send a browser that asks for `params`: they are in the URL, or the authorization
    /// server was told them before. Metadata is discovered if need be.
    fn authorization_url(
        &self,
        params: AuthorizationParams,
    ) -> LocalBoxFuture<'static, Result<AuthorizationTarget, TokenError>>;

    /// The scopes of the token set held for `subject`, as far as they were asked for; none if none
    /// is held.
    fn granted_scopes(&self, subject: Subject) -> LocalBoxFuture<'static, Result<ScopeSet, TokenError>>;

    /// Turns a code into a saved token set. Called at most once for a code.
    fn redeem(
        &self,
        subject: Subject,
        redemption: Redemption,
        nonce: Option<Secret>,
    ) -> LocalBoxFuture<'static, Result<(), TokenError>>;
}

/// All profiles by their names, as configured today.
#[derive(Clone, Debug)]
pub struct Providers(Arc<ArcSwap<ByName>>);

type ByName = BTreeMap<ProfileId, Arc<dyn AuthorizationProvider>>;

impl Providers {
    /// Begins with these.
    pub fn new(by_name: ByName) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(by_name)))
    }

    /// The profile of that name.
    pub fn get(&self, profile: &ProfileId) -> Option<Arc<dyn AuthorizationProvider>> {
        self.0.load().get(profile).cloned()
    }

    /// Puts others in their place. Flows under way go on with those of the same names.
    pub fn replace(&self, by_name: ByName) {
        self.0.store(Arc::new(by_name));
    }
}

/// Where pending flows and connect links are durable; shared by all replicas.
pub trait FlowStore: Send + Sync + fmt::Debug {
    /// Keeps a flow; durable once answered.
    fn save(&self, record: FlowRecord) -> LocalBoxFuture<'static, Result<(), StoreError>>;

    /// Reads a flow without using it up.
    fn load(&self, state: StateHash) -> LocalBoxFuture<'static, Result<Option<FlowRecord>, StoreError>>;

    /// Reads all flows, at most so many, to go on with them after a restart.
    fn load_all(&self, limit: usize) -> LocalBoxFuture<'static, Result<Vec<FlowRecord>, StoreError>>;

    /// Uses a flow up: of all who ask, on all replicas, just one gets `true`.
    fn take(&self, state: StateHash) -> LocalBoxFuture<'static, Result<bool, StoreError>>;

    /// Keeps a connect link.
    fn save_link(&self, link: ConnectSession) -> LocalBoxFuture<'static, Result<(), StoreError>>;

    /// Uses a connect link up: of all who ask, just one gets it.
    fn take_link(
        &self,
        token: StateHash,
    ) -> LocalBoxFuture<'static, Result<Option<ConnectSession>, StoreError>>;

    /// Removes flows and links that have expired at `now`; answers how many.
    fn purge(&self, now: Timestamp) -> LocalBoxFuture<'static, Result<usize, StoreError>>;
}
