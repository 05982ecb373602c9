// SPDX-License-Identifier: GPL-2.0

//! The coverage of the module by the tests: the points that the compiler put into its file for KCOV, and those
//! of them that the device tests and the fuzzer print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{bail, ensure, Context, Result};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use object::{Object, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{Attribute, ImplItemFn, ItemFn};

/// The function that the compiler calls at a point.
const TRACE: &str = "__sanitizer_cov_trace_pc";
/// Parts of the names of functions that are called when a check fails, which takes a bug of the module: an overflow,
/// an index out of bounds, a violated contract of the library.
const PANICS: [&str; 4] = [
    "4core9panicking",
    "4core6option",
    "4core6result",
    "4core5slice5index",
];
/// The module's sources, by directory.
const SOURCES: &str = "/src/";
/// Files and folders that are left out: the module's own tests, and the check of the engine's invariants, most of
/// whose points report a violation.
const TESTS: [&str; 2] = ["kunit/", "engine/check.rs"];
/// The configuration option under which code is compiled for the module's own tests alone.
const FOR_TESTS: &str = "CONFIG_KUNIT";

/// A point: its section, and the return address of the call there, as KCOV notes it.
type Point = (String, u64);

/// The position of a point in the sources.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A file and a line of the module; 0 if the compiler records none.
    Ours(String, u32),
    /// Code of libraries only, which is compiled into the module: their checks and destructors.
    Library,
    /// A file in [`TESTS`], or a function for tests alone.
    Test,
}

/// The points of the module's code, and those of them that were reached.
#[derive(Default)]
pub struct ModuleCoverage {
    /// The lines of each source file, with the number of points of each, and of those that were reached. A line
    /// that is inlined in many functions has many.
    files: BTreeMap<String, BTreeMap<u32, Tally>>,
    library: Tally,
    /// The points after which only a panic can follow.
    checks: Tally,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    points: usize,
    reached: usize,
}

impl Tally {
    fn count(&mut self, reached: bool) {
        self.points += 1;
        self.reached += usize::from(reached);
    }
}

impl ModuleCoverage {
    /// Reads the module's file and the output of tests.
    pub fn read(module: &Path, printed: &[PathBuf]) -> Result<Self> {
        let mut reached = BTreeSet::new();
        for path in printed {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            reached.extend(parse(&text).with_context(|| path.display().to_string())?);
        }
        ensure!(!reached.is_empty(), "nothing was reached");
        let file = fs::read(module).with_context(|| module.display().to_string())?;
        let mut this = Self::default();
        for (section, points) in points(&file)? {
            let places = places(module, &section, points.keys().copied())?;
            for ((offset, check), place) in points.into_iter().zip(places) {
                let hit = reached.contains(&(section.clone(), offset));
                let tally = match place {
                    Place::Test => continue,
                    _ if check => &mut this.checks,
                    Place::Library => &mut this.library,
                    Place::Ours(file, line) => {
                        this.files.entry(file).or_default().entry(line).or_default()
                    }
                };
                tally.count(hit);
            }
        }
        Ok(this)
    }
}

/// Parses lines `# points SECTION HEX...`.
fn parse(text: &str) -> Result<BTreeSet<Point>> {
    let mut reached = BTreeSet::new();
    for line in text.lines() {
        let Some(points) = line.trim_start().strip_prefix("# points ") else {
            continue;
        };
        let mut words = points.split_whitespace();
        let section = words.next().context("a line of points has no section")?;
        for word in words {
            let offset = u64::from_str_radix(word, 16).with_context(|| word.to_owned())?;
            reached.insert((section.to_owned(), offset));
        }
    }
    Ok(reached)
}

/// Returns the points of each section, each with `true` if it is one of a check.
fn points(file: &[u8]) -> Result<BTreeMap<String, BTreeMap<u64, bool>>> {
    let file = object::File::parse(file)?;
    let mut all = BTreeMap::new();
    for section in file.sections() {
        let mut calls = BTreeMap::new();
        for (offset, relocation) in section.relocations() {
            if let (RelocationKind::PltRelative, RelocationTarget::Symbol(symbol)) =
                (relocation.kind(), relocation.target())
            {
                // The relocation is in the last four bytes of the call or jump.
                calls.insert(offset + 4, file.symbol_by_index(symbol)?.name()?);
            }
        }
        let code = section.data()?;
        let noted = calls.iter().filter(|(_, name)| **name == TRACE);
        let points: BTreeMap<_, _> = noted
            .map(|(point, _)| (*point, panics(code, &calls, *point)))
            .collect();
        if !points.is_empty() {
            all.insert(section.name()?.to_owned(), points);
        }
    }
    ensure!(
        !all.is_empty(),
        "the module has no points: was it built for the debug kernel?"
    );
    Ok(all)
}

