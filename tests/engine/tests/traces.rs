// SPDX-License-Identifier: GPL-2.0

//! Recorded traces of real programs against the engine: what is held at the peak for what was
//! asked for. The figures are printed (`cargo test -- --nocapture`) and held against a bound.

use flate2::read::GzDecoder;
use freelist_engine::engine::Request;
use freelist_engine::host::Arena;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Peak of the bytes asked for, and of the bytes held.
fn replay<const KIB: usize>(name: &str) -> (u64, u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../traces")
        .join(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut arena = Arena::<KIB>::new(16 << 20);
    arena.checked = false;
    let mut live: HashMap<u64, (u64, u64)> = HashMap::new();
    let (mut requested, mut peak, mut held) = (0, 0, 0);
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let line = line.unwrap();
        let mut words = line.split_ascii_whitespace();
        let kind = words.next();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match kind {
            Some("a") => {
                let (id, size) = (number(), number());
                if size == 0 {
                    continue;
                }
                let request = Request {
                    size,
                    larger: true,
                    grow: true,
                    ..Request::default()
                };
                let (offset, _) = arena.alloc(request).unwrap();
                live.insert(id, (offset, size));
                requested += size;
                peak = peak.max(requested);
                held = held.max(arena.counters().held_bytes);
            }
            Some("f") => {
                // What had no size was never allocated.
                if let Some((offset, size)) = live.remove(&number()) {
                    arena.free(offset).unwrap();
                    requested -= size;
                }
            }
            _ => {}
        }
    }
    arena.check();
    for (offset, _) in live.into_values() {
        arena.free(offset).unwrap();
    }
    arena.check();
    assert_eq!(arena.counters().live_blocks, 0);
    arena.end();
    (peak, held)
}

fn holds_at_most<const KIB: usize>(name: &str, most: f64) {
    let (peak, held) = replay::<KIB>(name);
    let ratio = held as f64 / peak as f64;
    println!(
        "{name}: pages of {KIB} KiB: peak {:.2} MiB asked for, {:.2} MiB held: {ratio:.4}",
        peak as f64 / 1048576.0,
        held as f64 / 1048576.0
    );
    assert!(ratio <= most, "{name} holds {ratio:.4} times what it needs");
}

macro_rules! traces {
    ($($name:ident: $at_4:expr, $at_64:expr;)*) => {$(
        #[test]
        fn $name() {
            let file = concat!(stringify!($name), ".txt.gz");
            holds_at_most::<4>(file, $at_4);
            holds_at_most::<64>(file, $at_64);
        }
    )*};
}

// At most so much at pages of 4 and of 64 KiB. A pure power-of-2 allocator cannot do with less than
// 1.737, 1.028, 1.140, 1.851 and 1.207 (see ../traces/README.md), perfect packing with 1.0003 and
// 1.0098 on the training traces, which the last percent of a page is lost on.
traces! {
    torch_resnet18: 1.02, 1.03;
    torch_gpt: 1.02, 1.03;
    torch_unet: 1.02, 1.03;
    small_sqlite3: 1.83, 1.88;
    small_git_log: 1.16, 1.22;
}
