// SPDX-License-Identifier: GPL-2.0

//! The table of peer cases: what trusted projects test, and which test of ours holds the same.
//!
//! `tests/prior_art/PEER` lists every case of a peer, one a line: its name, and the reason where it
//! cannot apply here. A test names the cases that it holds in its doc comment, after `Peer:`, as
//! `PEER CASE, CASE; PEER CASE.`; a file that is all about a case names it in its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{anyhow, bail, Context, Result};
use proc_macro2::{Group, TokenTree};
use syn::parse::Parser;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, ItemFn, ItemMod, Lit, Macro, Meta};
use walkdir::WalkDir;

/// What a doc comment begins with that names cases.
const MARK: &str = "Peer: ";

/// Where tests are.
const SOURCES: [&str; 2] = ["src", "tests"];

/// A case of a peer.
#[derive(Debug)]
struct Case {
    name: String,
    /// Why it cannot apply.
    reason: Option<String>,
    /// The tests that hold it.
    tests: BTreeSet<String>,
}

/// All cases of all peers, by the peer's name, and what is wrong with them.
#[derive(Debug)]
pub struct PriorArt {
    cases: BTreeMap<String, Vec<Case>>,
    wrong: Vec<String>,
}

impl PriorArt {
    /// Reads the lists and the tests under `top`.
    pub fn read(top: &Path) -> Result<Self> {
        let mut peers = Self {
            cases: BTreeMap::new(),
            wrong: Vec::new(),
        };
        for (name, text) in files(&top.join("tests/prior_art"), |_| true)? {
            let list = list(&text).with_context(|| format!("tests/prior_art/{name}"))?;
            peers.cases.insert(name, list);
        }
        for dir in SOURCES {
            for (path, text) in files(&top.join(dir), is_source)? {
                let path = format!("{dir}/{path}");
                let claims = claims(&path, &text).with_context(|| path.clone())?;
                for claim in claims {
                    peers.add(claim);
                }
            }
        }
        peers.judge();
        Ok(peers)
    }

    /// Enters what a test says that it holds.
    fn add(&mut self, claim: Claim) {
        let Claim { test, said } = claim;
        for (peer, case) in said {
            let known = self.cases.get_mut(&peer);
            match known.and_then(|cases| cases.iter_mut().find(|known| known.name == case)) {
                Some(known) => _ = known.tests.insert(test.clone()),
                None => self
                    .wrong
                    .push(format!("{test}: no list knows {peer} {case}")),
            }
        }
    }

    /// Every case has a test, or else a reason.
    fn judge(&mut self) {
        for (peer, cases) in &self.cases {
            for Case {
                name,
                reason,
                tests,
            } in cases
            {
                match (tests.first(), reason) {
                    (None, None) => self
                        .wrong
                        .push(format!("{peer} {name}: neither a test nor a reason")),
                    (Some(test), Some(_)) => self
                        .wrong
                        .push(format!("{peer} {name}: {test}, and a reason why not")),
                    _ => {}
                }
            }
        }
    }

