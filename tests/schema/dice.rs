//! Seeded random numbers: every run of a test gets the same sequence.

/// Steele, Lea and Flood's splitmix64: a few lines, and good enough to vary test data.
pub struct Dice(u64);

impl Dice {
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.throw() % end
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let position = self.below(of.len() as u64);
        &of[usize::try_from(position).unwrap()]
    }

    /// True once in this many throws, on average.
    pub fn once_in(&mut self, throws: u64) -> bool {
        self.below(throws) == 0
    }
}
