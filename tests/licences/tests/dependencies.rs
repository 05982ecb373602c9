// SPDX-License-Identifier: GPL-2.0

//! Each crate that ours depend on has a licence that `src/deny.toml` allows, as `cargo deny check licenses`
//! checks, without that tool.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, ParseMode};

/// The part of `src/deny.toml` that is used here.
#[derive(Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

/// The part of the output of `cargo metadata` that is used here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// The registry that it comes from; `None` for a crate of ours.
    source: Option<String>,
}

impl Package {
    /// Returns whether one of the licences that it offers is in `allowed`.
    fn is_allowed(&self, allowed: &BTreeSet<String>) -> bool {
        let Some(license) = &self.license else {
            return false;
        };
        Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|wanted| allowed.contains(&wanted.to_string()))
        })
    }
}

/// Returns the folder of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src")
}

fn deny() -> Deny {
    let text = fs::read_to_string(workspace().join("deny.toml")).expect("it lies in src/");
    toml::from_str(&text).expect("src/deny.toml is TOML, with graph and licenses")
}

/// Returns the crates of the workspace and of all that it depends on for `target`.
fn packages(target: &str) -> Vec<Package> {
    let output = Command::new(env::var_os("CARGO").expect("set by cargo"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", target])
        .current_dir(workspace())
        .output()
        .expect("cargo is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata.packages
}

#[test]
fn each_dependency_has_a_licence_that_is_allowed() {
    let deny = deny();
    let allowed: BTreeSet<_> = deny.licenses.allow.into_iter().collect();
    for target in deny.graph.targets {
        let packages = packages(&target);
        let (ours, others): (Vec<_>, Vec<_>) = packages
            .iter()
            .partition(|package| package.source.is_none());
        assert!(ours.len() > 10, "{} crates of ours", ours.len());
        assert!(others.len() > 50, "{} crates of others", others.len());
        let refused: Vec<_> = others
            .iter()
            .filter(|package| !package.is_allowed(&allowed))
            .map(|package| {
                format!(
                    "{} {}: {:?}",
                    package.name, package.version, package.license
                )
            })
            .collect();
        assert!(
            refused.is_empty(),
            "not allowed by src/deny.toml:\n{}",
            refused.join("\n")
        );
    }
}

#[test]
fn an_expression_is_allowed_by_any_of_its_alternatives_and_all_of_its_parts() {
    let allowed: BTreeSet<_> = ["MIT", "Zlib"].map(str::to_owned).into();
    let is_allowed = |license: Option<&str>| {
        Package {
            name: String::new(),
            version: String::new(),
            license: license.map(str::to_owned),
            source: None,
        }
        .is_allowed(&allowed)
    };
    for license in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "Apache-2.0/MIT",
        "MIT AND Zlib",
    ] {
        assert!(is_allowed(Some(license)), "{license}");
    }
    for license in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "not a licence", ""] {
        assert!(!is_allowed(Some(license)), "{license}");
    }
    assert!(!is_allowed(None));
}
