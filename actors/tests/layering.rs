//! The layers of ARCHITECTURE.md, held: imports point down only, files stay short, and the map
//! names every module.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The engine, lowest layer first. A module imports itself and what stands in an earlier row;
/// modules of one row never import each other. The most exact name counts.
const ENGINE: &[&[&str]] = &[
    &["clock"],
    &["protocol"],
    &["registration", "supervision", "flow::record"],
    &["transport", "grants", "client_auth", "store"],
    &["connection"],
    &["profile", "snapshot", "authorization_server"],
    &["token_endpoint"],
    &["discovery", "jwk_set"],
    &["token_store"],
    &["provider"],
    &["flow"],
    &["proxy"],
    &["gateway"],
    &["testing"],
];

/// The shell around it, likewise.
const SHELL: &[&[&str]] = &[
    &["client_tls", "counts", "signals"],
    &["caller_auth", "provider_client"],
    &["config"],
    &["telemetry", "listeners"],
    &["app"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// What may not be imported although its row is lower: who, what, why not.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("supervision", "protocol", "supervision knows nothing of OAuth"),
    ("supervision", "registration", "supervision knows nothing of OAuth"),
    ("listeners", "claviger_actors::provider::messages", "listeners reach actors through GatewayHandle"),
    ("listeners", "claviger_actors::token_store", "listeners reach actors through GatewayHandle"),
    ("listeners", "claviger_actors::store::sled", "only the wiring knows a backend"),
    ("config", "claviger_actors::gateway", "configuration is data"),
];

/// No source file is longer, tests in a sibling file aside.
const LONGEST: usize = 500;

struct Source {
    /// `flow::record` for `src/flow/record.rs`; `lib` and `main` for the roots.
    module: String,
    path: PathBuf,
    /// Without comments and without the tests at its end.
    code: String,
    lines: usize,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part == "tests" || part.ends_with("tests.rs") || part == "test_support.rs"
    })
}

fn sources(root: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    rust_files(root, &mut paths);
    assert!(!paths.is_empty(), "nothing under {}", root.display());
    paths.sort();
    paths
        .into_iter()
        .filter(|path| !is_test(path.strip_prefix(root).unwrap()))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let below = path.strip_prefix(root).unwrap().with_extension("");
            let mut parts: Vec<_> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            parts.retain(|part| part != "mod");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code =
                code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
            Source { module: parts.join("::"), path, code, lines: text.lines().count() }
        })
        .collect()
}

/// Every path in `code` that starts with `root::`, as `a::b::C`, groups taken apart.
fn paths_from(code: &str, root: &str) -> BTreeSet<String> {
    let start = format!("{root}::");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&start) {
        let part_of_a_name = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !part_of_a_name {
            expand(&code[at + start.len()..], "", &mut found);
        }
    }
    found
}

/// Reads one path or group at the start of `text`; what is left of `text` after it.
fn expand<'a>(text: &'a str, prefix: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
            rest = expand(rest, prefix, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        return rest.trim_start().strip_prefix('}').unwrap_or("");
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(rest, &path, found);
    }
    found.insert(path);
    // An `as name` belongs to the path; anything unexpected ends it, so that no group loops.
    let next = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
    &rest[next..]
}

/// Whether `path` is `module` or in it.
fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The row of the most exact name in `table` that `path` is within, and that name.
fn row_of<'a>(table: &[&[&'a str]], path: &str) -> Option<(usize, &'a str)> {
    table
        .iter()
        .enumerate()
        .flat_map(|(row, modules)| modules.iter().map(move |module| (row, *module)))
        .filter(|(_, module)| is_within(path, module))
        .max_by_key(|(_, module)| module.len())
}

fn faults_of_imports(root: &Path, table: &[&[&str]]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources(root) {
        let Source { module, path, code, .. } = &source;
        let Some((row, own)) = row_of(table, module) else {
            if module != "lib" {
                faults.push(format!("{}: {module} has no row in the table", path.display()));
            }
            continue;
        };
        // Its own library, as a binary names it.
        let own_crate = paths_from(code, "crate").into_iter().chain(paths_from(code, "claviger"));
        for import in own_crate {
            // A macro or a type of the crate's root has no row and needs none.
            let Some((below, imported)) = row_of(table, &import) else { continue };
            if below >= row && imported != own {
                faults
                    .push(format!("{}: {own} imports {import}, which does not lie below it", path.display()));
            }
        }
        for (who, what, why) in FORBIDDEN {
            let external = what.strip_prefix("claviger_actors::");
            let paths = match external {
                Some(_) => paths_from(code, "claviger_actors"),
                None => paths_from(code, "crate"),
            };
            let what = external.unwrap_or(what);
            if is_within(module, who) && paths.iter().any(|path| is_within(path, what)) {
                faults.push(format!("{}: imports {what}, but {why}", path.display()));
            }
        }
    }
    faults
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_of_the_engine_point_down_only() {
    assert_none(&faults_of_imports(&workspace().join("actors/src"), ENGINE));
}

#[test]
fn imports_of_the_shell_point_down_only() {
    assert_none(&faults_of_imports(&workspace().join("src"), SHELL));
}

#[test]
fn the_engine_knows_no_http_server() {
    let manifest = fs::read_to_string(workspace().join("actors/Cargo.toml")).unwrap();
    for server in ["actix-web", "actix-http", "awc"] {
        let named = manifest.lines().any(|line| line.starts_with(server));
        assert!(!named, "actors/Cargo.toml names {server}");
    }
}

#[test]
fn no_source_file_is_too_long() {
    let mut faults = Vec::new();
    for folder in ["actors/src", "src"] {
        for source in sources(&workspace().join(folder)) {
            if source.lines > LONGEST {
                faults.push(format!("{}: {} lines; it asks to be two", source.path.display(), source.lines));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let words: BTreeSet<&str> = map.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut faults = Vec::new();
    for root in ["actors/src/lib.rs", "src/lib.rs"] {
        let text = fs::read_to_string(workspace().join(root)).unwrap();
        let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod "));
        for module in modules.map(|rest| rest.trim_end_matches(';')) {
            if !words.contains(module) {
                faults.push(format!("{root}: module {module} is not in ARCHITECTURE.md"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn paths_are_read_from_code_as_written() {
    let code = "use crate::a::{b::C, d::{E, F as G}};\nlet x = crate::h::i(); pub(crate) fn j() {}\nmycrate::k::l();";
    let found: Vec<_> = paths_from(code, "crate").into_iter().collect();
    assert_eq!(found, ["a::b::C", "a::d::E", "a::d::F", "h::i"]);
    assert_eq!(row_of(ENGINE, "flow::record::FlowRecord").unwrap().1, "flow::record");
    assert_eq!(row_of(ENGINE, "flow::actor").unwrap().1, "flow");
    assert_eq!(row_of(ENGINE, "flows"), None);
}
