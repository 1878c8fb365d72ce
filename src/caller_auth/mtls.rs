//! Client certificates: a caller is known by a subject alternative name of the certificate that its
//! connection was opened with.
//!
//! That the certificate is good, TLS has verified: the listener's `client_ca` vouches for it, and the
//! client has its key. Here it is only asked whose it is. It belongs to the connection and not to a
//! request, so it may stand beside a credential that the request brings; see
//! [`CallerDirectory::authenticate`](super::CallerDirectory::authenticate).

use std::collections::HashMap;
use std::sync::Arc;

use claviger_actors::clock::Timestamp;
use claviger_actors::transport::Transport;

use super::{Caller, CallerAuth, ConfiguredCaller, Presented, Recalled, Remembered, SubjectAltName};

/// What a caller without a certificate is told, where nothing else is taken.
const CHALLENGE: &str = "ClientCertificate realm=\"claviger\"";

/// Sets the method up for the callers that have certificates.
pub(super) fn build(
    callers: &[(Arc<Caller>, ConfiguredCaller)],
    _: &Arc<dyn Transport>,
    _: &Arc<Remembered>,
) -> Option<Box<dyn CallerAuth>> {
    let names = |(caller, configured): &(Arc<Caller>, ConfiguredCaller)| {
        let caller = caller.clone();
        configured.mtls.clone().into_iter().map(move |name| (name, caller.clone()))
    };
    let holders: HashMap<_, _> = callers.iter().flat_map(names).collect();
    (!holders.is_empty()).then(|| Box::new(ClientCertificates { holders }) as Box<dyn CallerAuth>)
}

struct ClientCertificates {
    holders: HashMap<SubjectAltName, Arc<Caller>>,
}

impl CallerAuth for ClientCertificates {
    fn challenge(&self) -> &'static str {
        CHALLENGE
    }

    fn is_last_resort(&self) -> bool {
        true
    }

    fn is_of_connection(&self) -> bool {
        true
    }

    fn recall(&self, presented: Presented<'_>, now: Timestamp) -> Recalled {
        let Some(certificate) = presented.certificate else { return Recalled::NotPresented };
        if !certificate.is_valid(now) {
            return Recalled::Refused;
        }
        let mut named = certificate.names().iter().filter_map(|name| self.holders.get(name));
        match named.next() {
            None => Recalled::Refused,
            Some(caller) if named.any(|other| other.id != caller.id) => Recalled::Ambiguous,
            Some(caller) => Recalled::Accepted(caller.clone().into()),
        }
    }
}

#[cfg(test)]
mod tests;
