// SPDX-License-Identifier: GPL-2.0

//! KTAP, version 1 (Documentation/dev-tools/ktap.rst of the kernel), with one
//! nested level: a suite's tests.

use std::io::Write;

use super::Verdict;

/// The indentation of a nested level, as KUnit has it.
const INDENT: &str = "    ";

/// Prints results when they come.
pub(super) struct Writer<W: Write> {
    out: W,
    suites: usize,
    tests: usize,
    suite_failed: bool,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            suites: 0,
            tests: 0,
            suite_failed: false,
            passed: 0,
            failed: 0,
            skipped: 0,
        }
    }

    /// Prints a line at once, so that a reader knows where a run hangs.
    fn line(&mut self, text: &str) {
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .expect("results can be written");
    }

    pub(super) fn bail(&mut self, why: &str) {
        self.line("KTAP version 1");
        self.line(&format!("Bail out! {why}"));
    }

    pub(super) fn plan(&mut self, suites: usize) {
        self.line("KTAP version 1");
        self.line(&format!("1..{suites}"));
    }

    pub(super) fn begin_suite(&mut self, name: &str, tests: usize) {
        self.tests = 0;
        self.suite_failed = false;
        self.line(&format!("{INDENT}KTAP version 1"));
        self.line(&format!("{INDENT}# Subtest: {name}"));
        self.line(&format!("{INDENT}1..{tests}"));
    }

    /// Prints the name of a test that begins: the last one shows what ran when a VM went down.
    pub(super) fn running(&mut self, name: &str) {
        self.line(&format!("{INDENT}# running: {name}"));
    }

    /// Prints a diagnostic of the whole run.
    pub(super) fn say(&mut self, text: &str) {
        self.line(&format!("# {text}"));
    }

    /// Prints a test's diagnostics, then its result.
    pub(super) fn result(&mut self, name: &str, verdict: &Verdict, said: &[String]) {
        self.tests += 1;
        for line in said {
            self.line(&format!("{INDENT}# {line}"));
        }
        let number = self.tests;
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                self.line(&format!("{INDENT}ok {number} {name}"));
            }
            Verdict::Skipped(why) => {
                self.skipped += 1;
                self.line(&format!("{INDENT}ok {number} {name} # SKIP {why}"));
            }
            Verdict::Failed(why) => {
                self.failed += 1;
                self.suite_failed = true;
                if let Some(why) = why {
                    self.line(&format!("{INDENT}# {why}"));
                }
                self.line(&format!("{INDENT}not ok {number} {name}"));
            }
        }
    }

    pub(super) fn end_suite(&mut self, name: &str) {
        self.suites += 1;
        let result = if self.suite_failed { "not ok" } else { "ok" };
        self.line(&format!("{result} {} {name}", self.suites));
    }

    /// Prints the totals. Returns whether no test failed.
    pub(super) fn finish(&mut self) -> bool {
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = *self;
        let total = passed + failed + skipped;
        self.line(&format!(
            "# Totals: pass:{passed} fail:{failed} skip:{skipped} total:{total}"
        ));
        failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_nested_and_counted() {
        let mut text = Vec::new();
        let mut out = Writer::new(&mut text);
        out.plan(2);
        out.begin_suite("freelist_a", 2);
        out.result("one", &Verdict::Passed, &["seed 1".to_owned()]);
        let why = Some("killed by SIGBUS".to_owned());
        out.result("two", &Verdict::Failed(why), &["a.rs:1".to_owned()]);
        out.end_suite("freelist_a");
        out.begin_suite("freelist_b", 1);
        out.result("three", &Verdict::Skipped("no room".to_owned()), &[]);
        out.end_suite("freelist_b");
        assert!(!out.finish());
        let expected = "\
KTAP version 1
1..2
    KTAP version 1
    # Subtest: freelist_a
    1..2
    # seed 1
    ok 1 one
    # a.rs:1
    # killed by SIGBUS
    not ok 2 two
not ok 1 freelist_a
    KTAP version 1
    # Subtest: freelist_b
    1..1
    ok 1 three # SKIP no room
ok 2 freelist_b
# Totals: pass:1 fail:1 skip:1 total:3
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
