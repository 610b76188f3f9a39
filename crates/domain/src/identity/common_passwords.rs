//! Common passwords: those that an attacker tries first.
//!
//! Promise: refused are the passwords of a bundled list (`common_passwords.txt`), a common word (`common_words.txt`)
//! with digits and signs around it or look-alikes in it, repetitions, runs along the alphabet, the digits or a
//! keyboard, and passwords that are little more than the account's own address. Case and width make no difference. A
//! long password may contain a common word among others. The bundled lists are parsed once, in about a millisecond; a
//! check takes some microseconds.

use std::collections::HashSet;
use std::sync::LazyLock;

use thiserror::Error;

use super::passwords::normal_password;

static PASSWORDS: LazyLock<HashSet<String>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().map(|line| compact(&folded(line))).collect());
static WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| include_str!("common_words.txt").lines().collect());

/// The alphabet, the digits and keyboard rows.
const SEQUENCES: [&str; 10] = [
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "azertyuiop",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
];

/// The shortest part of a sequence that counts as one.
const RUN_MIN: usize = 3;

/// Longer repetitions are accepted: attackers would have to guess their length too.
const PATTERN_MAX: usize = 32;

/// The longest part whose repetition is a pattern.
const REPEATED_MAX: usize = 6;

/// A password of fewer different characters is a pattern.
const DIFFERENT_MIN: usize = 4;

/// The shortest local part of an address that is searched for.
const LOCAL_PART_MIN: usize = 4;

/// The characters that a password must have beside the account's own address.
const BESIDE_ADDRESS_MIN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommonPassword {
    #[error(
        "is one of the most common passwords, or a common word with digits or signs; choose one that nobody guesses"
    )]
    Listed,
    #[error("repeats, or runs along the alphabet, the digits or the keyboard; choose one that nobody guesses")]
    Pattern,
    #[error("is little more than your e-mail address; choose one that nobody guesses")]
    Address,
}

/// Why this password is one of the most common, or `None`. `address` is the e-mail address of its account.
pub fn common_password(password: &str, address: &str) -> Option<CommonPassword> {
    let folded = folded(password);
    if is_listed(&folded) {
        return Some(CommonPassword::Listed);
    }
    if is_pattern(&folded) {
        return Some(CommonPassword::Pattern);
    }
    is_address(&folded, address).then_some(CommonPassword::Address)
}

/// One spelling for texts that differ only in case and width.
fn folded(text: &str) -> String {
    normal_password(text).to_lowercase()
}

/// Without blanks and the signs used between words.
fn compact(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace() && !"-_.,".contains(*character)).collect()
}

/// Digits and signs replaced by the letters that they imitate.
fn as_letters(text: &str) -> String {
    let letter = |character| match character {
        '0' => 'o',
        '1' | '!' | '|' => 'i',
        '3' | '€' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' | '+' => 't',
        '8' => 'b',
        '9' => 'g',
        other => other,
    };
    text.chars().map(letter).collect()
}

fn is_listed(folded: &str) -> bool {
    let is_edge = |character: char| !character.is_alphabetic();
    let bare = folded.trim_matches(is_edge);
    let with_front = folded.trim_end_matches(is_edge);
    let with_end = folded.trim_start_matches(is_edge);
    PASSWORDS.contains(&compact(folded))
        || PASSWORDS.contains(&compact(bare))
        || [bare, with_front, with_end, folded].into_iter().any(|part| {
            let spelled = compact(&as_letters(part));
            is_word(&compact(part)) || is_word(&spelled) || is_word(&spelled.replace('i', "l"))
        })
}

/// A common word, once or repeated.
fn is_word(text: &str) -> bool {
    let length = text.len();
    let parts = (1..=length / 2).filter(|part| length.is_multiple_of(*part)).chain([length]);
    parts
        .filter_map(|part| text.get(..part))
        .any(|part| WORDS.contains(part) && text == part.repeat(length / part.len()))
}

fn is_pattern(folded: &str) -> bool {
    let characters: Vec<char> = compact(folded).chars().collect();
    if characters.len() > PATTERN_MAX {
        return false;
    }
    let different: HashSet<&char> = characters.iter().collect();
    different.len() < DIFFERENT_MIN || repeats(&characters) || runs(&characters)
}

/// A short part repeated; the last repetition may be incomplete.
fn repeats(characters: &[char]) -> bool {
    let longest = REPEATED_MAX.min(characters.len() / 2);
    (1..=longest).any(|part| characters.iter().zip(characters.iter().skip(part)).all(|(one, next)| one == next))
}

/// Nothing but parts of sequences, forwards or backwards, and repeated characters.
fn runs(characters: &[char]) -> bool {
    let mut rest = characters;
    while !rest.is_empty() {
        let taken = longest_run(rest);
        // The rest at the end may be too short to be recognised.
        if taken < RUN_MIN && rest.len() >= RUN_MIN {
            return false;
        }
        rest = rest.get(taken.max(1)..).unwrap_or_default();
    }
    true
}

fn longest_run(characters: &[char]) -> usize {
    let text: String = characters.iter().collect();
    let backwards = SEQUENCES.iter().map(|sequence| sequence.chars().rev().collect::<String>());
    let sequences: Vec<String> = SEQUENCES.iter().map(|sequence| (*sequence).to_owned()).chain(backwards).collect();
    let of_sequences = (RUN_MIN..=characters.len()).rev().find(|length| {
        let part: String = text.chars().take(*length).collect();
        sequences.iter().any(|sequence| sequence.contains(&part))
    });
    let same = characters.iter().take_while(|character| characters.first() == Some(character)).count();
    of_sequences.unwrap_or_default().max(same)
}

