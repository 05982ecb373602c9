// SPDX-License-Identifier: GPL-2.0-only

//! The module's files in debugfs.

use super::show;
use crate::{
    arena::{
        registry::Registry,
        Arena, //
    },
    ffi::debugfs::{
        Command,
        Dir,
        ReadFile,
        WriteFile, //
    }, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// The module's directory in debugfs, with its files.
pub(crate) struct Files {
    _stats: ReadFile<show::Stats>,
    _classes: ReadFile<show::ByClass>,
    _arenas: ReadFile<show::Arenas>,
    #[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
    _check: ReadFile<super::check::Check>,
    #[cfg(CONFIG_FAULT_INJECTION)]
    _delays: Dir,
    #[cfg(freelist_bench)]
    _bench: ReadFile<super::bench::Costs>,
    each: Dir,
}

impl Files {
    /// Creates the directory and its files. Fails with `ENOMEM` when memory is short. May sleep.
    pub(crate) fn new(registry: &Arc<Registry>) -> Result<Self> {
        let dir = Dir::new(c"freelist", None)?;
        Ok(Self {
            _stats: ReadFile::new(c"stats", &dir, registry.clone()),
            _classes: ReadFile::new(c"classes", &dir, registry.clone()),
            _arenas: ReadFile::new(c"arenas", &dir, registry.clone()),
            #[cfg(any(CONFIG_FAULT_INJECTION, CONFIG_KUNIT = "y"))]
            _check: ReadFile::new(c"check", &dir, registry.clone()),
            #[cfg(CONFIG_FAULT_INJECTION)]
            _delays: crate::ffi::race_point::RacePoint::files(&dir)?,
            #[cfg(freelist_bench)]
            _bench: ReadFile::new(c"bench", &dir, registry.clone()),
            each: Dir::new(c"arenas.d", Some(&dir))?,
        })
    }

    /// Returns the directory `arenas.d`, which has a directory for each arena.
    pub(crate) fn each(&self) -> &Dir {
        &self.each
    }
}

/// An arena's directory in debugfs, with its files.
pub(crate) struct ArenaFiles {
    _map: ReadFile<show::Map>,
    _trim: WriteFile<Trim>,
}

impl ArenaFiles {
    /// Creates the directory of an arena in `each`, with its files. Fails with `ENOMEM` when memory is
    /// short. May sleep.
    pub(crate) fn new(each: &Dir, arena: &Arc<Arena>) -> Result<Self> {
        let name = CString::try_from_fmt(fmt!("{}", arena.id()))?;
        let dir = Dir::new(&name, Some(each))?;
        Ok(Self {
            _map: ReadFile::new(c"map", &dir, arena.clone()),
            _trim: WriteFile::new(c"trim", &dir, arena.clone()),
        })
    }
}

/// The file `arenas.d/ID/trim`: trims the arena until at most the written number of bytes is held in
/// wholly free pages.
struct Trim;

impl Command for Trim {
    type Of = Arena;

    fn run(arena: &Arena, keep: u64) -> Result {
        arena.trim(keep);
        Ok(())
    }
}
