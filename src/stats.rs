// SPDX-License-Identifier: GPL-2.0

//! What debugfs shows.

use crate::{
    counts::Classes,
    ffi::raw::freelist_stat,
    registry::Registry, //
};
use kernel::{
    fmt,
    sync::Arc, //
};

/// debugfs `stats`: a name and a value a line.
pub(crate) fn write_stats(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (arenas, sum) = registry.snapshot();
    let stat = freelist_stat {
        limit_bytes: registry.limit().bytes(),
        ..sum.stat()
    };
    macro_rules! lines {
        ($($name:ident)*) => {$( writeln!(f, "{} {}", stringify!($name), stat.$name)?; )*};
    }
    writeln!(f, "arenas {arenas}")?;
    lines! {
        live_blocks live_bytes free_bytes held_bytes metadata_bytes limit_bytes
        requested_bytes allocs frees grows splits merges waits timeouts trims shrinks failures
    }
    for (name, count) in sum.failures() {
        writeln!(f, "failures_{name} {count}")?;
    }
    Ok(())
}

/// debugfs `classes`: a row a size class. Sizes are in bytes.
pub(crate) fn write_classes(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut classes = Classes::new().map_err(|_| fmt::Error)?;
    registry.classes(&mut classes);
    writeln!(
        f,
        "{:>5} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "shift", "size", "live", "free", "held", "splits", "merges", "grows", "waits", "largest"
    )?;
    for (shift, class) in classes.iter() {
        writeln!(
            f,
            "{:>5} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
            shift,
            1u64 << shift,
            class.live,
            class.free,
            class.held,
            class.splits,
            class.merges,
            class.grows,
            0,
            class.largest
        )?;
    }
    Ok(())
}
