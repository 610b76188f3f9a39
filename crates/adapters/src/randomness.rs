//! The only place that makes ids and draws random numbers. UUID version 7: unique for all time, and later ids of one
//! process sort later, so that new rows are added at the end of an index.

use ports::randomness::Randomness;
use rand::RngExt;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that the lint sends everybody to")]
    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { rand::rng().random_range(0..bound) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_later() {
        let ids: Vec<Uuid> = (0..1_000).map(|_| SystemRandomness.new_id()).collect();
        assert!(ids.is_sorted_by(|earlier, later| earlier < later));
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }
    #[test]
    fn every_number_below_the_bound_is_thrown() {
        let thrown: std::collections::BTreeSet<u64> = (0..1_000).map(|_| SystemRandomness.below(4)).collect();
        assert_eq!(thrown.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((SystemRandomness.below(0), SystemRandomness.below(1)), (0, 0));
    }
}
