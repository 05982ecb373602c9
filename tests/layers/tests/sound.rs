// SPDX-License-Identifier: GPL-2.0

//! The module's types are sound for every type that they can be used with.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use walkdir::WalkDir;

/// The folders that are searched: all of the module but `engine`, which forbids unsafe code. The `mod.rs` of a
/// folder marks its files with unsafe code by `expect(unsafe_code)`; those of `arena` and `kunit` mark none. The client
/// is another crate.
const FOLDERS: [&str; 6] = ["ffi", "mm", "arena", "debug", "device", "kunit"];

/// Collects the tokens of a file as text; a group in `()` or `[]` is one token, one in `{}` is entered.
fn words(tokens: TokenStream, words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                words.push("{".to_owned());
                self::words(group.stream(), words);
                words.push("}".to_owned());
            }
            token => words.push(token.to_string()),
        }
    }
}

/// Returns the parameters between `<` and its `>`, from the word after the `<` on.
fn parameters(words: &[String]) -> Vec<String> {
    let (mut depth, mut all) = (0, vec![String::new()]);
    for word in words {
        match word.as_str() {
            "<" => depth += 1,
            ">" if depth == 0 => break,
            ">" => depth -= 1,
            "," if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        all.last_mut().expect("there is one").push_str(word);
    }
    all
}

/// Returns whether the words after `unsafe impl <` are an implementation for any type.
fn is_of_any_type(words: &[String]) -> bool {
    let body = words.iter().position(|word| word == "{").unwrap_or(0);
    let has_bounds = words[..body].iter().any(|word| word == "where");
    let of_types = parameters(&words[3..]);
    let mut of_types = of_types
        .iter()
        .filter(|name| !name.starts_with('\'') && !name.starts_with("const"));
    !has_bounds && of_types.any(|name| !name.contains(':'))
}

/// Returns whether the words after `fn NAME <` are a function that returns a lifetime of the caller's choice,
/// which no argument has.
fn has_free_lifetime(words: &[String]) -> bool {
    let lifetimes = parameters(&words[3..]);
    let arguments = words.iter().find(|word| word.starts_with('('));
    let arguments = arguments.map_or("", String::as_str).replace(' ', "");
    let end = words
        .iter()
        .position(|word| word == "{" || word == ";")
        .unwrap_or(words.len());
    let signature = words[..end].concat();
    let mut lifetimes = lifetimes.iter().filter(|name| name.starts_with('\''));
    lifetimes
        .any(|name| !arguments.contains(name.as_str()) && signature.contains(&format!("&{name}")))
}

/// Returns the unsound declarations of a source file.
fn wrong(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    words(text.parse().expect("it is Rust"), &mut all);
    let mut bad = Vec::new();
    for at in 0..all.len() {
        let rest = &all[at..];
        let begins = |with: &[&str]| rest.iter().zip(with).all(|(word, with)| word == with);
        let is_wrong = if rest.len() < 4 {
            false
        } else if begins(&["unsafe", "impl", "<"]) {
            is_of_any_type(rest)
        } else {
            begins(&["fn"]) && rest[2] == "<" && has_free_lifetime(rest)
        };
        if is_wrong {
            bad.push(rest[..rest.len().min(12)].join(" "));
        }
    }
    bad
}

#[test]
fn no_unsafe_impl_and_no_lifetime_is_unbounded() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut bad = Vec::new();
    let mut read = 0;
    for folder in FOLDERS {
        for entry in WalkDir::new(top.join(folder)) {
            let entry = entry.unwrap();
            if entry
                .path()
                .extension()
                .is_none_or(|extension| extension != "rs")
            {
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            read += 1;
            let name = entry
                .path()
                .strip_prefix(&top)
                .unwrap()
                .display()
                .to_string();
            bad.extend(
                wrong(&text)
                    .into_iter()
                    .map(|line| format!("src/{name}: {line}")),
            );
        }
    }
    assert!(read > 50, "{read} files");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_promise_of_any_type_is_seen() {
    for text in [
        "unsafe impl<T> Sync for Table<T> {}",
        "unsafe impl<T, U: Send> Send for Two<T, U> {}",
        "unsafe impl<'a, T> Send for One<'a, T> {}",
        "mod a { unsafe impl<T> Sync for Table<T> {} }",
        "impl A { fn of<'a>(file: *mut File) -> &'a Arena { b() } }",
        "fn of<'a, 'b>(file: &'b File) -> Option<&'a Arena> { b() }",
    ] {
        assert_eq!(wrong(text).len(), 1, "{text}");
    }
    for text in [
        "unsafe impl<T: Functions> Sync for Table<T> {}",
        "unsafe impl<T> Sync for Table<T> where T: Sync {}",
        "unsafe impl<'a> Send for One<'a> {}",
        "unsafe impl<const N: usize> Send for One<N> {}",
        "impl A { fn of<'a>(file: &'a File) -> &'a Arena { b() } }",
        "fn of(file: &File) -> &Arena { b() }",
    ] {
        assert!(wrong(text).is_empty(), "{text}");
    }
}