/// Returns whether every path from here ends in a panic.
fn panics(code: &[u8], calls: &BTreeMap<u64, &str>, from: u64) -> bool {
    let panics = |name: &&str| PANICS.iter().any(|part| name.contains(part));
    let (mut ways, mut seen) = (vec![from], BTreeSet::new());
    while let Some(mut at) = ways.pop() {
        while seen.insert(at) {
            let Some(rest) = code.get(at as usize..) else {
                return false;
            };
            let instruction = Decoder::with_ip(64, rest, at, DecoderOptions::NONE).decode();
            at = instruction.next_ip();
            let called = calls.get(&at);
            match instruction.flow_control() {
                FlowControl::Call | FlowControl::UnconditionalBranch
                    if called.is_some_and(panics) =>
                {
                    break
                }
                FlowControl::Next | FlowControl::Call => {}
                FlowControl::UnconditionalBranch if called.is_none() => {
                    at = instruction.near_branch_target();
                }
                FlowControl::ConditionalBranch if called.is_none() => {
                    ways.push(instruction.near_branch_target());
                }
                _ => return false,
            }
        }
    }
    true
}

/// Returns the positions in the sources of addresses in a section.
fn places(module: &Path, section: &str, points: impl Iterator<Item = u64>) -> Result<Vec<Place>> {
    let mut child = Command::new("addr2line")
        .args(["--inlines", "--addresses", "--section", section, "--exe"])
        .arg(module)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("addr2line")?;
    // The address of the call itself, not of the instruction after it.
    let asked: Vec<u64> = points.map(|point| point - 1).collect();
    let mut input = child.stdin.take().context("it was piped")?;
    let text: Vec<_> = asked
        .iter()
        .map(|address| format!("{address:#x}"))
        .collect();
    let text = text.join("\n");
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().expect("it does not panic")?;
    ensure!(output.status.success(), "addr2line: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut frames: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        match frames.last_mut() {
            _ if line.starts_with("0x") => frames.push(Vec::new()),
            Some(frames) => frames.push(line),
            None => bail!("addr2line: {line}"),
        }
    }
    ensure!(frames.len() == asked.len(), "addr2line: not a place each");
    let mut functions = Functions::default();
    Ok(frames
        .iter()
        .map(|frames| place(frames, |path, line| functions.are_for_tests(path, line)))
        .collect())
}

/// The functions of source files that only tests call, by file, as they are needed.
#[derive(Default)]
struct Functions(BTreeMap<String, Vec<RangeInclusive<usize>>>);

impl Functions {
    /// Returns whether a line of a file is in one of these; `false` if the file cannot be read.
    fn are_for_tests(&mut self, path: &str, line: u32) -> bool {
        let lines = self.0.entry(path.to_owned()).or_insert_with(|| {
            let text = fs::read_to_string(path).unwrap_or_default();
            for_tests(&text).unwrap_or_default()
        });
        lines.iter().any(|lines| lines.contains(&(line as usize)))
    }
}

/// Returns the lines of the functions in a source file that are for tests alone.
fn for_tests(text: &str) -> syn::Result<Vec<RangeInclusive<usize>>> {
    #[derive(Default)]
    struct Lines(Vec<RangeInclusive<usize>>);

    impl Lines {
        fn see(&mut self, attributes: &[Attribute], span: Span) {
            let is_cfg = |attribute: &&Attribute| attribute.path().is_ident("cfg");
            let mut conditions = attributes
                .iter()
                .filter(is_cfg)
                .filter_map(|attribute| attribute.meta.require_list().ok());
            if conditions.any(|list| list.tokens.to_string().starts_with(FOR_TESTS)) {
                self.0.push(span.start().line..=span.end().line);
            }
        }
    }

    impl Visit<'_> for Lines {
        fn visit_item_fn(&mut self, function: &ItemFn) {
            self.see(&function.attrs, function.span());
        }

        fn visit_impl_item_fn(&mut self, function: &ImplItemFn) {
            self.see(&function.attrs, function.span());
        }
    }

    let mut lines = Lines::default();
    lines.visit_file(&syn::parse_file(text)?);
    Ok(lines.0)
}

/// Returns the position of a point by its frames, `FILE:LINE`, from the inlined function to the one that has the
/// code.
fn place(frames: &[&str], mut is_for_tests: impl FnMut(&str, u32) -> bool) -> Place {
    let ours = |frame: &&str| {
        let (path, line) = frame.split(" (").next()?.rsplit_once(':')?;
        let (_, file) = path.split_once(SOURCES)?;
        (!path.starts_with("/usr/") && !path.starts_with("/kernel/"))
            .then(|| (path.to_owned(), file.to_owned(), line.parse().unwrap_or(0)))
    };
    let is_test = |file: &str| TESTS.iter().any(|test| file.starts_with(test));
    let all: Vec<_> = frames.iter().filter_map(ours).collect();
    if all
        .iter()
        .any(|(path, file, line)| is_test(file) || is_for_tests(path, *line))
    {
        return Place::Test;
    }
    match all.into_iter().next() {
        Some((_, file, line)) => Place::Ours(file, line),
        None => Place::Library,
    }
}

