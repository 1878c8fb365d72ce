//! The raw shape of `[listeners]`.

use super::{Faults, KeySource, Located, Node, Place, Read, SecretSource, Table};
use crate::config::listener_tls::ListenerTlsFile;

table! {
    /// `[listeners]`
    ListenersFile {
        /// Internal applications.
        proxy: ProxyListenerFile,
        /// Browsers.
        public: ListenerFile,
        /// Operators.
        admin: AdminListenerFile,
    }
}

table! {
    /// `[listeners.proxy]`
    ProxyListenerFile {
        /// IP address and port.
        bind: Located<String>,
        /// How it speaks TLS; absent means it does not.
        tls: ListenerTlsFile,
        /// Whether TLS offers HTTP/2 as well (RFC 7301, RFC 9113 section 3.2).
        http2: Located<bool>,
        /// Whether HTTP/2 is taken without TLS, with prior knowledge (RFC 9113 section 3.3).
        h2c: Located<bool>,
    }
}

table! {
    /// `[listeners.public]`
    ListenerFile {
        /// IP address and port.
        bind: Located<String>,
        /// How it speaks TLS; absent means it does not.
        tls: ListenerTlsFile,
    }
}

table! {
    /// `[listeners.admin]`
    AdminListenerFile {
        /// IP address and port.
        bind: Located<String>,
        /// Bearer token; required unless bound to loopback, or client certificates are.
        token: Located<SecretSource>,
        /// How it speaks TLS; absent means it does not.
        tls: ListenerTlsFile,
    }
}

table! {
    /// `tls` of a listener, if it is a table.
    ListenerCertificateFile {
        /// PEM file of the certificate, with its chain.
        cert: Located<String>,
        /// PEM file of its private key.
        key: Located<KeySource>,
        /// PEM file of the authorities whose client certificates are taken.
        client_ca: Located<String>,
    }
}
