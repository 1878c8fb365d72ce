//! The raw shape of a configuration file, field by field, before anything is checked. What a field
//! means is written here; what it must be is checked in the file named after its section.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{Faults, Place};
use super::limits::LimitsFile;
use super::reader::{ByteSize, Located, Node, OneOrMore, Parameter, Read, Table};
use super::resilience::{Breaker, RateFile, RetryBudgetFile};
use super::secret_source::{RawSetting, SecretSource};
use super::tls::KeySource;

/// Declares a table: a struct of optional fields that reads itself and refuses unknown keys. With
/// `..rest`, keys that it does not know are kept for the extension that does.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* $(..$rest:ident)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(in crate::config) struct $name {
            /// Where the table is.
            #[allow(dead_code, reason = "tables that may be empty never need to say where they are")]
            pub(in crate::config) at: Place,
            $($(#[$field_doc])* pub(in crate::config) $field: Option<$type>,)*
            $(
                /// Keys that only an extension understands.
                pub(in crate::config) $rest: BTreeMap<String, Located<RawSetting>>,
            )?
        }

        impl $name {
            /// The keys of the table, without those of extensions.
            pub(in crate::config) const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
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

mod listeners;

pub(in crate::config) use listeners::*;

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
        /// How much of anything is taken or kept.
        limits: LimitsFile,
    }
}

table! {
    /// `[server]`
    ServerFile {
        /// Base of the redirect URI, `{public_url}/callback`, as browsers reach the public listener.
        public_url: Located<String>,
        /// Worker threads; by default one a processor.
        workers: Located<u64>,
        /// Time that requests under way have to end once the gateway is told to.
        drain_timeout: Located<Duration>,
        /// A directory with providers of one's own, NAME.toml each; they win over those built in.
        catalogue: Located<String>,
        /// How long a signing key of the gateway's own signs.
        signing_key_lifetime: Located<Duration>,
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
        /// What it is called.
        title: Located<String>,
        /// The provider's own documentation.
        documentation: Located<String>,
        /// Title of the page that the values are from.
        source: Located<String>,
        /// How sure the values are: `high`, `medium` or `low`.
        confidence: Located<String>,
        /// Where a client is registered.
        console: Located<String>,
        /// Base URL of the API.
        api: Located<String>,
        /// Hosts that `{token.NAME}` in the upstream of a route may lead to.
        api_hosts: Located<Vec<String>>,
        /// A cheap request of the API that says who one is.
        probe: ProbeFile,
        /// Values that a profile fills into the URLs above.
        variables: BTreeMap<String, VariableFile>,
        /// Grants that it supports.
        grants: Located<Vec<String>>,
        /// How clients authenticate.
        client_auth: Located<String>,
        /// As in a profile.
        pkce: Located<String>,
        /// Scopes of profiles that name none.
        scopes: Located<Vec<String>>,
        /// What scopes mean, in words.
        scope_descriptions: BTreeMap<String, Located<String>>,
        /// Further parameters of the authorization request.
        authorize_params: BTreeMap<String, Located<Parameter>>,
        /// Further parameters of token requests that are no refresh.
        token_params: BTreeMap<String, Located<Parameter>>,
        /// Further parameters of refresh requests.
        refresh_params: BTreeMap<String, Located<Parameter>>,
        /// Lifetime of a token whose answer has no `expires_in`.
        default_token_lifetime: Located<Duration>,
        /// Lifetime of a refresh token, which no answer states.
        default_refresh_token_lifetime: Located<Duration>,
        /// Between scopes, if not a space.
        scope_separator: Located<String>,
        /// Name of the `scope` parameter, if another.
        scope_parameter: Located<String>,
        /// `form` or `json`.
        token_request_format: Located<String>,
        /// Further headers of token requests.
        token_request_headers: BTreeMap<String, Located<String>>,
        /// `encoded`, or `raw` for HTTP Basic without form-encoding.
        basic_credentials: Located<String>,
        /// Name of the `client_id` parameter, if another.
        client_id_parameter: Located<String>,
        /// Name of the `client_secret` parameter, if another.
        client_secret_parameter: Located<String>,
        /// Where members of token answers are.
        response: ResponseFile,
        /// Further values of `token_type` that mean bearer.
        token_types: Located<Vec<String>>,
        /// What its own error codes mean.
        error_meanings: BTreeMap<String, Located<String>>,
        /// Parameters of the callback to keep with the token set.
        callback_params: Located<Vec<String>>,
        /// The header in which the API takes the token.
        access_token_header: Located<String>,
        /// What comes before the token there.
        access_token_scheme: Located<String>,
        /// Audience of JWT and SAML assertions.
        assertion_audience: Located<String>,
        /// Audience of client assertions: `issuer`, `token_endpoint` or a URL.
        client_assertion_audience: Located<String>,
        /// Whom to trust there.
        tls: ProviderTlsFile,
        /// The HTTP proxy on the way, with its credentials.
        proxy: Located<SecretSource>,
        /// Whether metadata and keys may be redirected within their origin.
        redirects: Located<bool>,
        /// Total time of one request.
        request_timeout: Located<Duration>,
        /// Longest wait for a connection.
        connect_timeout: Located<Duration>,
        /// Statuses of the token endpoint that are passing trouble.
        retry_statuses: Located<Vec<String>>,
        /// How often a call's token request is sent again while they last.
        retries: Located<u64>,
    }
}

