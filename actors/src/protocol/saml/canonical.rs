//! Exclusive XML Canonicalization 1.0 without comments, of one element and all that is in it.
//!
//! Less than the recommendation has: no list of inclusive namespaces, no subset of nodes, and no
//! document type declaration, which the reader refuses. Names of the sections are those of Canonical
//! XML 1.0 (section 2.3) and Exclusive XML Canonicalization 1.0 (section 3).

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::{Attribute, Node, NodeType};

use super::{In, SamlError, escape};

/// Deepest nesting of elements.
pub const DEEPEST: usize = 100;

const XML: &str = "xml";

/// The canonical form of `element`.
///
/// # Errors
/// [`SamlError::TooDeep`].
pub fn canonical(element: Node<'_, '_>) -> Result<String, SamlError> {
    let mut out = String::with_capacity(element.range().len());
    write_element(element, &BTreeMap::new(), DEEPEST, &mut out)?;
    Ok(out)
}

/// Prefixes that were declared around an element in what was written, and their namespaces.
type Declared<'a> = BTreeMap<&'a str, &'a str>;

fn write_element<'a>(
    element: Node<'a, '_>,
    around: &Declared<'a>,
    deeper: usize,
    out: &mut String,
) -> Result<(), SamlError> {
    let deeper = deeper.checked_sub(1).ok_or(SamlError::TooDeep)?;
    let source = element.document().input_text();
    let name = qualified_name(&source[element.range()]);
    let mut attributes: Vec<(Attribute<'a, '_>, &str)> =
        element.attributes().map(|attribute| (attribute, &source[attribute.range_qname()])).collect();
    attributes.sort_by_key(|(attribute, _)| (attribute.namespace().unwrap_or_default(), attribute.name()));

    // Declared are the prefixes that the element or its attributes use, in order, unless they mean
    // the same already. An attribute without one is in no namespace.
    let prefixes = attributes.iter().filter_map(|(_, name)| prefix(name));
    let used: BTreeSet<&str> = prefixes.chain([prefix(name).unwrap_or_default()]).collect();
    out.push('<');
    out.push_str(name);
    let mut declared = around.clone();
    for prefix in used.into_iter().filter(|prefix| *prefix != XML) {
        let namespace = element.lookup_namespace_uri(Some(prefix).filter(|prefix| !prefix.is_empty()));
        let namespace = namespace.unwrap_or_default();
        if around.get(prefix).copied().unwrap_or_default() != namespace {
            let colon = if prefix.is_empty() { "" } else { ":" };
            write_attribute(&format!("xmlns{colon}{prefix}"), namespace, out)?;
            declared.insert(prefix, namespace);
        }
    }
    for (attribute, name) in attributes {
        write_attribute(name, attribute.value(), out)?;
    }
    out.push('>');
    for child in element.children() {
        match child.node_type() {
            NodeType::Element => write_element(child, &declared, deeper, out)?,
            NodeType::Text => escape(child.text().unwrap_or_default(), "a text", In::Text, out)?,
            NodeType::PI => write_instruction(child, out),
            NodeType::Comment | NodeType::Root => {}
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
    Ok(())
}

fn write_attribute(name: &str, value: &str, out: &mut String) -> Result<(), SamlError> {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escape(value, name, In::Attribute, out)?;
    out.push('"');
    Ok(())
}

fn write_instruction(node: Node<'_, '_>, out: &mut String) {
    let Some(instruction) = node.pi() else { return };
    out.push_str("<?");
    out.push_str(instruction.target);
    if let Some(value) = instruction.value.filter(|value| !value.is_empty()) {
        out.push(' ');
        // The reader leaves line ends as they are here (XML 1.0 section 2.11).
        out.push_str(&value.replace("\r\n", "\n").replace('\r', "\n"));
    }
    out.push_str("?>");
}

/// The name of an element as it is written, prefix included, from the element's source.
fn qualified_name(source: &str) -> &str {
    let name = source.strip_prefix('<').unwrap_or(source);
    let end = name.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
    &name[..end.unwrap_or(name.len())]
}

fn prefix(name: &str) -> Option<&str> {
    name.split_once(':').map(|(prefix, _)| prefix)
}
