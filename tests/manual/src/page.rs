// SPDX-License-Identifier: GPL-2.0

//! Names in a manual page in mdoc.

use std::collections::BTreeSet;

/// Returns the arguments of the macro `name` (`Er`, `Dv`, `Va`) in `text`, on lines of its own and
/// inside of lines, without punctuation.
pub fn names(text: &str, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix('.')) {
        let mut inside = false;
        for word in line.split_whitespace() {
            // Every macro of mdoc has two or three letters and begins with a capital.
            if is_macro(word) {
                inside = word == name;
            } else if inside && word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-') {
                found.insert(word.to_owned());
                // The words after the name of a function are its parameters.
                inside = name != "Fn";
            }
        }
    }
    found
}

fn is_macro(word: &str) -> bool {
    let mut letters = word.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_uppercase());
    first && matches!(word.len(), 2 | 3) && letters.all(|c| c.is_ascii_lowercase())
}

/// Returns the lines of the section `title` of `text`, without its heading; empty if there is none.
pub fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let heading = format!("\n.Sh {title}\n");
    let Some((_, rest)) = text.split_once(&heading) else {
        return "";
    };
    rest.split_once("\n.Sh ").map_or(rest, |(body, _)| body)
}

/// Returns the heads of the list items of `text`: lines that begin with `.It`.
pub fn items(text: &str) -> String {
    let items = text.lines().filter(|line| line.starts_with(".It"));
    items.flat_map(|line| [line, "\n"]).collect()
}
