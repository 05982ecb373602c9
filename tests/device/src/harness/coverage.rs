// SPDX-License-Identifier: GPL-2.0

//! Which points of the module the tests reach.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;

use freelist_probe::kcov::{Buffer, Buffers};
use freelist_probe::Module;

use crate::kit::module::{load, unload, MODULE};

/// As many tasks of a test note at a time; what others reach is not seen.
const TASKS: usize = 32;
/// A task fills 1 MiB in some tens of milliseconds.
const ENTRIES: usize = 1 << 17;
/// As many addresses as the module has bytes, about.
const LATE: usize = 1 << 18;
/// Offsets in a line.
const IN_A_LINE: usize = 64;

/// What was reached so far.
pub(super) struct Coverage {
    buffers: Buffers,
    /// Where the module lay when the test began.
    module: Option<Module>,
    /// What this test reached.
    addresses: HashSet<u64>,
    /// Addresses that were seen of late, each where its low bits say: most come again and again,
    /// and a set is slow.
    late: Vec<u64>,
    /// What all reached: offsets by section.
    reached: BTreeMap<String, BTreeSet<u64>>,
    /// How often a buffer was full.
    full: usize,
}

impl Coverage {
    /// Unloads the module and loads it again: what is reached then counts too.
    pub(super) fn new() -> io::Result<Self> {
        let mut this = Self {
            buffers: Buffers::new(TASKS, ENTRIES)?,
            module: None,
            addresses: HashSet::new(),
            late: vec![0; LATE],
            reached: BTreeMap::new(),
            full: 0,
        };
        let own = Buffer::new(ENTRIES)?;
        own.enable()?;
        let file = File::open(MODULE)?;
        let before = Module::loaded();
        unload();
        this.count(before, &own);
        load(&file)?;
        this.count(Module::loaded(), &own);
        Ok(this)
    }

    /// Counts what this process itself has reached.
    fn count(&mut self, module: Option<Module>, own: &Buffer) {
        let addresses = &mut self.addresses;
        own.drain(|address| {
            addresses.insert(address);
        });
        self.resolve(module);
    }

    /// For the environment of a test.
    pub(super) fn variable(&self) -> (&'static str, String) {
        self.buffers.variable()
    }

    /// A test begins.
    pub(super) fn begin(&mut self) {
        self.module = Module::loaded();
    }

    /// Takes what was noted since, so that there is room.
    pub(super) fn collect(&mut self) {
        let Self {
            addresses, late, ..
        } = self;
        self.full += self.buffers.drain(|address| {
            let place = &mut late[address as usize % LATE];
            if *place != address {
                *place = address;
                addresses.insert(address);
            }
        });
    }

    /// The test has ended. What one reached that loaded the module anew is not counted: the same
    /// address may have been two places.
    pub(super) fn end(&mut self) {
        self.collect();
        self.late.fill(0);
        let module = self.module.take();
        if Module::loaded() == module {
            self.resolve(module);
        } else {
            self.addresses.clear();
        }
    }

    /// Finds where in the module's file the addresses are.
    fn resolve(&mut self, module: Option<Module>) {
        let module = module.as_ref();
        for address in self.addresses.drain() {
            if let Some(place) = module.and_then(|module| module.place(address)) {
                let section = self.reached.entry(place.section.to_owned()).or_default();
                section.insert(place.offset);
            }
        }
    }

    /// What was reached, in words for `freelist-report module-coverage`.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let sections = self.reached.iter().flat_map(|(section, offsets)| {
            let offsets: Vec<_> = offsets
                .iter()
                .map(|offset| format!(" {offset:x}"))
                .collect();
            let lines = offsets.chunks(IN_A_LINE).map(|some| some.concat());
            lines
                .map(|some| format!("points {section}{some}"))
                .collect::<Vec<_>>()
        });
        let full =
            (self.full > 0).then(|| format!("a buffer of KCOV was full {} times", self.full));
        sections.chain(full)
    }
}
