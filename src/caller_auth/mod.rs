//! Who is calling us: one file a credential.
//!
//! To add a credential: one new file here, one `mod` line and one row in the table.

use std::collections::BTreeSet;

use claviger_actors::protocol::identifiers::{CallerId, RouteId};

/// An internal application that may call the gateway, as configured.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its key in the configuration.
    pub id: CallerId,
    /// What it may call; empty means nothing.
    pub routes: BTreeSet<RouteId>,
    /// Whether it may send `Claviger-Subject`.
    pub may_name_subject: bool,
}
