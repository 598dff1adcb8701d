//! Random choices that can be repeated: a seeded generator, and the variables that set seed and length of a run.

use std::time::{SystemTime, UNIX_EPOCH};

/// A random generator (splitmix64). The same seed gives the same sequence.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns a generator for a part of the run, whose sequence does not depend on the other parts.
    pub fn part(seed: u64, part: u64) -> Self {
        Random(Random(seed ^ part.wrapping_mul(0xd134_2543_de82_ef95)).next())
    }

    /// Returns the next number of the sequence.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns true `percent` times in a hundred.
    pub fn happens(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns one of these.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Returns the seed of the run and prints it; `RALLY_HOOK_SEED` repeats a run.
pub fn seed() -> u64 {
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let seed = number("RALLY_HOOK_SEED").unwrap_or_else(fresh);
    println!("RALLY_HOOK_SEED={seed} repeats this run");
    seed
}

/// Returns how many rounds to run: `RALLY_HOOK_ROUNDS`, or else the usual number.
pub fn rounds(usual: usize) -> usize {
    number("RALLY_HOOK_ROUNDS").map_or(usual, |rounds| rounds as usize)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
