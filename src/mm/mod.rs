// SPDX-License-Identifier: GPL-2.0

//! Pages, who is charged for them, and where they are mapped: knows no arena.

#![deny(unsafe_code)]

#[expect(unsafe_code)]
pub(crate) mod address_space;
pub(crate) mod backend;
#[expect(unsafe_code)]
pub(crate) mod contiguous;
#[expect(unsafe_code)]
pub(crate) mod memcg;
#[expect(unsafe_code)]
pub(crate) mod metadata;
#[expect(unsafe_code)]
pub(crate) mod page;
#[expect(unsafe_code)]
pub(crate) mod shrinker;
#[expect(unsafe_code)]
pub(crate) mod vma;
