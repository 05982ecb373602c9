// SPDX-License-Identifier: GPL-2.0

//! The manual pages name all that the sources have, and nothing else.

use std::collections::BTreeSet;

use freelist_manual::{errnos_in, files, header, page, read, words};

const PAGE: &str = "src/man/freelist.4";
const HEADER: &str = "src/uapi/freelist.h";
const LIBRARY: &str = "src/client/c/freelist_client.h";

type Names = BTreeSet<String>;

/// Fails unless `one` and `other` are the same, with the names that either lacks.
#[track_caller]
fn same(what: &str, one: (&str, &Names), other: (&str, &Names)) {
    let lacks =
        |names: &Names, whole: &Names| -> Vec<_> { whole.difference(names).cloned().collect() };
    let (first, second) = (lacks(one.1, other.1), lacks(other.1, one.1));
    assert!(
        first.is_empty() && second.is_empty(),
        "{what}: {} lacks {first:?}, {} lacks {second:?}",
        one.0,
        other.0
    );
    assert!(!one.1.is_empty(), "{what}: {} has none", one.0);
}

fn with_prefix(names: Names, prefix: &str) -> Names {
    names
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .collect()
}

#[test]
fn every_call_flag_and_feature_of_the_header_is_in_the_page() {
    let header = with_prefix(header::macros(&read(HEADER).unwrap()), "FREELIST_");
    // The letter of the calls is no part of the contract's words.
    let header = header
        .into_iter()
        .filter(|name| name != "FREELIST_IOC_MAGIC");
    let page = with_prefix(page::names(&read(PAGE).unwrap(), "Dv"), "FREELIST_");
    same("names", (HEADER, &header.collect()), (PAGE, &page));
}

#[test]
fn every_structure_and_field_of_the_header_is_in_the_page() {
    let text = read(PAGE).unwrap();
    let known: Names = words(&text).map(str::to_owned).collect();
    let fields = page::names(&text, "Va");
    let structures = header::structures(&read(HEADER).unwrap());
    assert!(structures.len() >= 9, "{structures:?}");
    for (name, names) in structures {
        assert!(known.contains(&name), "{PAGE}: no struct {name}");
        for field in names {
            assert!(
                fields.contains(&field),
                "{PAGE}: no field {field} of struct {name}"
            );
        }
    }
}

#[test]
fn the_page_has_no_field_that_the_header_lacks() {
    let structures = header::structures(&read(HEADER).unwrap());
    let mut known: Names = structures
        .into_iter()
        .flat_map(|(_, fields)| fields)
        .collect();
    known.extend(parameters());
    // Files of /proc, and names that are made of fields.
    known.extend(
        [
            "KReclaimable",
            "MemAvailable",
            "freelist_arena",
            "freelist_arena_bytes",
            "freelist_waiters",
            "freelist_NAME",
        ]
        .map(str::to_owned),
    );
    let page = page::names(&read(PAGE).unwrap(), "Va");
    let unknown: Vec<_> = page.difference(&known).collect();
    assert!(unknown.is_empty(), "{PAGE}: no fields: {unknown:?}");
}

/// Returns the errors of the page's table.
fn errors_of_the_page() -> Names {
    let text = read(PAGE).unwrap();
    page::names(&page::items(page::section(&text, "ERRORS")), "Er")
}

#[test]
fn the_errors_of_the_page_are_those_of_the_header() {
    let text = read(HEADER).unwrap();
    let table = header::comment(&text, "Errors of the calls");
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix(" * ")?.split('\t').next());
    let header = errnos_in(&rows.collect::<Vec<_>>().join(" ")).unwrap();
    same("errors", (HEADER, &header), (PAGE, &errors_of_the_page()));
    // The errors in the comments of its fields, too.
    same(
        "errors",
        ("its table", &header),
        (HEADER, &errnos_in(&text).unwrap()),
    );
}

/// Returns the errors that the module's code names, outside of comments and of its tests.
fn errors_of_the_module() -> Names {
    let mut code = String::new();
    for folder in ["ffi", "mm", "arena", "debug", "device"] {
        let mut names = files(&format!("src/{folder}"), ".rs").unwrap();
        // No call reaches it, and ordinary modules do not have it.
        names.retain(|name| name != "src/debug/bench.rs");
        for name in names {
            for line in read(&name).unwrap().lines() {
                code += line.split("//").next().unwrap_or_default();
                code.push('\n');
            }
        }
    }
    errnos_in(&code).unwrap()
}

#[test]
fn the_errors_of_the_page_are_those_of_the_module() {
    let mut module = errors_of_the_module();
    // A signal: the kernel makes it EINTR, or calls again.
    assert!(module.remove("ERESTARTSYS"));
    let page = errors_of_the_page();
    let unnamed: Vec<_> = module.difference(&page).collect();
    assert!(
        unnamed.is_empty(),
        "{PAGE} lacks {unnamed:?}, which the module answers"
    );
    let by_kernel: Vec<_> = page.difference(&module).map(String::as_str).collect();
    assert_eq!(
        by_kernel, FROM_THE_KERNEL,
        "errors that the module never names"
    );
}