impl Display for ModuleCoverage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (mut all, mut places) = (self.library, Tally::default());
        for (file, lines) in &self.files {
            let mut missed = Vec::new();
            for (line, tally) in lines {
                all.points += tally.points;
                all.reached += tally.reached;
                places.count(tally.reached > 0);
                if tally.reached == 0 {
                    missed.push(line.to_string());
                }
            }
            let (hit, of) = (lines.len() - missed.len(), lines.len());
            let not = if missed.is_empty() { "" } else { "; not: " };
            writeln!(f, "# {file}: {hit} of {of} places{not}{}", missed.join(" "))?;
        }
        let Tally { points, reached } = self.library;
        writeln!(f, "# and {reached} of {points} points of libraries")?;
        let Tally { points, reached } = self.checks;
        writeln!(
            f,
            "# and {reached} of {points} points that only a panic can follow"
        )?;
        let percent = |tally: Tally| tally.reached as f64 * 100.0 / tally.points.max(1) as f64;
        writeln!(f, "# trust: module_points {} points -", all.points)?;
        writeln!(
            f,
            "# trust: module_points_reached {:.1} percent >=90",
            percent(all)
        )?;
        writeln!(f, "# trust: module_places {} places -", places.points)?;
        writeln!(
            f,
            "# trust: module_places_reached {:.1} percent >=90",
            percent(places)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_figures_are_read() {
        let text = "ok 1 a\n    # points .text 1a ff\n# points .init.text 4\n# pointless\n";
        let reached: Vec<_> = parse(text).unwrap().into_iter().collect();
        let point = |section: &str, offset| (section.to_owned(), offset);
        assert_eq!(
            reached,
            [
                point(".init.text", 4),
                point(".text", 0x1a),
                point(".text", 0xff)
            ]
        );
        assert!(parse("# points .text zz").is_err());
        assert!(parse("# points ").is_err());
    }

    #[test]
    fn a_place_is_the_innermost_line_of_ours() {
        let library = "/usr/lib/rustlib/src/rust/library/core/src/option.rs:9";
        let kernel = "/kernel/source/include/linux/mm.h:7";
        let ours = |file: &str, line| Place::Ours(file.to_owned(), line);
        let tree = "/x/src/engine/tree.rs:7 (discriminator 2)";
        let place =
            |frames: &[&str]| place(frames, |path, line| (path, line) == ("/x/src/a.rs", 3));
        assert_eq!(
            place(&[tree, "/x/src/device/fops.rs:1"]),
            ours("engine/tree.rs", 7)
        );
        assert_eq!(
            place(&[library, "/x/src/mm/vma.rs:?"]),
            ours("mm/vma.rs", 0)
        );
        assert_eq!(place(&[library, kernel]), Place::Library);
        assert_eq!(place(&[tree, "/x/src/kunit/page.rs:1"]), Place::Test);
        assert_eq!(place(&[tree, "/x/src/a.rs:2"]), ours("engine/tree.rs", 7));
        assert_eq!(place(&[tree, "/x/src/a.rs:3"]), Place::Test);
    }

    #[test]
    fn functions_for_tests_are_known_by_their_condition() {
        let text = "\
impl A {
    fn used() {}

    /// Returns whether it is.
    #[cfg(CONFIG_KUNIT = \"y\")]
    fn is_it() -> bool {
        true
    }
    #[cfg(CONFIG_COMPAT)]
    fn other() {}
}
#[cfg(CONFIG_KUNIT = \"y\")]
fn new() {}
";
        assert_eq!(for_tests(text).unwrap(), [4..=8, 12..=13]);
    }

    #[test]
    fn a_line_is_reached_if_one_of_its_points_is() {
        let mut points = ModuleCoverage::default();
        let lines = points.files.entry("a.rs".to_owned()).or_default();
        lines.insert(
            1,
            Tally {
                points: 3,
                reached: 1,
            },
        );
        lines.insert(
            2,
            Tally {
                points: 1,
                reached: 0,
            },
        );
        let text = points.to_string();
        assert!(text.contains("# a.rs: 1 of 2 places; not: 2\n"), "{text}");
        assert!(
            text.contains("# trust: module_points_reached 25.0 percent >=90"),
            "{text}"
        );
        assert!(
            text.contains("# trust: module_places_reached 50.0 percent >=90"),
            "{text}"
        );
    }

    #[test]
    fn a_path_that_can_only_panic_is_recognised() {
        // call NEXT; jmp 9; jne 9; nop; ret. 9: call PANIC.
        let code = [
            0xe8, 0, 0, 0, 0, 0xeb, 0x04, 0x75, 0x02, 0x90, 0xc3, 0xe8, 0, 0, 0, 0,
        ];
        let calls = BTreeMap::from([(5, TRACE), (16, "_RNv4core9panicking5panic")]);
        assert!(panics(&code, &calls, 5));
        assert!(!panics(&code, &calls, 7));
        assert!(!panics(&code, &calls, 16));
    }
}