table! {
    /// `[providers.NAME.variables.NAME]`
    VariableFile {
        /// What it is, for whoever fills it in.
        description: Located<String>,
        /// A value as it may be.
        example: Located<String>,
        /// The value if a profile gives none; without it, a profile must.
        default: Located<String>,
        /// `segment` or `host`.
        kind: Located<String>,
    }
}

table! {
    /// `[providers.NAME.probe]`
    ProbeFile {
        /// Its method.
        method: Located<String>,
        /// Its URL.
        url: Located<String>,
    }
}

table! {
    /// `[providers.NAME.response]`: names joined by dots.
    ResponseFile {
        /// The access token.
        access_token: Located<String>,
        /// The refresh token.
        refresh_token: Located<String>,
        /// Its lifetime in seconds.
        expires_in: Located<String>,
        /// The scope granted.
        scope: Located<String>,
        /// The token's type.
        token_type: Located<String>,
        /// The error code.
        error: Located<String>,
        /// What the error is, in words.
        error_description: Located<String>,
    }
}

table! {
    /// `tls` of a provider.
    ProviderTlsFile {
        /// PEM file of the certificate authorities to trust, instead of the system's.
        ca: Located<String>,
    }
}

table! {
    /// `tls` of a profile.
    ClientTlsFile {
        /// PEM file of the client certificate, with its chain.
        cert: Located<String>,
        /// PEM file of its private key.
        key: Located<KeySource>,
    }
}

table! {
    /// `tls` of a route.
    RouteTlsFile {
        /// PEM file of the certificate authorities to trust, instead of the system's.
        ca: Located<String>,
        /// PEM file of the client certificate, with its chain.
        cert: Located<String>,
        /// PEM file of its private key.
        key: Located<KeySource>,
    }
}

table! {
    /// `[profiles.NAME]`
    ProfileFile {
        /// A provider of `[providers]` or of the catalogue.
        provider: Located<String>,
        /// RFC 6749 section 2.2.
        client_id: Located<String>,
        /// In the place of `client_id`: the client registers itself on first use (RFC 7591).
        registration: RegistrationFile,
        /// How the client authenticates at the token endpoint.
        client_auth: Located<String>,
        /// How a token is obtained.
        grant: Located<String>,
        /// Scopes asked for (RFC 6749 section 3.3).
        scopes: Located<Vec<String>>,
        /// Further parameters of the authorization request.
        authorize_params: BTreeMap<String, Located<Parameter>>,
        /// Further parameters of token requests, refreshes among them.
        token_params: BTreeMap<String, Located<Parameter>>,
        /// Further parameters of refresh requests; they win over `token_params`.
        refresh_params: BTreeMap<String, Located<Parameter>>,
        /// Values for the provider's variables.
        variables: BTreeMap<String, Located<String>>,
        /// `S256`, or `none` for a provider that breaks on it (RFC 7636).
        pkce: Located<String>,
        /// `fapi2`: everything that the FAPI 2.0 Security Profile asks of a client, or a fault.
        security_profile: Located<String>,
        /// Whether authorization requests are pushed (RFC 9126).
        par: Located<bool>,
        /// Whether every authorization response must have `iss` (RFC 9207).
        require_iss: Located<bool>,
        /// How long ago the person may have logged in (OpenID Connect Core section 3.1.2.1).
        max_age: Located<Duration>,
        /// OpenID Connect Core section 3.1.2.1; a template.
        acr_values: Located<String>,
        /// OpenID Connect Core section 3.1.2.1; a template.
        prompt: Located<String>,
        /// OpenID Connect Core section 3.1.2.1; a template.
        login_hint: Located<String>,
        /// Where the tokens will be used (RFC 8707).
        resource: Located<OneOrMore>,
        /// Signature algorithm that ID tokens must have.
        id_token_signing_alg: Located<String>,
        /// Lifetime of a token whose answer has no `expires_in`.
        default_token_lifetime: Located<Duration>,
        /// Lifetime of a refresh token, which no answer states.
        default_refresh_token_lifetime: Located<Duration>,
        /// Whether the provider is asked when a token ends of which nothing else is known (RFC 7662).
        introspect_expiry: Located<bool>,
        /// Whether tokens are bound to a key of the connection's own (RFC 9449).
        dpop: Located<bool>,
        /// What its proofs are signed with.
        dpop_signing_alg: Located<String>,
        /// The client certificate (RFC 8705).
        tls: ClientTlsFile,
        /// Whether access tokens are bound to it, so that upstreams must be shown it (RFC 8705
        /// section 3).
        certificate_bound_tokens: Located<bool>,
        ..settings
    }
}