    /// Returns whether every case has its test or its reason.
    pub fn holds(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Returns how many there are, as lines of KTAP for the report on trust.
    pub fn figures(&self) -> String {
        let (held, all) = self.counts();
        let wrong = self.wrong.len();
        format!(
            "# trust: peer_cases {all} cases -\n\
             # trust: peer_cases_held {held} cases -\n\
             # trust: peer_cases_wrong {wrong} cases =0\n"
        )
    }

    /// Returns how many cases of a peer have a test, and how many there are.
    fn count(cases: &[Case]) -> (usize, usize) {
        let held = cases.iter().filter(|case| !case.tests.is_empty());
        (held.count(), cases.len())
    }

    /// The same of all peers.
    fn counts(&self) -> (usize, usize) {
        let counts = self.cases.values().map(|cases| Self::count(cases));
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

impl Display for PriorArt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Peer cases\n")?;
        writeln!(f, "| peer | cases | held | cannot apply |")?;
        writeln!(f, "| --- | ---: | ---: | ---: |")?;
        for (peer, cases) in &self.cases {
            let (held, all) = Self::count(cases);
            writeln!(f, "| {peer} | {all} | {held} | {} |", all - held)?;
        }
        let (held, all) = self.counts();
        writeln!(f, "| all | {all} | {held} | {} |", all - held)?;
        for (peer, cases) in &self.cases {
            writeln!(
                f,
                "\n## {peer}\n\n| case | held by, or why not |\n| --- | --- |"
            )?;
            for case in cases {
                let tests: Vec<_> = case.tests.iter().map(|test| format!("`{test}`")).collect();
                let said = match &case.reason {
                    Some(reason) => format!("- {reason}"),
                    None => tests.join(", "),
                };
                writeln!(f, "| {} | {said} |", case.name)?;
            }
        }
        for wrong in &self.wrong {
            writeln!(f, "\nWRONG: {wrong}")?;
        }
        Ok(())
    }
}

/// What one test says of itself.
#[derive(Debug, PartialEq)]
struct Claim {
    /// The test: its suite or file, and its name.
    test: String,
    /// Peers and their cases.
    said: Vec<(String, String)>,
}

/// Returns the cases of a list.
fn list(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, reason) = match line.split_once(char::is_whitespace) {
            Some((name, reason)) => (name, Some(reason.trim().to_owned())),
            None => (line, None),
        };
        if cases.iter().any(|case| case.name == name) {
            bail!("{name} is there twice");
        }
        cases.push(Case {
            name: name.to_owned(),
            reason,
            tests: BTreeSet::new(),
        });
    }
    Ok(cases)
}

/// Returns the cases that a doc comment names, `PEER CASE, CASE; PEER CASE.` after each mark.
fn said(doc: &str) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for sentence in doc.split(MARK).skip(1) {
        let end = sentence
            .match_indices('.')
            .map(|(at, _)| at)
            .find(|at| !sentence[at + 1..].starts_with(|next: char| !next.is_whitespace()))
            .ok_or_else(|| anyhow!("no full stop: {MARK}{sentence}"))?;
        for part in sentence[..end].split(';') {
            let (peer, cases) = part
                .trim()
                .split_once(char::is_whitespace)
                .ok_or_else(|| anyhow!("a peer without a case: {part}"))?;
            for case in cases.split(',').map(str::trim) {
                if case.is_empty() || case.contains(char::is_whitespace) {
                    bail!("not the name of a case: {case}");
                }
                all.push((peer.to_owned(), case.to_owned()));
            }
        }
    }
    Ok(all)
}

/// Returns the claims of a source file.
fn claims(path: &str, text: &str) -> Result<Vec<Claim>> {
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
    /// Takes the claims of a doc comment, of `test` or of the file.
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

    /// What follows a doc comment in a macro's call is a test: `proptest!`, and macros of our own.
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

/// A doc comment, as one line.
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

fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "c")
}

