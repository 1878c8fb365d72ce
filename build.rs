//! Lists the providers of `config/providers/`, so that adding one is adding its file.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const FOLDER: &str = "config/providers";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(FOLDER);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).ok_or("a provider's file has no name")?;
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.push((name.to_owned(), path));
        }
    }
    names.sort();
    let mut list = String::from("&[\n");
    for (name, path) in names {
        writeln!(list, "    Preset {{ name: {name:?}, text: include_str!({path:?}) }},")?;
    }
    list.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("catalogue.rs"), list)?;
    Ok(())
}
