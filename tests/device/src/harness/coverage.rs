// SPDX-License-Identifier: GPL-2.0

//! The points of the module that the tests reach.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;

use freelist_probe::kcov::{Buffer, Buffers};
use freelist_probe::Module;

use crate::kit::module::{load, unload, MODULE};

/// The most tasks of a test that note points at a time; those of others are not seen.
const TASKS: usize = 32;
/// The entries of a buffer; a task fills its 1 MiB in some tens of milliseconds.
const ENTRIES: usize = 1 << 17;
/// The entries of `late`: about as many as the module has bytes.
const LATE: usize = 1 << 18;
/// The offsets in a line of output.
const IN_A_LINE: usize = 64;

/// The points that were reached so far.
pub(super) struct Coverage {
    buffers: Buffers,
    /// The module's addresses when the test began.
    module: Option<Module>,
    /// The addresses that this test reached.
    addresses: HashSet<u64>,
    /// A cache of recent addresses, by their low bits: most addresses come again and again, and a set is
    /// slow.
    late: Vec<u64>,
    /// The offsets that all tests reached, by section.
    reached: BTreeMap<String, BTreeSet<u64>>,
    /// The number of times that a buffer was full.
    full: usize,
}

impl Coverage {
    /// Loads the module anew, so that the points of loading count too.
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

    /// Counts the points that this process itself has reached.
    fn count(&mut self, module: Option<Module>, own: &Buffer) {
        let addresses = &mut self.addresses;
        own.drain(|address| {
            addresses.insert(address);
        });
        self.resolve(module);
    }

    /// Returns the environment variable for a test.
    pub(super) fn variable(&self) -> (&'static str, String) {
        self.buffers.variable()
    }

    /// Begins a test.
    pub(super) fn begin(&mut self) {
        self.module = Module::loaded();
    }

    /// Reads the points that were noted since, which empties the buffers.
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

    /// Ends a test. The points of a test that loads the module anew are not counted, as an address may be two
    /// positions.
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

    /// Finds the positions of the addresses in the module's file.
    fn resolve(&mut self, module: Option<Module>) {
        let module = module.as_ref();
        for address in self.addresses.drain() {
            if let Some(place) = module.and_then(|module| module.place(address)) {
                let section = self.reached.entry(place.section.to_owned()).or_default();
                section.insert(place.offset);
            }
        }
    }

    /// Returns the points in the form for `freelist-report module-coverage`.
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
