//! Another configuration for a gateway that serves.

use std::sync::Arc;

use super::GatewayHandle;
use crate::profile::Profile;
use crate::proxy::route::RoutingTable;
use crate::store::StoreError;

pub use super::profiles::ProfileChanges;

impl GatewayHandle {
    /// Serves these profiles and routes from now on. It must run on the engine's thread.
    ///
    /// A profile made of the same as before is left wholly alone. One that is made of something else
    /// goes on as it would after a restart, with two exceptions: exchanges under way are waited for,
    /// and token sets that are not durable yet are kept. What it published is withdrawn, and comes
    /// back from the store by today's rules when it is next asked for; what failed is tried again.
    ///
    /// # Errors
    /// [`StoreError`], if managed signing keys cannot be had; all is as it was then.
    pub async fn reload(
        &self,
        profiles: Vec<Arc<Profile>>,
        routing: RoutingTable,
    ) -> Result<ProfileChanges, StoreError> {
        let next = self.0.profiles.prepare(profiles).await?;
        let changes = self.0.profiles.put_into_use(next);
        self.0.routing.store(Arc::new(routing));
        self.0.profiles.let_go(&changes);
        Ok(changes)
    }
}
