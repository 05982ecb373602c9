// SPDX-License-Identifier: GPL-2.0

//! What is behind an open file.

use crate::{
    arena::{
        registry::Registry,
        Arena, //
    },
    debug::files::ArenaFiles,
    ffi::{
        debugfs::Dir,
        race_point::RacePoint, //
    },
    mm::{
        memcg::Memcg,
        shrinker::Member, //
    }, //
};
use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::Arc,
    types::ForeignOwnable, //
};

/// An arena of its own, on the list of all of them until the file is closed.
pub(crate) struct OpenFile {
    files: ArenaFiles,
    arena: Arc<Arena>,
    member: Member<Arena>,
    registry: Arc<Registry>,
}

impl OpenFile {
    /// Opens an arena that `memcg` pays for.
    fn new(memcg: Memcg, registry: &Arc<Registry>, dir: &Dir) -> Result<Self> {
        let arena = registry.open(memcg)?;
        RacePoint::Open.reach();
        let around = || -> Result<_> {
            let files = ArenaFiles::new(dir, &arena)?;
            let memcg = arena.memcg().as_ptr();
            // SAFETY: The shrinker is there as long as the device, and that as long as a file of it. The
            // cgroup is the arena's.
            Ok((files, unsafe { Member::new(arena.clone(), memcg) }?))
        };
        // An arena that is listed has to be closed: nothing else may fail from here on.
        let around = arena.memcg().charge(around);
        let (files, member) = around.inspect_err(|_| registry.close(&arena))?;
        Ok(Self {
            files,
            arena,
            member,
            registry: registry.clone(),
        })
    }

    /// Opens an arena and puts it into a file. `ENOMEM` when memory is short.
    ///
    /// # Safety
    ///
    /// `file` is being opened: nobody else sees it.
    pub(crate) unsafe fn open(
        file: *mut bindings::file,
        registry: &Arc<Registry>,
        dir: &Dir,
    ) -> Result {
        // All of it is one account's, also where a thread is in another cgroup than its process.
        let memcg = Memcg::of_caller();
        let place = memcg.charge(|| KBox::<Self>::new_uninit(GFP_KERNEL_ACCOUNT))?;
        let this = place.write(Self::new(memcg, registry, dir)?);
        // SAFETY: It is empty, and of arenas. All memory has left when `Registry::close` returns, and the
        // arena is dropped after that.
        unsafe { this.arena.address_space().set_owner(&raw const *this.arena) };
        // SAFETY: By the caller's promise. A file outlives what is behind it only as far as `close`.
        unsafe { this.arena.address_space().attach(file) };
        // SAFETY: By the caller's promise.
        unsafe { (*file).private_data = this.into_foreign().cast() };
        Ok(())
    }

    /// What is behind `file`.
    ///
    /// # Safety
    ///
    /// [`OpenFile::open`] has opened it.
    pub(crate) unsafe fn of(file: &File) -> &Arena {
        // SAFETY: By the caller's promise it is there; `close` comes when nobody has the file any more.
        unsafe { &KBox::<Self>::borrow((*file.as_ptr()).private_data.cast()).arena }
    }

    /// Closes the arena of a file.
    ///
    /// # Safety
    ///
    /// [`OpenFile::open`] has opened it, and this is the last that is heard of it.
    pub(crate) unsafe fn close(file: *mut bindings::file) {
        // SAFETY: By the caller's promise it is there, and nobody else has it.
        let this = unsafe { KBox::<Self>::from_foreign((*file).private_data.cast()) };
        let Self {
            files,
            arena,
            member,
            registry,
        } = KBox::into_inner(this);
        // Nobody looks at what ends, nor shrinks it.
        drop(files);
        drop(member);
        registry.close(&arena);
    }
}
