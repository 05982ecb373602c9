# SPDX-License-Identifier: GPL-2.0
# A Rust program with generics and a sort, optimised, and what it prints.
cat >program.rs <<'RUST'
use std::collections::{BTreeMap, HashSet};

fn sorted<T: Ord + Clone>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort();
    values
}

fn main() {
    let mut seed = 1_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 33
    };
    let numbers: Vec<u64> = (0..200_000).map(|_| next()).collect();
    let words: Vec<String> = numbers.iter().map(|number| format!("{number:x}")).collect();
    let set: HashSet<_> = words.iter().collect();
    let mut lengths = BTreeMap::new();
    for word in &words {
        *lengths.entry(word.len()).or_insert(0) += 1;
    }
    println!("{:?} {:?}", &sorted(&numbers)[..3], &sorted(&words)[..3]);
    println!("{} {lengths:?}", set.len());
}
RUST
rustc --edition 2021 -O -C debuginfo=2 -o program program.rs && ./program
rustc --edition 2021 --emit llvm-ir -o - program.rs | md5sum