fn is_address(password: &str, address: &str) -> bool {
    let (password, address) = (compact(password), compact(&folded(address)));
    let local = address.split('@').next().unwrap_or_default();
    [address.as_str(), local]
        .into_iter()
        .filter(|part| part.chars().count() >= LOCAL_PART_MIN && password.contains(part))
        .any(|part| password.replace(part, "").chars().count() < BESIDE_ADDRESS_MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: &str = "ada.lovelace@example.com";

    fn why(password: &str) -> Option<CommonPassword> {
        common_password(password, ADDRESS)
    }

    #[test]
    fn what_is_guessed_first_is_refused() {
        for password in [
            "password1234",
            "Password123!",
            "PASSWORD2026!",
            "P@ssw0rd1234",
            "p455w0rd!!!!",
            "Pa$$w0rd2026",
            "12345password",
            "1234password5678",
            "pass word 1234",
            "p-a-s-s-w-o-r-d",
            "passwordpassword",
            "qwertyuiop12",
            "qwerty123456",
            "1q2w3e4r5t6y",
            "1qaz2wsx3edc",
            "iloveyou1234",
            "letmein12345",
            "Welcome12345",
            "welcome@2026",
            "administrator",
            "Admin@123456",
            "adm1n1234567",
            "Summer2026!!",
            "$ummer2026!!",
            "football1234",
            "trustno1trustno1",
            "changeme1234",
            "ProductBase1",
            "product-base-2026",
            "monkeymonkeymonkey",
            "iloveyou2026!",
            "adminadmin12",
            "letmein!!!!!",
            "Pa55word2026",
            "test12345678",
            "changeme!234",
            "liverpool2026",
            "Company2026!",
            "superman1234",
            "asdfghjkl123",
            "!@#$%^&*()_+",
            "ｐａｓｓｗｏｒｄ１２３４",
        ] {
            assert_eq!(why(password), Some(CommonPassword::Listed), "{password}");
        }
    }

    #[test]
    fn patterns_are_refused() {
        for password in [
            "aaaaaaaaaaaa",
            "abababababab",
            "abcabcabcabc",
            "aaaabbbbcccc",
            "xy12xy12xy12",
            "xy12zxy12zxy",
            "abcdefghijkl",
            "1q2w3e4r5t6y7u8i",
            "3edc4rfv5tgb",
            "poiuytrewqlkj",
            "zyxwvutsrqpon",
            "123456789012",
            "098765432109",
            "abcd12345678",
            "lkjhgfdsapoiuy",
            "111122223333",
            "11112222333344445555",
            "1 2 3 4 5 6 7 8 9 0 1 2",
        ] {
            assert!(why(password).is_some(), "{password}");
        }
    }

    #[test]
    fn the_own_address_is_refused() {
        for password in
            ["ada.lovelace@example.com", "adalovelace1815", "AdaLovelace!1", "1815-ada-lovelace", "my ada lovelace"]
        {
            assert_eq!(why(password), Some(CommonPassword::Address), "{password}");
        }
        assert_eq!(common_password("adalovelace1815", "grace@example.com"), None);
    }

    #[test]
    fn what_nobody_guesses_is_taken() {
        for password in [
            "correct horse battery",
            "correct horse battery staple",
            "another password",
            "twelve chars",
            "パスワードは十二文字です",
            "  spaces count  ",
            "Tr0ub4dor&3-and-more",
            "kd83nfQpz01x",
            "blue monkey eats soap",
            "ada lovelace wrote notes",
            "98127465012387",
            "passwords are a bore",
        ] {
            assert_eq!(why(password), None, "{password}");
        }
        assert_eq!(why(&"p".repeat(128)), None, "only lengths that are guessed");
    }

    #[test]
    fn the_bundled_lists_are_as_they_are_read() {
        for word in WORDS.iter() {
            assert_eq!(compact(&folded(word)), *word);
        }
        assert!(PASSWORDS.len() > 2_000 && WORDS.len() > 500);
        assert!(include_str!("common_passwords.txt").lines().all(|line| line.chars().count() >= 12));
        assert!(include_str!("common_passwords.txt").lines().all(|line| why(line).is_some()));
    }

    proptest! {
        #[test]
        fn digits_and_signs_around_a_word_hide_it_from_nobody(
            place in 0_usize..800, front in "[0-9!#*?]{0,4}", end in "[0-9!#*?.]{4,12}", capital in any::<bool>(),
        ) {
            let words: Vec<&&str> = WORDS.iter().collect();
            let word = words[place % words.len()];
            let word = if capital { word.to_uppercase() } else { (*word).to_owned() };
            let password = format!("{front}{word}{end}");
            prop_assert!(why(&password).is_some(), "{password}");
        }

        #[test]
        fn random_passwords_are_taken(password in "[a-zA-Z0-9]{16,40}") {
            prop_assert_eq!(why(&password), None);
        }

        #[test]
        fn any_text_has_an_answer(password in "\\PC{0,140}", address in "\\PC{0,40}") {
            let _ = common_password(&password, &address);
        }
    }
}
