// SPDX-License-Identifier: GPL-2.0

//! The links and commands of README and the other texts are valid, and README is short.

use std::path::Path;

use freelist_manual::snippets::{self, Language};
use freelist_manual::{files, markdown, path, read};

const README: &str = "README.md";

#[test]
fn readme_has_at_most_200_lines() {
    let lines = read(README).unwrap().lines().count();
    assert!(lines <= 200, "{README} has {lines} lines");
}

#[test]
fn readme_has_a_program_in_every_language() {
    let found = snippets::of_file(README).unwrap();
    for language in [
        Language::C,
        Language::Rust,
        Language::Python,
        Language::Shell,
    ] {
        assert!(
            found.iter().any(|snippet| snippet.language == language),
            "{README} has none in {language:?}"
        );
    }
}

#[test]
fn every_page_with_examples_has_a_program() {
    for name in snippets::sources().unwrap() {
        let found = snippets::of_file(&name).unwrap();
        assert!(!found.is_empty(), "{name}: no program");
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut bad = Vec::new();
    let mut seen = 0;
    for name in files(".", ".md").unwrap() {
        let text = read(&name).unwrap();
        let folder = Path::new(&name).parent().unwrap().to_owned();
        for link in markdown::links(&text) {
            if link.contains("://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                name.clone()
            } else {
                folder.join(file).to_string_lossy().into_owned()
            };
            if !path(&target).exists() {
                bad.push(format!("{name}: {link}: there is no {target}"));
            } else if !anchor.is_empty() {
                let known = markdown::anchors(&read(&target).unwrap());
                if !known.iter().any(|known| known == anchor) {
                    bad.push(format!("{name}: {link}: no such heading: {known:?}"));
                }
            }
        }
    }
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
    assert!(seen > 10, "{seen} links are less than the texts have");
}

/// Returns the targets of make that the Makefile declares.
fn targets() -> Vec<String> {
    let makefile = read("Makefile").unwrap();
    let lines = makefile.lines().filter_map(|line| {
        let (names, words) = line.split_once('=')?;
        names.starts_with("PHONY").then_some(words)
    });
    lines
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_for_the_readers_machine_exists() {
    let targets = targets();
    let mut seen = 0;
    for name in [
        README,
        "src/CONTRIBUTING.md",
        "tests/README.md",
        "tests/bench/README.md",
    ] {
        for command in markdown::commands(&read(name).unwrap()) {
            let command = command.strip_prefix("sudo ").unwrap_or(&command);
            let mut words = command.split_whitespace().filter(|word| {
                // A variable for the command.
                !word
                    .split_once('=')
                    .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_uppercase()))
            });
            let program = words.next().unwrap_or_default();
            match program {
                "make" => {
                    seen += 1;
                    for target in words.filter(|word| !word.starts_with('-')) {
                        assert!(
                            targets.iter().any(|known| known == target),
                            "{name}: `{command}`: no target {target}"
                        );
                    }
                }
                _ if program.starts_with("scripts/") => {
                    seen += 1;
                    assert!(path(program).is_file(), "{name}: `{command}`: no {program}");
                    let text = read(program).unwrap() + &read("scripts/lib/vm-options.sh").unwrap();
                    let options = words.take_while(|word| !matches!(*word, "--" | "sh"));
                    for option in options.filter(|word| word.starts_with("--")) {
                        assert!(text.contains(option), "{name}: `{command}`: no {option}");
                    }
                }
                // `--one TEST`
                _ if program.starts_with("tests/scripts/") => {
                    seen += 1;
                    let test = words.nth(1).unwrap_or_default();
                    let known = read(program).unwrap().contains(&format!("\n{test}() {{"));
                    assert!(known, "{name}: `{command}`: {program} has no {test}");
                }
                _ => {}
            }
        }
    }
    assert!(seen > 10, "{seen} commands are less than the texts have");
}
