// SPDX-License-Identifier: GPL-2.0

//! Each folder of the module uses only those before it in the list of `src/freelist_main.rs`.

use std::path::Path;

use freelist_layers::{File, Root, Tree};

/// The folders of the module, each of which uses itself and those before it.
const ORDER: [&str; 7] = ["engine", "ffi", "mm", "arena", "debug", "device", "kunit"];
/// The folders of `src/` that are not part of the module's tree of Rust files.
const BESIDE: [&str; 4] = ["c", "client", "man", "uapi"];
/// The files that lie in `src/` itself: the root, and the loaded module, which uses all.
const ROOT: &str = "freelist_main.rs";
const MODULE: &str = "module.rs";

fn tree() -> Tree {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    Tree::read(&top, &BESIDE).unwrap()
}

fn place(folder: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == folder)
}

/// Returns the paths of a file that `are_wrong` selects, as lines with their positions.
fn wrong(file: &File, are_wrong: impl Fn(Root, &str) -> bool) -> Vec<String> {
    let paths = file.paths.iter();
    paths
        .filter(|path| are_wrong(path.root, &path.name))
        .map(|path| format!("src/{}:{}: uses {}", file.name, path.line, path.name))
        .collect()
}

#[test]
fn each_folder_uses_only_those_above_it() {
    let mut bad = Vec::new();
    let mut used = 0;
    for file in tree().files {
        let Some(folder) = &file.folder else { continue };
        let own = place(folder).unwrap_or_else(|| panic!("src/{}: not in the order", file.name));
        used += file
            .paths
            .iter()
            .filter(|path| path.root == Root::Crate)
            .count();
        bad.extend(wrong(&file, |root, name| {
            root == Root::Crate && place(name).is_none_or(|used| used > own)
        }));
    }
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
    assert!(used > 100, "{used} paths are less than the module has");
}

#[test]
fn the_engine_knows_nothing_but_itself() {
    let files = tree().files.into_iter();
    let engine = files.filter(|file| file.folder.as_deref() == Some("engine"));
    let bad: Vec<_> = engine.flat_map(|file| wrong(&file, |_, _| true)).collect();
    assert!(bad.is_empty(), "\n{}\n", bad.join("\n"));
}

#[test]
fn every_file_has_its_folder_and_comes_into_the_module_by_its_name() {
    let tree = tree();
    let mut folders: Vec<_> = ORDER.iter().chain(&BESIDE).copied().collect();
    folders.sort_unstable();
    assert_eq!(tree.folders, folders);
    let flat = tree.files.iter().filter(|file| file.folder.is_none());
    assert_eq!(
        flat.map(|file| &*file.name).collect::<Vec<_>>(),
        [ROOT, MODULE]
    );
    let files = tree.files.iter();
    let bad: Vec<_> = files
        .flat_map(|file| wrong(file, |root, _| root == Root::File))
        .collect();
    assert!(bad.is_empty(), "#[path] in\n{}\n", bad.join("\n"));
}

#[test]
fn the_root_file_maps_the_folders_in_their_order() {
    assert_eq!(tree().map(ROOT).unwrap(), ORDER);
}