/// Errors of the page that functions of the kernel return, so that the module's code has no name for them.
const FROM_THE_KERNEL: [&str; 2] = ["EMFILE", "ENFILE"];

/// Returns the module's parameters, from its root.
fn parameters() -> Names {
    let text = read("src/freelist_main.rs").unwrap();
    let lines = text.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_suffix(" {")?.split_once(": u"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn the_parameters_of_the_page_are_those_of_the_module() {
    let text = read(PAGE).unwrap();
    let page = page::names(
        &page::items(page::section(&text, "MODULE PARAMETERS")),
        "Va",
    );
    same(
        "parameters",
        ("src/freelist_main.rs", &parameters()),
        (PAGE, &page),
    );
}

#[test]
fn the_functions_of_the_c_library_are_those_of_its_page() {
    const PAGE: &str = "src/man/freelist_client.3";
    let header = header::functions(&read(LIBRARY).unwrap());
    let text = read(PAGE).unwrap();
    let prototypes = with_prefix(
        page::names(page::section(&text, "SYNOPSIS"), "Fn"),
        "freelist_",
    );
    same(
        "functions",
        (LIBRARY, &header),
        ("SYNOPSIS of its page", &prototypes),
    );
    let described = with_prefix(page::names(&text, "Fn"), "freelist_");
    same("functions", (LIBRARY, &header), (PAGE, &described));
}

/// Returns the environment variables that `text`, Rust source, reads.
fn variables(text: &str) -> Names {
    let found = words(text).filter(|word| word.starts_with("FREELIST_") && word.len() > 9);
    found.map(str::to_owned).collect()
}

#[test]
fn the_variables_of_the_drop_in_are_those_of_its_page() {
    const PAGE: &str = "src/man/freelist_malloc.3";
    let settings = "src/client/src/malloc/settings.rs";
    let mut sources = variables(
        read(settings)
            .unwrap()
            .split("#[cfg(test)]")
            .next()
            .unwrap(),
    );
    // `freelistctl run` alone reads this one.
    sources.insert("FREELIST_LIBRARY".to_owned());
    let text = read(PAGE).unwrap();
    let page = page::names(&page::items(page::section(&text, "ENVIRONMENT")), "Ev");
    same("variables", (settings, &sources), (PAGE, &page));
}

#[test]
fn the_options_of_run_are_those_of_the_drop_ins_page() {
    const PAGE: &str = "src/man/freelist_malloc.3";
    let source = "src/client/src/bin/freelistctl/run.rs";
    let text = read(source).unwrap();
    let (_, arguments) = text.split_once("struct Args {").expect("run has Args");
    let (arguments, _) = arguments.split_once("\n}").expect("it ends");
    let fields = arguments
        .lines()
        .filter_map(|line| line.trim().split_once(": "));
    let mut run: Names = fields
        .map(|(name, _)| name.trim_start_matches("pub(crate) "))
        .filter(|name| !name.contains([' ', '#', '/']))
        .map(|name| name.replace('_', "-"))
        .collect();
    assert!(run.remove("program"));
    let text = read(PAGE).unwrap();
    let page: Names = page::names(&page::items(page::section(&text, "ENVIRONMENT")), "Fl")
        .iter()
        .map(|name| name.trim_start_matches('-').to_owned())
        .collect();
    same("options", (source, &run), (PAGE, &page));
}

#[test]
fn the_tracepoints_of_the_page_are_those_of_the_module() {
    let header = "src/c/freelist_trace.h";
    let text = read(header).unwrap();
    let events = text
        .lines()
        .filter_map(|line| line.strip_prefix("TRACE_EVENT("));
    let events: Names = events
        .map(|name| name.trim_end_matches(',').to_owned())
        .collect();
    let page = read(PAGE).unwrap();
    let (_, rest) = page
        .split_once("/events/freelist/\n")
        .expect("the page has them");
    let item = rest.split("\n.It").next().unwrap_or_default();
    let mut names = page::names(item, "Ql");
    for tool in ["perf", "trace", "trace-cmd", "bpftrace"] {
        assert!(names.remove(tool), "{PAGE}: no {tool}");
    }
    same("tracepoints", (header, &events), (PAGE, &names));
}

#[test]
fn the_kernels_that_freelistctl_supports_are_those_of_the_tests() {
    let versions = read("qemu/versions").unwrap();
    let series = versions
        .lines()
        .filter_map(|line| line.strip_prefix("series "));
    let tested: Names = series.map(|series| series.trim().to_owned()).collect();
    let doctor = read("src/client/src/bin/freelistctl/doctor/checks.rs").unwrap();
    let line = doctor.lines().find(|line| line.starts_with("const SERIES"));
    let (_, value) = line.and_then(|line| line.split_once(" = ")).unwrap();
    let pairs = value
        .split(&['(', ')'][..])
        .filter(|part| part.contains(", ") && !part.starts_with(','));
    let known: Names = pairs.map(|pair| pair.replace(", ", ".")).collect();
    same("series", ("doctor", &known), ("qemu/versions", &tested));
}