/// Returns the files below `dir` that are wanted: their paths in it, and their text.
fn files(dir: &Path, wanted: fn(&Path) -> bool) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type().is_file() && wanted(path) {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
            all.push((name, text));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one peer's list and one file of tests.
    fn table(cases: &str, test: &str) -> Result<PriorArt> {
        let mut peers = PriorArt {
            cases: [("peer".to_owned(), list(cases)?)].into(),
            wrong: Vec::new(),
        };
        for claim in claims("tests/engine/tests/a.rs", test)? {
            peers.add(claim);
        }
        peers.judge();
        Ok(peers)
    }

    #[test]
    fn every_case_of_every_peer_has_a_test_or_a_reason() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let peers = PriorArt::read(&top).unwrap();
        assert!(peers.holds(), "{}", peers.wrong.join("\n"));
    }

    #[test]
    fn a_table_names_tests_and_reasons() {
        let peers = table(
            "# a peer\none\ntwo  nothing here\nthree\n",
            "/// Holds. Peer: peer\n/// one, three. And more.\n#[test]\nfn it() {}",
        )
        .unwrap();
        assert!(peers.holds(), "{:?}", peers.wrong);
        let text = peers.to_string();
        assert!(text.contains("| peer | 3 | 2 | 1 |\n"), "{text}");
        assert!(
            text.contains("| one | `tests/engine/tests/a/it` |\n"),
            "{text}"
        );
        assert!(text.contains("| two | - nothing here |\n"), "{text}");
        let figures = peers.figures();
        assert!(
            figures.contains("# trust: peer_cases 3 cases -\n"),
            "{figures}"
        );
        assert!(
            figures.contains("# trust: peer_cases_held 2 cases -\n"),
            "{figures}"
        );
        assert!(
            figures.contains("# trust: peer_cases_wrong 0 cases =0\n"),
            "{figures}"
        );
    }

    #[test]
    fn a_case_with_neither_is_wrong() {
        assert!(!table("one", "").unwrap().holds());
    }

    #[test]
    fn a_case_with_both_is_wrong() {
        let both = table("one  no", "/// Peer: peer one.\n#[test]\nfn it() {}");
        assert!(!both.unwrap().holds());
    }

    #[test]
    fn what_no_list_knows_is_wrong() {
        for unknown in ["peer two", "other one"] {
            let test = format!("/// Peer: {unknown}.\n#[test]\nfn it() {{}}");
            assert!(!table("one  no", &test).unwrap().holds(), "{unknown}");
        }
    }

    #[test]
    fn only_a_test_holds_a_case() {
        for not_one in [
            "/// Peer: peer one.\nfn it() {}",
            "/// Peer: peer one.\nstruct It;",
            "// Peer: peer one.\n#[test]\nfn it() {}",
        ] {
            assert!(table("one", not_one).is_err(), "{not_one}");
        }
    }

    #[test]
    fn a_suite_makes_functions_tests() {
        let listed = "suite! { \"freelist_a\": it }\n/// Peer: peer one.\nfn it() {}";
        let peers = table("one", listed).unwrap();
        assert!(peers.holds());
        assert!(peers.to_string().contains("`freelist_a/it`"));
        let other = "suite! { \"freelist_a\": that }\n/// Peer: peer one.\nfn it() {}";
        assert!(table("one", other).is_err());
    }

    #[test]
    fn macros_make_tests() {
        for text in [
            "all! { other;\n/// Peer: peer one.\nit; }",
            "proptest! { #![config(a())]\n/// Peer: peer\n/// one.\n#[test] fn it(a in b()) { c() } }",
        ] {
            let peers = table("one", text).unwrap();
            assert!(peers.holds() && peers.to_string().contains("/it`"), "{peers}");
        }
    }

    #[test]
    fn a_suite_of_kunit_is_called_by_its_name() {
        let text = "#[kunit_tests(freelist_a)] mod a {\n/// Peer: peer one.\n#[test]\nfn it() {} }";
        let peers = table("one", text).unwrap();
        assert!(peers.to_string().contains("`freelist_a/it`"), "{peers}");
    }

    #[test]
    fn a_file_and_a_program_in_c_are_tests() {
        let file = "//! Peer: peer one.\nsuite! { \"freelist_a\": it }\nfn it() {}";
        assert!(table("one", file)
            .unwrap()
            .to_string()
            .contains("`freelist_a`"));
        let program = claims("tests/header/a.c", "/*\n * Peer: peer\n * one.\n */").unwrap();
        assert_eq!(program[0].said, [("peer".to_owned(), "one".to_owned())]);
        assert_eq!(program[0].test, "tests/header/a");
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for text in [
            "peer one",
            "peer.",
            "peer one two.",
            "peer one,.",
            "peer (one two).",
        ] {
            assert!(said(&format!("{MARK}{text}")).is_err(), "{text}");
        }
        assert!(said("Peer: peer CVE-1-2, a.b.").unwrap().len() == 2);
    }
}
