// SPDX-License-Identifier: GPL-2.0

//! The client's own files, built as modules of this crate.

#[path = "../../../src/client/src/heap/central.rs"]
pub(crate) mod central;
#[path = "../../../src/client/src/heap/class.rs"]
pub(crate) mod class;
#[path = "../../../src/client/src/heap/magazine.rs"]
pub(crate) mod magazine;
#[path = "../../../src/client/src/heap/pool.rs"]
pub(crate) mod pool;
#[path = "../../../src/client/src/heap/slab.rs"]
pub(crate) mod slab;
#[path = "../../../src/client/src/heap/table.rs"]
pub(crate) mod table;
