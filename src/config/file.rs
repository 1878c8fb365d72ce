//! The raw shape of a configuration file, field by field, before anything is checked. What a field
//! means is written here; what it must be is checked in the file named after its section.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{Faults, Place};
use super::reader::{ByteSize, Located, Node, Parameter, Read, Table};
use super::secret_source::{RawSetting, SecretSource};

/// Declares a table: a struct of optional fields that reads itself and refuses unknown keys. With
/// `..rest`, keys that it does not know are kept for the extension that does.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* $(..$rest:ident)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            /// Where the table is.
            #[allow(dead_code, reason = "tables that may be empty never need to say where they are")]
            pub(super) at: Place,
            $($(#[$field_doc])* pub(super) $field: Option<$type>,)*
            $(
                /// Keys that only an extension understands.
                pub(super) $rest: BTreeMap<String, Located<RawSetting>>,
            )?
        }

        impl $name {
            /// The keys of the table, without those of extensions.
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl Read for $name {
            fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
                let table = Table::open(node, Self::KEYS, faults)?;
                let at = table.at();
                $(let $field = table.take(stringify!($field), faults);)*
                $(let $rest = table.rest(faults);)?
                table!(@finish table, faults $(, $rest)?);
                Some(Self { at, $($field,)* $($rest,)? })
            }
        }
    };
    (@finish $table:ident, $faults:ident) => {
        $table.finish($faults);
    };
    (@finish $table:ident, $faults:ident, $rest:ident) => {};
}

table! {
    /// The whole file.
    GatewayFile {
        /// The process as a whole.
        server: ServerFile,
        /// Where it listens.
        listeners: ListenersFile,
        /// Where token sets are kept.
        store: StoreFile,
        /// Authorization servers; these win over the catalogue's.
        providers: BTreeMap<String, ProviderFile>,
        /// Registered clients.
        profiles: BTreeMap<String, ProfileFile>,
        /// Internal applications.
        callers: BTreeMap<String, CallerFile>,
        /// What they may call.
        routes: BTreeMap<String, RouteFile>,
    }
}

table! {
    /// `[server]`
    ServerFile {
        /// Base of the redirect URI, `{public_url}/callback`, as browsers reach the public listener.
        public_url: Located<String>,
        /// Worker threads; by default one a processor.
        workers: Located<u64>,
        /// How long a signing key of the gateway's own signs.
        signing_key_lifetime: Located<Duration>,
    }
}

table! {
    /// `[listeners]`
    ListenersFile {
        /// Internal applications.
        proxy: ListenerFile,
        /// Browsers.
        public: ListenerFile,
        /// Operators.
        admin: AdminListenerFile,
    }
}

table! {
    /// `[listeners.proxy]` and `[listeners.public]`
    ListenerFile {
        /// IP address and port.
        bind: Located<String>,
    }
}

table! {
    /// `[listeners.admin]`
    AdminListenerFile {
        /// IP address and port.
        bind: Located<String>,
        /// Bearer token; required unless bound to loopback.
        token: Located<SecretSource>,
    }
}

table! {
    /// `[store]`
    StoreFile {
        /// The backend's name.
        backend: Located<String>,
        /// Keys that records are sealed with.
        encryption: EncryptionFile,
        ..settings
    }
}

table! {
    /// `[store.encryption]`
    EncryptionFile {
        /// Name of the key that seals; the others only open.
        active: Located<String>,
        /// Keys by name: 32 bytes in base64 each.
        keys: BTreeMap<String, Located<SecretSource>>,
    }
}

table! {
    /// `[providers.NAME]`
    ProviderFile {
        /// Issuer identifier; metadata is discovered from it (OpenID Connect Discovery, RFC 8414).
        issuer: Located<String>,
        /// RFC 6749 section 3.1.
        authorization_endpoint: Located<String>,
        /// RFC 6749 section 3.2.
        token_endpoint: Located<String>,
        /// Where tokens are refreshed, if it is another place than the token endpoint.
        refresh_endpoint: Located<String>,
        /// RFC 7009.
        revocation_endpoint: Located<String>,
        /// RFC 7662.
        introspection_endpoint: Located<String>,
        /// RFC 9126.
        pushed_authorization_request_endpoint: Located<String>,
        /// RFC 8628.
        device_authorization_endpoint: Located<String>,
        /// RFC 7591.
        registration_endpoint: Located<String>,
        /// OpenID Connect Core section 5.3.
        userinfo_endpoint: Located<String>,
        /// Keys of ID tokens (RFC 7517).
        jwks_uri: Located<String>,
    }
}

table! {
    /// `[profiles.NAME]`
    ProfileFile {
        /// A provider of `[providers]` or of the catalogue.
        provider: Located<String>,
        /// RFC 6749 section 2.2.
        client_id: Located<String>,
        /// How the client authenticates at the token endpoint.
        client_auth: Located<String>,
        /// How a token is obtained.
        grant: Located<String>,
        /// Scopes asked for (RFC 6749 section 3.3).
        scopes: Located<Vec<String>>,
        /// Further parameters of the authorization request.
        authorize_params: BTreeMap<String, Located<Parameter>>,
        /// Further parameters of token requests.
        token_params: BTreeMap<String, Located<Parameter>>,
        /// `S256`, or `none` for a provider that breaks on it (RFC 7636).
        pkce: Located<String>,
        /// Signature algorithm that ID tokens must have.
        id_token_signing_alg: Located<String>,
        /// Lifetime of a token whose answer has no `expires_in`.
        default_token_lifetime: Located<Duration>,
        ..settings
    }
}

table! {
    /// `[callers.NAME]`
    CallerFile {
        /// HTTP Basic (RFC 7617).
        basic: BasicFile,
        /// Routes it may call; absent means none.
        routes: Located<Vec<String>>,
        /// Whether it may send `Claviger-Subject`.
        may_name_subject: Located<bool>,
    }
}

table! {
    /// `basic` of a caller.
    BasicFile {
        /// The user name it sends.
        username: Located<String>,
        /// argon2id hash of its password, as `claviger hash-secret` prints it.
        password_hash: Located<SecretSource>,
    }
}

table! {
    /// `[routes.NAME]`
    RouteFile {
        /// Path prefix here.
        path: Located<String>,
        /// Base URL there.
        upstream: Located<String>,
        /// The profile whose token is used.
        profile: Located<String>,
        /// Whose token: `caller`, `header` or `shared`.
        subject: Located<String>,
        /// Methods allowed; absent means all.
        methods: Located<Vec<String>>,
        /// Longest wait for the upstream's response head.
        timeout: Located<Duration>,
        /// Largest request body.
        max_body: Located<ByteSize>,
    }
}
