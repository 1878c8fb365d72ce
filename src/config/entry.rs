//! A provider of the catalogue as people read about it.

use super::catalogue::{self, Preset};
use super::error::{ConfigErrors, Faults};
use super::file::ProviderFile;
use super::providers;
use super::reader::Located;
use super::variables::Values;

/// A provider of the catalogue, for whoever registers a client with it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value of `provider` in a profile.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
    /// What it is called.
    pub title: String,
    /// What the comment at the top of its file says, line by line.
    pub about: Vec<&'static str>,
    /// The provider's own documentation.
    pub documentation: Option<String>,
    /// Title of the page that the values are from.
    pub source: Option<String>,
    /// How sure the values are.
    pub confidence: Option<String>,
    /// Where a client is registered.
    pub console: Option<String>,
    /// Grants that it supports, the usual one first.
    pub grants: Vec<String>,
    /// How clients authenticate, if not by HTTP Basic.
    pub client_auth: Option<String>,
    /// Scopes of profiles that name none.
    pub scopes: Vec<String>,
    /// Usual scopes, and what they mean.
    pub scope_descriptions: Vec<(String, String)>,
    /// What a profile fills in.
    pub variables: Vec<EntryVariable>,
    /// Base URL of the API.
    pub api: Option<String>,
    /// Whether it says which hosts the token answer may name.
    pub has_api_hosts: bool,
    /// Method and URL of a cheap request that says who one is.
    pub probe: Option<(String, String)>,
}

/// What a profile fills in.
#[derive(Clone, Debug)]
pub struct EntryVariable {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// A value as it may be.
    pub example: String,
    /// The value if a profile gives none.
    pub default: Option<String>,
}

impl Entry {
    /// Every entry of the catalogue, by name.
    ///
    /// # Errors
    /// What is wrong with one, which a test keeps from happening.
    pub fn all() -> Result<Vec<Self>, ConfigErrors> {
        catalogue::CATALOGUE.iter().map(Self::of).collect()
    }

    /// Reads and checks a preset.
    ///
    /// # Errors
    /// What is wrong with it, which a test keeps from happening.
    pub fn of(preset: &Preset) -> Result<Self, ConfigErrors> {
        let file = catalogue::read(preset)?;
        let mut faults = Faults::default();
        let checked = providers::provider(preset.name, &file, &mut faults);
        faults.or(checked.map(|_| Self::from_file(preset, &file)))
    }

    fn from_file(preset: &Preset, file: &ProviderFile) -> Self {
        let text = |text: &Option<Located<String>>| text.as_ref().map(|text| text.value.clone());
        let list = |list: &Option<Located<Vec<String>>>| list.as_ref().map(|list| list.value.clone());
        let console = file.console.as_ref();
        let values = Values::samples(file);
        let variable = |(name, variable): (&String, &super::file::VariableFile)| EntryVariable {
            name: name.clone(),
            description: text(&variable.description).unwrap_or_default(),
            example: text(&variable.example).unwrap_or_default(),
            default: text(&variable.default),
        };
        Self {
            name: preset.name,
            text: preset.text,
            title: text(&file.title).unwrap_or_else(|| preset.name.to_owned()),
            about: about(preset.text),
            documentation: text(&file.documentation),
            source: text(&file.source),
            confidence: text(&file.confidence),
            console: console
                .and_then(|text| values.fill(text, false, &mut Faults::default()))
                .map(|text| text.value),
            grants: list(&file.grants).unwrap_or_default(),
            client_auth: text(&file.client_auth),
            scopes: list(&file.scopes).unwrap_or_default(),
            scope_descriptions: file
                .scope_descriptions
                .iter()
                .flatten()
                .map(|(scope, text)| (scope.clone(), text.value.clone()))
                .collect(),
            variables: file.variables.iter().flatten().map(variable).collect(),
            api: text(&file.api),
            has_api_hosts: file.api_hosts.is_some(),
            probe: file.probe.as_ref().and_then(|probe| {
                Some((text(&probe.method).unwrap_or_else(|| "GET".to_owned()), text(&probe.url)?))
            }),
        }
    }
}

/// The comment at the top of a file, without its title.
fn about(text: &'static str) -> Vec<&'static str> {
    let lines = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    lines.skip(1).skip_while(|line| line.is_empty()).collect()
}
