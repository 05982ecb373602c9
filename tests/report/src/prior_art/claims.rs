// SPDX-License-Identifier: GPL-2.0

//! The claims of tests: the cases that their doc comments name.

use std::collections::BTreeSet;

use anyhow::{anyhow, bail, Result};
use proc_macro2::{Group, TokenTree};
use syn::parse::Parser;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, ItemFn, ItemMod, Lit, Macro, Meta};

/// The mark after which a doc comment names cases.
pub const MARK: &str = "Prior art: ";

/// The cases that a test claims to hold.
#[derive(Debug, PartialEq)]
pub struct Claim {
    /// The test: its suite or file, and its name.
    pub test: String,
    /// The projects and their cases.
    pub said: Vec<(String, String)>,
}

/// Returns the cases that a doc comment names, `PROJECT CASE, CASE; PROJECT CASE.` after each mark.
pub fn said(doc: &str) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for sentence in doc.split(MARK).skip(1) {
        let end = sentence
            .match_indices('.')
            .map(|(at, _)| at)
            .find(|at| !sentence[at + 1..].starts_with(|next: char| !next.is_whitespace()))
            .ok_or_else(|| anyhow!("no full stop: {MARK}{sentence}"))?;
        for part in sentence[..end].split(';') {
            let (project, cases) = part
                .trim()
                .split_once(char::is_whitespace)
                .ok_or_else(|| anyhow!("a project without a case: {part}"))?;
            for case in cases.split(',').map(str::trim) {
                if case.is_empty() || case.contains(char::is_whitespace) {
                    bail!("not the name of a case: {case}");
                }
                all.push((project.to_owned(), case.to_owned()));
            }
        }
    }
    Ok(all)
}

/// Returns the claims of a source file.
pub fn claims(path: &str, text: &str) -> Result<Vec<Claim>> {
    let name = path
        .rsplit_once('.')
        .map_or(path, |(name, _)| name)
        .replace("/src/", "/");
    if path.ends_with(".c") {
        // The whole program is one test; the marks are in its comments.
        let lines = text
            .lines()
            .map(|line| line.trim_start_matches([' ', '\t', '*', '/']));
        let said = said(&lines.collect::<Vec<_>>().join(" "))?;
        return Ok(if said.is_empty() {
            Vec::new()
        } else {
            vec![Claim { test: name, said }]
        });
    }
    let file = syn::parse_file(text)?;
    let mut suite = Suite::default();
    suite.visit_file(&file);
    let mut reader = Reader {
        within: vec![suite.name.clone().unwrap_or(name)],
        suite: &suite,
        claims: Vec::new(),
        marks: 0,
        result: Ok(()),
    };
    reader.enter(&file.attrs, None);
    reader.visit_file(&file);
    reader.result?;
    let marks = text.lines().filter(|line| is_comment_with_mark(line));
    let marks: usize = marks.map(|line| line.matches(MARK).count()).sum();
    if marks != reader.marks {
        bail!(
            "{marks} comments with {MARK:?}, but {} on tests",
            reader.marks
        );
    }
    Ok(reader.claims)
}

fn is_comment_with_mark(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && line.contains(MARK)
}

/// The `suite!` of a file: what makes functions of the device tests tests.
#[derive(Default)]
struct Suite {
    name: Option<String>,
    tests: BTreeSet<String>,
}

impl Visit<'_> for Suite {
    fn visit_macro(&mut self, it: &Macro) {
        if !it.path.is_ident("suite") {
            return;
        }
        for token in it.tokens.clone() {
            let token = token.to_string();
            match token.strip_prefix('"') {
                Some(name) => self.name = Some(name.trim_end_matches('"').to_owned()),
                None => _ = self.tests.insert(token),
            }
        }
    }
}

/// Goes through a file and collects what its tests say.
struct Reader<'a> {
    /// The file's name or suite, and the modules.
    within: Vec<String>,
    suite: &'a Suite,
    claims: Vec<Claim>,
    marks: usize,
    result: Result<()>,
}

impl Reader<'_> {
    /// Adds the claims of a doc comment, of `test` or of the file.
    fn enter(&mut self, attrs: &[Attribute], test: Option<&str>) {
        let doc = doc(attrs);
        let mut name = self.within.join("/");
        if let Some(test) = test {
            name = format!("{name}/{test}");
        }
        match said(&doc) {
            Ok(said) if said.is_empty() => {}
            Ok(said) => self.claims.push(Claim { test: name, said }),
            Err(error) => self.result = Err(error.context(name)),
        }
        self.marks += doc.matches(MARK).count();
    }
}

impl Visit<'_> for Reader<'_> {
    fn visit_item_fn(&mut self, it: &ItemFn) {
        let name = it.sig.ident.to_string();
        let is_test = it.attrs.iter().any(|attr| attr.path().is_ident("test"));
        if is_test || self.suite.tests.contains(&name) {
            self.enter(&it.attrs, Some(&name));
        }
    }

    /// Reads tests in a macro's call, each after a doc comment: `proptest!`, and this project's macros.
    fn visit_macro(&mut self, it: &Macro) {
        if it.path.is_ident("macro_rules") {
            return;
        }
        let mut attrs = Vec::new();
        for token in it.tokens.clone() {
            match token {
                TokenTree::Group(group) => attrs.extend(attr(group)),
                TokenTree::Ident(name) if name != "fn" => {
                    self.enter(&attrs, Some(&name.to_string()));
                    attrs.clear();
                }
                _ => {}
            }
        }
    }

    fn visit_item_mod(&mut self, it: &ItemMod) {
        let outer = self.within.clone();
        let kunit = it.attrs.iter().find_map(|attr| match &attr.meta {
            Meta::List(it) if it.path.is_ident("kunit_tests") => Some(it.tokens.to_string()),
            _ => None,
        });
        match kunit {
            Some(suite) => self.within = vec![suite],
            None => self.within.push(it.ident.to_string()),
        }
        visit::visit_item_mod(self, it);
        self.within = outer;
    }
}

/// Returns the attribute whose part in brackets is `group`, if it can be one.
fn attr(group: Group) -> Option<Attribute> {
    let text = format!("#{group}");
    Attribute::parse_outer.parse_str(&text).ok()?.pop()
}

/// Returns a doc comment as one line.
fn doc(attrs: &[Attribute]) -> String {
    let lines = attrs.iter().filter_map(|attr| match &attr.meta {
        Meta::NameValue(it) if it.path.is_ident("doc") => match &it.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    lines
        .map(|line| line.trim().to_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