table! {
    /// `registration` of a profile.
    RegistrationFile {
        /// Lets us register, where not everybody may (RFC 7591 section 3).
        initial_access_token: Located<SecretSource>,
        /// The client's name, for people to read.
        client_name: Located<String>,
        /// Whom the provider may write to.
        contacts: Located<Vec<String>>,
        /// RFC 7591 section 2.3.
        software_statement: Located<SecretSource>,
        /// Further members of the request (RFC 7591 section 2).
        metadata: BTreeMap<String, Located<RawSetting>>,
    }
}

table! {
    /// `[callers.NAME]`
    CallerFile {
        /// HTTP Basic (RFC 7617).
        basic: BasicFile,
        /// SHA-256 of the key that it sends as `X-Api-Key`.
        api_key_hash: Located<SecretSource>,
        /// JWTs that it sends as bearer tokens.
        jwt: JwtFile,
        /// Client certificates that it shows (RFC 8446 section 4.4.2).
        mtls: MtlsFile,
        /// Routes it may call; absent means none.
        routes: Located<Vec<String>>,
        /// Whether it may send `Claviger-Subject`, and choose by headers or query what routes take
        /// from there.
        may_name_subject: Located<bool>,
        /// Calls per time.
        rate: RateFile,
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
    /// `jwt` of a caller.
    JwtFile {
        /// `iss` of its tokens (RFC 7519 section 4.1.1).
        issuer: Located<String>,
        /// What must be among their `aud`.
        audience: Located<String>,
        /// Where the issuer's keys are (RFC 7517).
        jwks_uri: Located<String>,
        /// A file with the issuer's keys, relative to the configuration file.
        jwks_file: Located<String>,
        /// The claim that names the subject; `sub` by default.
        subject_claim: Located<String>,
        /// Further claims that tell its tokens from others of this issuer and audience.
        claims: BTreeMap<String, Located<Parameter>>,
    }
}

table! {
    /// `mtls` of a caller.
    MtlsFile {
        /// A subject alternative name of its certificates, or several.
        san: Located<OneOrMore>,
    }
}

table! {
    /// `[routes.NAME]`
    RouteFile {
        /// Path prefix here.
        path: Located<String>,
        /// Base URL there, with `{token.NAME}` if the token answer names it; or several.
        upstream: Located<OneOrMore>,
        /// Hosts that `{token.NAME}` may lead to.
        upstream_hosts: Located<Vec<String>>,
        /// The profile whose token is used.
        profile: Located<String>,
        /// Whose token: `caller`, `header`, `jwt`, `shared`, or a template.
        subject: Located<String>,
        /// Scopes that its calls need beyond the profile's.
        scopes: Located<Vec<String>>,
        /// Methods allowed; absent means all.
        methods: Located<Vec<String>>,
        /// Longest wait for the upstream's response head.
        timeout: Located<Duration>,
        /// Longest wait for a connection.
        connect_timeout: Located<Duration>,
        /// Longest time that a body may make no progress.
        idle_timeout: Located<Duration>,
        /// Longest time of the whole exchange.
        total_timeout: Located<Duration>,
        /// Largest request body.
        max_body: Located<ByteSize>,
        /// Times that a request may be sent again.
        retries: Located<u64>,
        /// Retries of all requests together.
        retry_budget: RetryBudgetFile,
        /// When an upstream that fails is left alone.
        breaker: Located<Breaker>,
        /// Whether an upstream is left alone when it asks to be.
        honor_retry_after: Located<bool>,
        /// Calls per time.
        rate: RateFile,
        /// Calls at once.
        max_in_flight: Located<u64>,
        /// Which HTTP is spoken there: `auto`, `http1` or `http2`.
        protocol: Located<String>,
        /// Whom to trust there, and what to show.
        tls: RouteTlsFile,
    }
}
