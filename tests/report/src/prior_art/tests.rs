// SPDX-License-Identifier: GPL-2.0

//! Tests of the table of cases, with lists and tests that are written here.

use super::claims::{claims, said, MARK};
use super::*;

/// Makes a table of one project's list and one file of tests.
fn table(cases: &str, test: &str) -> Result<PriorArt> {
    let mut prior_art = PriorArt {
        cases: [("project".to_owned(), list(cases)?)].into(),
        wrong: Vec::new(),
    };
    for claim in claims("tests/engine/tests/a.rs", test)? {
        prior_art.add(claim);
    }
    prior_art.judge();
    Ok(prior_art)
}

#[test]
fn every_case_of_every_peer_has_a_test_or_a_reason() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let prior_art = PriorArt::read(&top).unwrap();
    assert!(prior_art.holds(), "{}", prior_art.wrong.join("\n"));
}

#[test]
fn a_table_names_tests_and_reasons() {
    let prior_art = table(
        "# a project\none\ntwo  nothing here\nthree\n",
        "/// Holds. Prior art: project\n/// one, three. And more.\n#[test]\nfn it() {}",
    )
    .unwrap();
    assert!(prior_art.holds(), "{:?}", prior_art.wrong);
    let text = prior_art.to_string();
    assert!(text.contains("| project | 3 | 2 | 1 |\n"), "{text}");
    assert!(
        text.contains("| one | `tests/engine/tests/a/it` |\n"),
        "{text}"
    );
    assert!(text.contains("| two | - nothing here |\n"), "{text}");
    let figures = prior_art.figures();
    assert!(
        figures.contains("# trust: prior_art_cases 3 cases -\n"),
        "{figures}"
    );
    assert!(
        figures.contains("# trust: prior_art_cases_held 2 cases -\n"),
        "{figures}"
    );
    assert!(
        figures.contains("# trust: prior_art_cases_wrong 0 cases =0\n"),
        "{figures}"
    );
}

#[test]
fn a_case_without_a_test_or_a_reason_is_wrong() {
    assert!(!table("one", "").unwrap().holds());
}

#[test]
fn a_case_with_a_test_and_a_reason_is_wrong() {
    let both = table(
        "one  no",
        "/// Prior art: project one.\n#[test]\nfn it() {}",
    );
    assert!(!both.unwrap().holds());
}

#[test]
fn a_case_that_is_in_no_list_is_wrong() {
    for unknown in ["project two", "other one"] {
        let test = format!("/// Prior art: {unknown}.\n#[test]\nfn it() {{}}");
        assert!(!table("one  no", &test).unwrap().holds(), "{unknown}");
    }
}

#[test]
fn only_a_test_holds_a_case() {
    for not_one in [
        "/// Prior art: project one.\nfn it() {}",
        "/// Prior art: project one.\nstruct It;",
        "// Prior art: project one.\n#[test]\nfn it() {}",
    ] {
        assert!(table("one", not_one).is_err(), "{not_one}");
    }
}

#[test]
fn a_suite_makes_functions_tests() {
    let listed = "suite! { \"freelist_a\": it }\n/// Prior art: project one.\nfn it() {}";
    let prior_art = table("one", listed).unwrap();
    assert!(prior_art.holds());
    assert!(prior_art.to_string().contains("`freelist_a/it`"));
    let other = "suite! { \"freelist_a\": that }\n/// Prior art: project one.\nfn it() {}";
    assert!(table("one", other).is_err());
}

#[test]
fn macros_make_tests() {
    for text in [
        "all! { other;\n/// Prior art: project one.\nit; }",
        "proptest! { #![config(a())]\n/// Prior art: project\n/// one.\n#[test] fn it(a in b()) { c() } }",
    ] {
        let prior_art = table("one", text).unwrap();
        assert!(
            prior_art.holds() && prior_art.to_string().contains("/it`"),
            "{prior_art}"
        );
    }
}

#[test]
fn a_suite_of_kunit_is_called_by_its_name() {
    let text =
        "#[kunit_tests(freelist_a)] mod a {\n/// Prior art: project one.\n#[test]\nfn it() {} }";
    let prior_art = table("one", text).unwrap();
    assert!(
        prior_art.to_string().contains("`freelist_a/it`"),
        "{prior_art}"
    );
}

#[test]
fn a_file_and_a_program_in_c_are_tests() {
    let file = "//! Prior art: project one.\nsuite! { \"freelist_a\": it }\nfn it() {}";
    assert!(table("one", file)
        .unwrap()
        .to_string()
        .contains("`freelist_a`"));
    let program = claims(
        "tests/header/a.c",
        "/*\n * Prior art: project\n * one.\n */",
    )
    .unwrap();
    assert_eq!(program[0].said, [("project".to_owned(), "one".to_owned())]);
    assert_eq!(program[0].test, "tests/header/a");
}

#[test]
fn an_invalid_name_is_refused() {
    for text in [
        "project one",
        "project.",
        "project one two.",
        "project one,.",
        "project (one two).",
    ] {
        assert!(said(&format!("{MARK}{text}")).is_err(), "{text}");
    }
    assert!(said("Prior art: project CVE-1-2, a.b.").unwrap().len() == 2);
}
