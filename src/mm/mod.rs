// SPDX-License-Identifier: GPL-2.0

//! Pages, who is charged for them, and where they are mapped: knows no arena.

pub(crate) mod address_space;
pub(crate) mod backend;
pub(crate) mod contiguous;
pub(crate) mod memcg;
pub(crate) mod metadata;
pub(crate) mod page;
pub(crate) mod shrinker;
pub(crate) mod vma;
