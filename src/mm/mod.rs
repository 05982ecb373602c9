// SPDX-License-Identifier: GPL-2.0-only

//! The memory of an address space, the cgroup that it is charged to, and its mappings. Knows no arena.

#![deny(unsafe_code)]

#[expect(unsafe_code)]
pub(crate) mod address_space;
pub(crate) mod backend;
#[expect(unsafe_code)]
mod copy;
#[expect(unsafe_code)]
pub(crate) mod folio;
#[expect(unsafe_code)]
pub(crate) mod memcg;
#[expect(unsafe_code)]
pub(crate) mod metadata;
#[expect(unsafe_code)]
mod removal;
#[expect(unsafe_code)]
pub(crate) mod shrinker;
#[expect(unsafe_code)]
pub(crate) mod statistics;
#[expect(unsafe_code)]
pub(crate) mod vma;
