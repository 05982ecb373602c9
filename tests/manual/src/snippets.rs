// SPDX-License-Identifier: GPL-2.0

//! Programs in README and in the manual pages, as they stand in the text.
//!
//! In Markdown a program is a fenced block with the info string of its language; `console` (commands
//! for the reader's machine) and `text` (the output of a command) are none. In mdoc it is a literal
//! display, and its language is known by its first line.

use anyhow::{bail, Result};

/// The language of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C11.
    C,
    /// Rust, with the crate `freelist`.
    Rust,
    /// Python 3, with its standard library.
    Python,
    /// The shell of POSIX, with `freelistctl`.
    Shell,
}

impl Language {
    /// Returns the ending of a file's name in that language.
    pub fn ending(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Rust => "rs",
            Language::Python => "py",
            Language::Shell => "sh",
        }
    }

    /// Returns the language of a block in Markdown; `None` for one that is no program. Fails for an
    /// unknown info string.
    fn of_info(info: &str) -> Result<Option<Self>> {
        Ok(match info {
            "c" => Some(Language::C),
            "rust" => Some(Language::Rust),
            "python" => Some(Language::Python),
            "sh" => Some(Language::Shell),
            "console" | "text" => None,
            _ => bail!("```{info}: not one of c, rust, python, sh, console, text"),
        })
    }

    /// Returns the language of a display in mdoc. Fails if it is not known by its first line.
    fn of_text(text: &str) -> Result<Self> {
        let first = text.lines().next().unwrap_or_default();
        Ok(match first {
            "#!/bin/sh" => Language::Shell,
            _ if first.starts_with("#include") => Language::C,
            _ if first.starts_with("use ") || first.starts_with("#[") => Language::Rust,
            _ if first.starts_with("import ") => Language::Python,
            _ => bail!("no language begins with {first:?}"),
        })
    }
}

/// A program in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// The language of the program.
    pub language: Language,
    /// The line of the text where it begins, from 1.
    pub line: usize,
    /// The program, each line ended by a newline.
    pub text: String,
}

/// Returns the programs of `text`, which is Markdown. Fails for a block of an unknown language and for
/// one that does not end.
pub fn in_markdown(text: &str) -> Result<Vec<Snippet>> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let body = until(&mut lines, number, "```")?;
        if let Some(language) = Language::of_info(info)? {
            found.push(Snippet {
                language,
                line: number + 2,
                text: body,
            });
        }
    }
    Ok(found)
}

/// Returns the programs of `text`, a manual page in mdoc. Fails for a display of an unknown
/// language and for one that does not end.
pub fn in_page(text: &str) -> Result<Vec<Snippet>> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if !line.starts_with(".Bd -literal") {
            continue;
        }
        let body = until(&mut lines, number, ".Ed")?;
        // An escaped backslash, as a reader sees it.
        let body = body.replace("\\e", "\\");
        found.push(Snippet {
            language: Language::of_text(&body)?,
            line: number + 2,
            text: body,
        });
    }
    Ok(found)
}

/// Returns the lines up to `end`. Fails if there is no such line after line `from`.
fn until<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    from: usize,
    end: &str,
) -> Result<String> {
    let mut body = String::new();
    for (_, line) in lines {
        if line == end {
            return Ok(body);
        }
        body += line;
        body.push('\n');
    }
    bail!("line {}: no {end} after it", from + 1)
}

/// Returns the programs of the file `name` of this clone.
pub fn of_file(name: &str) -> Result<Vec<Snippet>> {
    let text = crate::read(name)?;
    if name.ends_with(".md") {
        in_markdown(&text)
    } else {
        in_page(&text)
    }
}

/// Returns the files of this clone that have programs for readers.
pub fn sources() -> Result<Vec<String>> {
    let mut names = vec!["README.md".to_owned()];
    let pages = crate::files("src/man", "")?;
    names.extend(
        pages
            .into_iter()
            .filter(|name| name.ends_with(|c: char| c.is_ascii_digit())),
    );
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_with_language_and_line() {
        let text = "a\n```c\nint x;\n```\n```console\n$ make\n```\n```python\nimport os\n```\n";
        let found = in_markdown(text).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|s| (s.language, s.line, &*s.text))
            .collect();
        let wanted = [
            (Language::C, 3, "int x;\n"),
            (Language::Python, 9, "import os\n"),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn an_unknown_language_and_an_open_block_are_errors() {
        assert!(in_markdown("```\nx\n```\n").is_err());
        assert!(in_markdown("```c\nint x;\n").is_err());
        assert!(in_page(".Bd -literal\nwhat\n.Ed\n").is_err());
        assert!(in_page(".Bd -literal\n#include <a.h>\n").is_err());
    }

    #[test]
    fn a_literal_display_is_read_without_its_escapes() {
        let found =
            in_page(".Bd -literal -compact\n#include <a.h>\nputs(\"\\en\");\n.Ed\n").unwrap();
        assert_eq!(found[0].text, "#include <a.h>\nputs(\"\\n\");\n");
    }
}
