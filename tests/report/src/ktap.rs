// SPDX-License-Identifier: GPL-2.0

//! Results of tests in KTAP documents.

/// The result of a test.
pub struct Outcome<'a> {
    /// The suite that the test is in.
    pub suite: &'a str,
    /// Its name; empty if it has none.
    pub name: &'a str,
    pub passed: bool,
}

/// Returns the results of the tests of a document that are in a suite and were not skipped.
pub fn outcomes(ktap: &str) -> impl Iterator<Item = Outcome<'_>> {
    let mut suite = "";
    ktap.lines().filter_map(move |line| {
        let test = line.trim_start();
        if let Some(name) = test.strip_prefix("# Subtest: ") {
            suite = name.trim();
            return None;
        }
        if test.len() == line.len() || test.contains("# SKIP") {
            return None;
        }
        let (passed, rest) = match test.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => (true, test.strip_prefix("ok ")?),
        };
        let mut words = rest.split_whitespace();
        let name = words.find(|word| word.parse::<u32>().is_err() && *word != "-");
        Some(Outcome {
            suite,
            name: name.unwrap_or_default(),
            passed,
        })
    })
}
