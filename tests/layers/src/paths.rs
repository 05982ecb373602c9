// SPDX-License-Identifier: GPL-2.0

//! The paths of a source file that leave its folder.

use std::iter::Peekable;

use anyhow::{anyhow, ensure, Result};
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// The beginning of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// The root of the crate, by `crate` or by enough `super`.
    Crate,
    /// The `kernel` crate.
    Kernel,
    /// Another file, by `#[path = "..."]`.
    File,
}

/// A path that leaves its folder, up to its first name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The beginning.
    pub root: Root,
    /// The first name after that; empty for [`Root::File`].
    pub name: String,
    /// The line, from 1.
    pub line: usize,
}

/// Returns the paths of `text`, a source file whose module is `depth` below the root of the crate (1
/// for `folder/mod.rs`): those of `use` lines, and those inside of code and macros.
///
/// Fails for a text that is not Rust, and for a `super` beyond the root.
pub fn paths(text: &str, depth: usize) -> Result<Vec<Path>> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
    let mut paths = Vec::new();
    read(tokens, depth, &mut paths)?;
    Ok(paths)
}

type Tokens = Peekable<proc_macro2::token_stream::IntoIter>;

fn read(tokens: TokenStream, depth: usize, paths: &mut Vec<Path>) -> Result<()> {
    let mut tokens: Tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "mod" => read_mod(&mut tokens, depth, paths)?,
            TokenTree::Ident(word) => read_path(&word, &mut tokens, depth, paths)?,
            TokenTree::Group(group) => {
                let first = group.stream().into_iter().next();
                let is_path = matches!(&first, Some(TokenTree::Ident(word)) if word == "path");
                if is_path && group.delimiter() == Delimiter::Bracket {
                    paths.push(Path {
                        root: Root::File,
                        name: String::new(),
                        line: group.span_open().start().line,
                    });
                }
                read(group.stream(), depth, paths)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads the tokens after `mod`: a module inside of the file is one deeper.
fn read_mod(tokens: &mut Tokens, depth: usize, paths: &mut Vec<Path>) -> Result<()> {
    tokens.next();
    if let Some(TokenTree::Group(body)) =
        tokens.next_if(|token| matches!(token, TokenTree::Group(_)))
    {
        read(body.stream(), depth + 1, paths)?;
    }
    Ok(())
}

/// Reads the path that begins with `word`, if one does.
fn read_path(word: &Ident, tokens: &mut Tokens, depth: usize, paths: &mut Vec<Path>) -> Result<()> {
    let line = word.span().start().line;
    let root = match word.to_string().as_str() {
        "crate" => Root::Crate,
        "kernel" => Root::Kernel,
        "super" => {
            let mut up = 1;
            while is_separator(tokens) {
                if tokens
                    .next_if(|token| matches!(token, TokenTree::Ident(word) if word == "super"))
                    .is_none()
                {
                    ensure!(up <= depth, "line {line}: super beyond the crate");
                    if up == depth {
                        read_names(Root::Crate, tokens, paths);
                    }
                    return Ok(());
                }
                up += 1;
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    if is_separator(tokens) {
        read_names(root, tokens, paths);
    }
    Ok(())
}

/// Skips `::`. Returns whether it was there.
fn is_separator(tokens: &mut Tokens) -> bool {
    let colon =
        |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':');
    tokens.next_if(colon).is_some() && tokens.next_if(colon).is_some()
}

/// Adds the next name, or those of a group in braces.
fn read_names(root: Root, tokens: &mut Tokens, paths: &mut Vec<Path>) {
    let mut add = |name: &Ident| {
        paths.push(Path {
            root,
            name: name.to_string(),
            line: name.span().start().line,
        });
    };
    match tokens.next() {
        Some(TokenTree::Ident(name)) => add(&name),
        Some(TokenTree::Group(group)) => {
            let mut begins = true;
            for token in group.stream() {
                match &token {
                    TokenTree::Ident(name) if begins => add(name),
                    TokenTree::Punct(mark) if mark.as_char() == ',' => {
                        begins = true;
                        continue;
                    }
                    _ => {}
                }
                begins = false;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, depth: usize) -> Vec<(Root, String, usize)> {
        let paths = paths(text, depth).unwrap();
        paths
            .into_iter()
            .map(|path| (path.root, path.name, path.line))
            .collect()
    }

    fn of_crate(name: &str, line: usize) -> (Root, String, usize) {
        (Root::Crate, name.to_owned(), line)
    }

    #[test]
    fn a_use_line_names_every_folder_of_a_group() {
        let text = "use crate::{\n    arena::{\n        wait::Deadline,\n        Arena, //\n    },\n    ffi, //\n};\n";
        assert_eq!(names(text, 2), [of_crate("arena", 2), of_crate("ffi", 6)]);
        assert_eq!(names("use crate::mm::page::Page;", 2), [of_crate("mm", 1)]);
    }

    #[test]
    fn a_path_inside_of_code_or_of_a_macro_counts() {
        let text = "fn f() -> crate::a::B {\n    print!(\"{}\", crate::c::D);\n}\n";
        assert_eq!(names(text, 2), [of_crate("a", 1), of_crate("c", 2)]);
    }

    #[test]
    fn a_visibility_or_a_comment_is_no_path() {
        let text = "//! crate::a\n/// crate::b\npub(crate) fn f() {} // crate::c\n";
        assert_eq!(names(text, 2), []);
    }

    #[test]
    fn super_counts_where_it_reaches_the_root() {
        assert_eq!(names("use super::state::State;", 2), []);
        assert_eq!(names("use super::super::mm::Page;", 2), [of_crate("mm", 1)]);
        assert_eq!(names("use super::{mm, ffi};", 1).len(), 2);
        assert_eq!(
            names("mod inside {\n    use super::super::state;\n}\n", 2),
            []
        );
        assert_eq!(
            names("mod inside {\n    use super::super::super::mm;\n}\n", 2),
            [of_crate("mm", 2)]
        );
        assert!(paths("use super::super::super::mm;", 2).is_err());
    }

    #[test]
    fn the_kernel_and_other_files_are_seen() {
        let kernel = (Root::Kernel, "prelude".to_owned(), 1);
        assert_eq!(names("use kernel::prelude::*;", 2), [kernel]);
        let file = (Root::File, String::new(), 1);
        assert_eq!(names("#[path = \"../a.rs\"]\nmod a;\n", 2), [file]);
    }
}
