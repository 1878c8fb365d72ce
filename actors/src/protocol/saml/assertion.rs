//! Builds a bearer assertion (RFC 7522 section 3), in its exclusive canonical form.

use super::{In, SAML, SamlError, escape};
use crate::clock::Timestamp;

/// What stands in an assertion. Any text will do that XML can carry.
#[derive(Clone, Debug)]
pub struct Assertion<'a> {
    /// `ID`, from [`new_id`](super::new_id).
    pub id: &'a str,
    /// Now, to the second: `IssueInstant` and `AuthnInstant`.
    pub now: Timestamp,
    /// `Issuer`.
    pub issuer: &'a str,
    /// `NameID`: the resource owner.
    pub subject: &'a str,
    /// `Format` of the `NameID`.
    pub name_id_format: &'a str,
    /// `Recipient` of the bearer confirmation: the token endpoint (section 3, item 5).
    pub recipient: &'a str,
    /// `Audience`: the authorization server (section 3, item 2).
    pub audience: &'a str,
    /// From when on it holds.
    pub not_before: Timestamp,
    /// From when on it does not hold any more.
    pub not_on_or_after: Timestamp,
    /// `AuthnContextClassRef`. Without it there is no `AuthnStatement`, as section 3, item 8 has it
    /// for a client that acts on its own.
    pub authn_context: Option<&'a str>,
    /// Names and values of the `AttributeStatement`; none without them.
    pub attributes: &'a [(String, Vec<String>)],
}

impl Assertion<'_> {
    /// The assertion as XML, without a signature: namespaces where they are first used, attributes
    /// sorted, no white space, no empty tags. Canonicalisation changes nothing of it.
    ///
    /// # Errors
    /// [`SamlError::Character`], [`SamlError::Empty`].
    pub fn to_xml(&self) -> Result<String, SamlError> {
        let mut xml = Writer(String::with_capacity(2048));
        let (now, not_on_or_after) = (self.now.to_string(), self.not_on_or_after.to_string());
        let root = [("xmlns:saml", SAML), ("ID", self.id), ("IssueInstant", &now), ("Version", "2.0")];
        xml.open("saml:Assertion", &root)?;
        xml.leaf("saml:Issuer", &[], self.issuer)?;

        xml.open("saml:Subject", &[])?;
        xml.leaf("saml:NameID", &[("Format", self.name_id_format)], self.subject)?;
        xml.open("saml:SubjectConfirmation", &[("Method", "urn:oasis:names:tc:SAML:2.0:cm:bearer")])?;
        let confirmation = [("NotOnOrAfter", not_on_or_after.as_str()), ("Recipient", self.recipient)];
        xml.open("saml:SubjectConfirmationData", &confirmation)?;
        xml.close("saml:SubjectConfirmationData");
        xml.close("saml:SubjectConfirmation");
        xml.close("saml:Subject");

        let not_before = self.not_before.to_string();
        xml.open("saml:Conditions", &[("NotBefore", &not_before), ("NotOnOrAfter", &not_on_or_after)])?;
        xml.open("saml:AudienceRestriction", &[])?;
        xml.leaf("saml:Audience", &[], self.audience)?;
        xml.close("saml:AudienceRestriction");
        xml.close("saml:Conditions");

        if let Some(authn_context) = self.authn_context {
            xml.open("saml:AuthnStatement", &[("AuthnInstant", &now)])?;
            xml.open("saml:AuthnContext", &[])?;
            xml.leaf("saml:AuthnContextClassRef", &[], authn_context)?;
            xml.close("saml:AuthnContext");
            xml.close("saml:AuthnStatement");
        }
        if !self.attributes.is_empty() {
            xml.open("saml:AttributeStatement", &[])?;
            for (name, values) in self.attributes {
                xml.open("saml:Attribute", &[("Name", name)])?;
                for value in values {
                    xml.open("saml:AttributeValue", &[])?;
                    escape(value, &format!("attribute {name:?}"), In::Text, &mut xml.0)?;
                    xml.close("saml:AttributeValue");
                }
                xml.close("saml:Attribute");
            }
            xml.close("saml:AttributeStatement");
        }
        xml.close("saml:Assertion");
        Ok(xml.0)
    }
}

struct Writer(String);

impl Writer {
    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) -> Result<(), SamlError> {
        self.0.push('<');
        self.0.push_str(name);
        for (attribute, value) in attributes {
            let what = || format!("{attribute} of {name}");
            if value.is_empty() {
                return Err(SamlError::Empty(what()));
            }
            self.0.push(' ');
            self.0.push_str(attribute);
            self.0.push_str("=\"");
            escape(value, &what(), In::Attribute, &mut self.0)?;
            self.0.push('"');
        }
        self.0.push('>');
        Ok(())
    }

    fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) -> Result<(), SamlError> {
        if text.is_empty() {
            return Err(SamlError::Empty(name.to_owned()));
        }
        self.open(name, attributes)?;
        escape(text, name, In::Text, &mut self.0)?;
        self.close(name);
        Ok(())
    }

    fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }
}
