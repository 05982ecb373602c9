// SPDX-License-Identifier: GPL-2.0

//! Sources with mutants in them.

use std::ops::Range;

use anyhow::{ensure, Context, Result};

use crate::list::{Mutant, Position, Span};

/// A source file, with the positions of its lines.
pub struct Source {
    text: String,
    /// The beginning of each line, in bytes.
    lines: Vec<usize>,
}

/// A function with mutants: its body, and their numbers.
struct Function {
    /// The range between its braces.
    body: Range<usize>,
    mutants: Vec<usize>,
}

/// A source with mutants in it.
pub struct Woven {
    pub text: String,
    /// The lines of each mutant; they count from 1.
    pub lines: Vec<(Range<usize>, usize)>,
}

impl Source {
    pub fn new(text: String) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = [0].into_iter().chain(ends).collect();
        Self { text, lines }
    }

    fn offset(&self, position: Position) -> Result<usize> {
        let begin = self.lines.get(position.line - 1).context("no such line")?;
        let mut columns = self.text[*begin..].char_indices();
        let (within, _) = columns.nth(position.column - 1).context("no such column")?;
        Ok(begin + within)
    }

    fn range(&self, span: Span) -> Result<Range<usize>> {
        Ok(self.offset(span.start)?..self.offset(span.end)?)
    }

    /// Returns the ranges of a function's signature and body.
    fn parts(&self, span: Span) -> Result<(Range<usize>, Range<usize>)> {
        let whole = self.range(span)?;
        let mut at = whole.start;
        // Comments and attributes may have braces.
        for line in self.text[whole.clone()].split_inclusive('\n') {
            if !["//", "#["]
                .iter()
                .any(|mark| line.trim_start().starts_with(mark))
            {
                break;
            }
            at += line.len();
        }
        let open = self.text[at..whole.end]
            .find('{')
            .context("a function has no body")?;
        ensure!(self.text[..whole.end].ends_with('}'), "a body has no end");
        Ok((at..at + open, at + open + 1..whole.end - 1))
    }

    /// Returns whether a mutant can be in a program beside others: it changes a function's body, and the
    /// function is not `const` and returns a type that has a name.
    pub fn can_be_chosen(&self, mutant: &Mutant) -> Result<bool> {
        let Some(function) = &mutant.function else {
            return Ok(false);
        };
        let (signature, body) = self.parts(function.span)?;
        let span = self.range(mutant.span)?;
        let signature = &self.text[signature];
        Ok(body.start <= span.start
            && span.end <= body.end
            && !signature.contains("const fn")
            && !signature.contains("-> impl")
            && !self.text[body].contains(" fn "))
    }

    /// Returns the piece that a mutant replaces.
    pub fn piece(&self, mutant: &Mutant) -> Result<&str> {
        Ok(&self.text[self.range(mutant.span)?])
    }

    /// Returns a piece of the source with a mutant in it.
    fn changed(&self, mutant: &Mutant, piece: Range<usize>) -> Result<String> {
        let span = self.range(mutant.span)?;
        ensure!(
            piece.start <= span.start && span.end <= piece.end,
            "{}: it is not in its function",
            mutant.full_name()
        );
        let (before, after) = (piece.start..span.start, span.end..piece.end);
        Ok([&self.text[before], &mutant.replacement, &self.text[after]].concat())
    }

    /// Returns the source with one mutant.
    pub fn with(&self, mutant: &Mutant) -> Result<String> {
        self.changed(mutant, 0..self.text.len())
    }

    /// Returns the source with all of `ids`, of which the environment selects one at a time.
    pub fn with_all(&self, mutants: &[Mutant], ids: &[usize]) -> Result<Woven> {
        let mut functions: Vec<Function> = Vec::new();
        for id in ids {
            let function = mutants[*id]
                .function
                .as_ref()
                .context("the mutant has no function")?;
            let (_, body) = self.parts(function.span)?;
            match functions.iter_mut().find(|other| other.body == body) {
                Some(function) => function.mutants.push(*id),
                None => functions.push(Function {
                    body,
                    mutants: vec![*id],
                }),
            }
        }
        functions.sort_by_key(|function| function.body.start);
        let mut woven = Woven {
            text: String::new(),
            lines: Vec::new(),
        };
        let mut line = 1;
        let mut at = 0;
        let mut put = |text: &str| {
            woven.text += text;
            line += text.matches('\n').count();
            line
        };
        for Function { body, mutants: ids } in functions {
            put(&self.text[at..body.start]);
            put("match crate::changed::id() {\n");
            for id in ids {
                let begin = put(&format!("{id} => {{"));
                let end = put(&self.changed(&mutants[id], body.clone())?);
                woven.lines.push((begin..end + 1, id));
                put("}\n");
            }
            put("_ => {");
            put(&self.text[body.clone()]);
            put("}}\n");
            at = body.end;
        }
        put(&self.text[at..]);
        Ok(woven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::mutant;

    const TEXT: &str = "\
        /// Adds { to }.\n\
        fn add(a: u8, b: u8) -> u8 {\n    a + b\n}\n\
        const fn two() -> u8 {\n    2\n}\n";

    fn span(start: (usize, usize), end: (usize, usize)) -> Span {
        let [start, end] = [start, end].map(|(line, column)| Position { line, column });
        Span { start, end }
    }

    fn mutants() -> [Mutant; 3] {
        let add = span((1, 1), (4, 2));
        [
            mutant(add, span((3, 5), (3, 10)), "0"),
            mutant(add, span((3, 7), (3, 8)), "-"),
            mutant(span((5, 1), (7, 2)), span((6, 5), (6, 6)), "1"),
        ]
    }

    #[test]
    fn a_function_has_all_of_its_changes() {
        let source = Source::new(TEXT.to_owned());
        let woven = source.with_all(&mutants(), &[0, 1]).unwrap();
        let text: String = woven.text.split_whitespace().collect();
        assert!(
            text.contains(
                "match crate::changed::id() { 0 => {0} 1 => {a-b} _ => {a+b} } }"
                    .replace(' ', "")
                    .as_str()
            ),
            "{}",
            woven.text
        );
        assert!(text.ends_with("constfntwo()->u8{2}"));
        for (lines, id) in woven.lines {
            let lines: Vec<_> = woven
                .text
                .lines()
                .skip(lines.start - 1)
                .take(lines.len())
                .collect();
            assert!(
                lines.concat().contains(["0\n", "a - b"][id].trim_end()),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_constant_function_is_changed_alone() {
        let source = Source::new(TEXT.to_owned());
        let [add, _, two] = mutants();
        assert!(source.can_be_chosen(&add).unwrap() && !source.can_be_chosen(&two).unwrap());
        assert!(source.with(&two).unwrap().ends_with("{\n    1\n}\n"));
    }
}
