//! Base62: the encoding of our secrets. Digits and letters only, so that a double click selects a whole secret and no
//! shell, URL or header changes it. One character has 5.95 bits.

use rand::distr::{Alphanumeric, SampleString};

const ALPHABET: [u8; 62] = *b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Every character is equally likely (rejection sampling), from a generator that the operating system seeds.
pub(super) fn random(length: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), length)
}

pub(super) fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// A number as exactly six digits, highest first: 62^6 is more than 2^32.
pub(super) fn six_digits(number: u32) -> [u8; 6] {
    let mut rest = number as usize;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET.get(rest % ALPHABET.len()).copied().unwrap_or_default();
        rest /= ALPHABET.len();
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_character_occurs_about_as_often_as_any_other() {
        let mut counts = BTreeMap::<u8, u32>::new();
        for byte in random(62_000).bytes() {
            *counts.entry(byte).or_default() += 1;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<u8>>(), ALPHABET);
        // The standard deviation is 32; a biased draw such as `byte % 62` would give some characters 1,200.
        assert!(counts.values().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn six_digits_hold_the_largest_number() {
        assert_eq!(&six_digits(0), b"000000");
        assert_eq!(&six_digits(62), b"000010");
        assert_eq!(&six_digits(u32::MAX), b"4gfFC3");
    }

    proptest! {
        #[test]
        fn the_digits_give_the_number_back(number: u32) {
            let value = six_digits(number).iter().fold(0_u64, |sum, digit| {
                sum * 62 + ALPHABET.iter().position(|known| known == digit).unwrap() as u64
            });
            prop_assert_eq!(value, u64::from(number));
        }
    }
}
