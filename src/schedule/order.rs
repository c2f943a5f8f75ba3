//! The order of the cases inside a block: shuffled, and the same again for the same seed.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The positions `0..cases` in the order in which a block runs them.
///
/// Each block draws from a stream of its own, so that its order depends on the seed, the block and the number of
/// cases alone. The same numbers come out on every machine: the generator is ChaCha8, whatever the platform.
#[must_use]
pub fn block_order(seed: u64, block: u32, cases: usize) -> Vec<usize> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(u64::from(block));
    let mut order: Vec<usize> = (0..cases).collect();
    order.shuffle(&mut generator);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_that_the_seed_fixes() {
        let order = block_order(1, 0, 100);
        assert_eq!(order, block_order(1, 0, 100));
        assert_ne!(order, block_order(2, 0, 100));
        assert_ne!(order, block_order(1, 1, 100));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn recorded_runs_can_be_repeated() {
        // Fixed for ever: a change here would break the promise that a recorded seed repeats a run's order.
        assert_eq!(block_order(1, 0, 6), [3, 4, 5, 2, 0, 1]);
    }

    #[test]
    fn every_case_comes_first_equally_often() {
        let mut first = [0_u32; 4];
        for block in 0..4000 {
            first[block_order(7, block, 4)[0]] += 1;
        }
        // Expected 1000 each with a standard deviation of 27; the seed is fixed, so this cannot flake.
        assert!(first.iter().all(|count| (890..1110).contains(count)), "{first:?}");
    }
}
