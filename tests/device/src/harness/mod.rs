// SPDX-License-Identifier: GPL-2.0

//! Runs tests and prints KTAP.
//!
//! A test is a function that panics when a promise does not hold; the panic's
//! place and message become its diagnostics. Each runs in a process of its
//! own, this program called again with `--one`, so a crash, a leak or a hang
//! is one test's failure and not the run's.

mod coverage;
mod ktap;
mod process;

use std::panic;
use std::process::ExitCode;
use std::time::Duration;

use coverage::Coverage;
use process::Verdict;

/// A test: the promise that it holds, as a name, and the code.
pub struct Test {
    /// The function's name.
    pub name: &'static str,
    /// Returns if the promise holds, otherwise panics.
    pub run: fn(),
}

/// The tests of one area.
pub struct Suite {
    /// The name, `freelist_<area>`.
    pub name: &'static str,
    /// The tests, in the order in which they run.
    pub tests: &'static [Test],
    /// Runs only when it is named: for suites that are meant to fail.
    pub hidden: bool,
}

/// Makes a [`Suite`] of functions of the same file. A function that is not
/// listed is an unused one, which the compiler reports.
macro_rules! suite {
    ($name:literal, $hidden:literal: $($test:ident),* $(,)?) => {
        /// The tests of this file.
        pub const SUITE: $crate::harness::Suite = $crate::harness::Suite {
            name: $name,
            tests: &[$($crate::harness::Test { name: stringify!($test), run: $test }),*],
            hidden: $hidden,
        };
    };
    ($name:literal: $($test:ident),* $(,)?) => {
        $crate::harness::suite!($name, false: $($test),*);
    };
}
pub(crate) use suite;

/// The exit status of a test's process for "skipped", as in kselftest.
const SKIPPED: u8 = 4;

/// Ends this test as skipped: this machine cannot show the promise.
pub fn skip(reason: &str) -> ! {
    eprintln!("SKIP {reason}");
    std::process::exit(SKIPPED.into())
}

/// Returns the tests that `names` select; without names all that are not hidden.
pub fn selected<'a>(
    suites: &'a [Suite],
    names: &'a [String],
) -> impl Iterator<Item = (&'a Suite, &'a Test)> {
    let pairs = suites
        .iter()
        .flat_map(|suite| suite.tests.iter().map(move |test| (suite, test)));
    pairs.filter(move |(suite, test)| {
        let named = |name: &String| match name.split_once('/') {
            Some((of, one)) => of == suite.name && one == test.name,
            None => name == suite.name,
        };
        names.iter().any(named) || (names.is_empty() && !suite.hidden)
    })
}

/// Runs one test in this process.
pub fn one(suites: &[Suite], name: &str) -> ExitCode {
    let name = [name.to_owned()];
    let Some((_, test)) = selected(suites, &name).next() else {
        eprintln!("no test is named {}", name[0]);
        return ExitCode::FAILURE;
    };
    freelist_probe::kcov::note();
    // The panic's place and message are on stderr by then.
    match panic::catch_unwind(test.run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The options of a run.
pub struct Options {
    /// End with the first test that fails, and name each before it runs.
    pub until_failure: bool,
    /// A factor for the work of the longer tests.
    pub scale: u32,
    /// The longest time for a test.
    pub timeout: Duration,
    /// Print the points of the module that were reached.
    pub coverage: bool,
}

/// Runs the selected tests, each in its own process, and prints KTAP.
pub fn all(suites: &[Suite], names: &[String], options: &Options) -> ExitCode {
    let mut chosen: Vec<(&Suite, Vec<&Test>)> = Vec::new();
    for (suite, test) in selected(suites, names) {
        match chosen.last_mut() {
            Some((last, tests)) if last.name == suite.name => tests.push(test),
            _ => chosen.push((suite, vec![test])),
        }
    }
    let mut out = ktap::Writer::new(std::io::stdout());
    if chosen.is_empty() {
        out.bail("no test has such a name");
        return ExitCode::FAILURE;
    }
    let mut coverage = match options.coverage.then(Coverage::new).transpose() {
        Ok(coverage) => coverage,
        Err(error) => {
            out.bail(&format!("KCOV: {error}"));
            return ExitCode::FAILURE;
        }
    };
    out.plan(chosen.len());
    for (suite, tests) in &chosen {
        out.begin_suite(suite.name, tests.len());
        for test in tests {
            let name = format!("{}/{}", suite.name, test.name);
            if options.until_failure {
                out.running(&name);
            }
            let (verdict, said) = process::run(&name, options, coverage.as_mut());
            out.result(test.name, &verdict, &said);
            if options.until_failure && matches!(verdict, Verdict::Failed(_)) {
                return ExitCode::FAILURE;
            }
        }
        out.end_suite(suite.name);
    }
    for line in coverage.iter().flat_map(Coverage::lines) {
        out.say(&line);
    }
    if out.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
