//! Checks `registration` of a profile, and puts together which client a profile is.

use std::sync::Arc;

use claviger_actors::client_auth::{ClientAuthRow, ClientAuthentication};
use claviger_actors::profile::{ClientSource, DynamicClient, RegisteredAuth};
use claviger_actors::protocol::client_registration::OWN_MEMBERS;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::registration::dynamic::DynamicRegistration;
use claviger_actors::registration::settings::Settings;
use claviger_actors::registration::{ClientRegistration, ProviderDetails};
use serde_json::{Map, Value};

use super::error::Faults;
use super::extension::Extension;
use super::file::{ProfileFile, RegistrationFile};
use super::reader::Located;
use super::secret_source::{SecretSource, Secrets};

/// Where our public keys are, seen from the redirection endpoint.
const JWKS: &str = "jwks.json";

/// A profile's client, checked.
pub(super) enum CheckedClient {
    /// `client_id` names it.
    Given(String, Arc<dyn ClientAuthentication>),
    /// `registration` makes it.
    Registered(Given, RegisteredAuth),
}

/// What `registration` says.
pub(super) struct Given {
    initial_access_token: Option<Secret>,
    software_statement: Option<Secret>,
    members: Map<String, Value>,
}

/// Checks which client a profile is, and lets its authentication method `row` take its settings.
/// `nameless` says that it need not be one.
pub(super) fn client(
    file: &ProfileFile,
    row: Option<&'static ClientAuthRow>,
    nameless: bool,
    extension: &mut Extension<'_>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<CheckedClient> {
    // One that could not be read was meant to be one all the same.
    let registers = file.registration.is_some() || faults.noted(&file.at.join("registration"));
    if !registers {
        let auth = extension.build(row.map(|row| row.build));
        return Some(CheckedClient::Given(client_id(file, nameless, faults)?, auth?));
    }
    let auth =
        extension.build(row.map(|row| move |settings: &mut Settings| RegisteredAuth::build(row, settings)));
    if let Some(id) = &file.client_id {
        faults.push(
            &id.at,
            "stands beside `registration`: a client with an identifier is registered already; remove one of the two",
        );
    }
    if let Some(secret) = file.settings.get(RegisteredAuth::SECRET) {
        faults.push(
            &secret.at,
            "stands beside `registration`, which brings a secret of its own; remove one of the two",
        );
    }
    let given = given(file.registration.as_ref()?, secrets, faults);
    Some(CheckedClient::Registered(given?, auth?))
}

fn client_id(file: &ProfileFile, nameless: bool, faults: &mut Faults) -> Option<String> {
    match &file.client_id {
        // RFC 6749 appendix A.1.
        Some(id) if id.value.is_empty() || !id.value.bytes().all(|b| (0x20..=0x7e).contains(&b)) => {
            faults.push(&id.at, "must be printable ASCII, and not empty");
            None
        }
        Some(id) => Some(id.value.clone()),
        None if nameless => Some(String::new()),
        None => {
            let why = "the provider gave it when the client was registered; with `registration = {}` the \
                       client registers itself";
            faults.missing(&file.at.join("client_id"), why);
            None
        }
    }
}

fn given(file: &RegistrationFile, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<Given> {
    let initial_access_token = token(file.initial_access_token.as_ref(), secrets, faults);
    let software_statement = token(file.software_statement.as_ref(), secrets, faults);
    let mut members = Map::new();
    for (name, setting) in file.metadata.iter().flatten() {
        if OWN_MEMBERS.contains(&name.as_str()) {
            faults.push(&setting.at, "follows from the rest of the profile and cannot stand in metadata");
            continue;
        }
        let mut value = Settings::default();
        value.insert(name, secrets.setting(setting, faults)?);
        let value = value.take_value(name).map_err(|error| error.problem);
        members.extend(faults.note(&setting.at, value)?.map(|value| (name.clone(), value)));
    }
    if let Some(name) = &file.client_name {
        members.insert("client_name".to_owned(), name.value.clone().into());
    }
    if let Some(contacts) = &file.contacts {
        members.insert("contacts".to_owned(), contacts.value.clone().into());
    }
    Some(Given {
        initial_access_token: initial_access_token?,
        software_statement: software_statement?,
        members,
    })
}

/// A secret that goes into a header or is a JWT: visible ASCII.
fn token(
    source: Option<&Located<SecretSource>>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<Option<Secret>> {
    let Some(source) = source else { return Some(None) };
    let secret = secrets.resolve(source, faults)?;
    if !secret.expose().bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        faults.push(&source.at, "must be visible ASCII");
        return None;
    }
    Some(Some(secret))
}

/// Whether `provider` lets a client register, as far as the configuration tells.
pub(super) fn can_register(provider: &ProviderDetails, file: &ProfileFile, faults: &mut Faults) -> bool {
    let Some(registration) = &file.registration else { return true };
    if provider.issuer.is_some() || provider.endpoints.registration_endpoint.is_some() {
        return true;
    }
    let name = &provider.name;
    faults.push(
        &registration.at,
        format!(
            "provider `{name}` has neither `registration_endpoint` nor `issuer`, and registration needs one"
        ),
    );
    false
}

impl CheckedClient {
    /// The client of the profile `registration` with this grant and client authentication.
    pub(super) fn of(
        self,
        registration: &ClientRegistration,
        grant: &str,
        client_auth: &str,
    ) -> ClientSource {
        match self {
            Self::Given(client_id, auth) => ClientSource::given(client_id, auth),
            Self::Registered(given, auth) => {
                let jwks_uri = registration.redirect_uri.join(JWKS).ok();
                let members = given.members;
                let mut made =
                    DynamicRegistration::new(registration, grant, client_auth, jwks_uri.as_ref(), members);
                made.initial_access_token = given.initial_access_token;
                made.metadata.software_statement = given.software_statement;
                ClientSource::Registered(Arc::new(DynamicClient { registration: made, auth }))
            }
        }
    }
}
