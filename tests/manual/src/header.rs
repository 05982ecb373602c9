// SPDX-License-Identifier: GPL-2.0

//! Names in a C header that is formatted as the kernel formats its own.

use std::collections::BTreeSet;

/// Returns the names that `text` defines by `#define`, but for the guard of the header.
pub fn macros(text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| !name.starts_with('_') && !name.ends_with("_H"))
        .map(str::to_owned)
        .collect()
}

/// Returns the structures that `text` defines and their fields, in its order.
pub fn structures(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix("struct ")
            .and_then(|l| l.strip_suffix(" {"))
        {
            all.push((name.to_owned(), Vec::new()));
            inside = true;
        } else if line.starts_with('}') {
            inside = false;
        } else if inside {
            let field = line.trim().trim_end_matches(';').rsplit(' ').next();
            let field = field.and_then(|field| field.split('[').next());
            if let (Some(field), Some((_, fields))) = (field, all.last_mut()) {
                fields.push(field.to_owned());
            }
        }
    }
    all
}

/// Returns the functions that `text` declares.
pub fn functions(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| {
        // Declarations begin in the first column; comments and macros do not count.
        line.starts_with(|c: char| c.is_ascii_lowercase())
    }) {
        if let Some((before, _)) = line.split_once('(') {
            if let Some(name) = before.rsplit([' ', '*']).next() {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

/// Returns the text of the comment of `text` that has `title` in its first line; empty if there is none.
pub fn comment<'a>(text: &'a str, title: &str) -> &'a str {
    let Some((_, rest)) = text.split_once(&format!("\n/*\n * {title}")) else {
        return "";
    };
    rest.split_once("*/").map_or("", |(body, _)| body)
}
