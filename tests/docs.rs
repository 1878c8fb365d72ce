//! What the documentation refers to is there: tests that it names, and files that it links to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

const PARITY: &str = "docs/axway-parity.md";
const TOP: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page under `folder`, at any depth.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(self::pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    pages
}

/// What stands between single backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// `text` as a test, `path::name`.
fn test_of(text: &str) -> Option<(&str, &str)> {
    text.split_once(".rs::").map(|(file, name)| (&text[..file.len() + 3], name))
}

#[test]
fn every_test_that_the_parity_page_names_exists() {
    let page = read(&root().join(PARITY));
    let (mut named, mut wrong) = (0, Vec::new());
    for (file, name) in quoted(&page).filter_map(test_of) {
        named += 1;
        let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        let function = format!("fn {name}(");
        // The attribute is on one of the lines just before.
        let is_test = source.find(&function).is_some_and(|at| {
            let before: Vec<&str> = source[..at].lines().rev().take(4).collect();
            before.iter().any(|line| line.trim_start().starts_with("#[") && line.contains("test"))
        });
        if !is_test {
            wrong.push(format!("{file}::{name}"));
        }
    }
    assert!(named > 60, "{named}");
    assert!(wrong.is_empty(), "{PARITY} names tests that are not there:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_parity_page_has_a_test_or_says_why_not() {
    let page = read(&root().join(PARITY));
    let (tables, _) = page.split_once("## Moving over").unwrap();
    let (mut header, mut rows) = (true, 0);
    for line in tables.lines() {
        if !line.starts_with('|') {
            header = true;
        } else if line.starts_with("|---") || line.starts_with("| |---") || line.starts_with("|--:") {
            header = false;
        } else if !header {
            rows += 1;
            let excused = line.contains("[below](");
            assert!(excused || quoted(line).any(|text| test_of(text).is_some()), "{line}");
        }
    }
    assert!(rows > 60, "{rows}");
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The page without its blocks of code.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn leads_somewhere(page: &Path, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => page.to_owned(),
        file => page.parent().unwrap().join(file),
    };
    let heads = |text: &str| text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    let has = |file: &Path| {
        let heads: Vec<String> = heads(&prose(&read(file)));
        heads.iter().any(|head| anchor(head.trim_start_matches('#')) == fragment)
    };
    file.exists() && (fragment.is_empty() || has(&file))
}

#[test]
fn every_link_leads_to_a_file_and_its_heading() {
    let all: Vec<PathBuf> =
        TOP.iter().map(|name| root().join(name)).chain(pages(&root().join("docs"))).collect();
    let (mut links, mut wrong) = (0, Vec::new());
    for page in &all {
        let text = prose(&read(page));
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '\n']).next());
        for target in targets {
            links += 1;
            if !leads_somewhere(page, target) {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(all.len() >= 12 && links > 150, "{} pages, {links} links", all.len());
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn links_are_told_apart() {
    let readme = root().join("README.md");
    for good in ["ARCHITECTURE.md", "docs/grants.md#jwt_bearer", "https://example.com/x", "#two-commands"] {
        assert!(leads_somewhere(&readme, good), "{good}");
    }
    for bad in ["NOWHERE.md", "docs/grants.md#implicit", "#three-commands"] {
        assert!(!leads_somewhere(&readme, bad), "{bad}");
    }
}
