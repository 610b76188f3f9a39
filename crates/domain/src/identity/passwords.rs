//! Passwords: their length, and the spelling that is hashed.

use unicode_normalization::UnicodeNormalization;

/// The shortest and longest password, in characters. The upper bound keeps one log-in from causing minutes of hashing.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 12..=128;

/// Whether the length allows it to be a password. Others are refused without hashing.
pub fn password_fits(password: &str) -> bool {
    PASSWORD_LENGTH.contains(&password.chars().count())
}

/// Whether it may become a password: it fits as entered, and is long enough in the spelling that is hashed.
pub fn new_password_fits(password: &str) -> bool {
    password_fits(password) && normal_password(password).chars().count() >= *PASSWORD_LENGTH.start()
}

/// One spelling (NFKC) for the same text from different keyboards and systems. ASCII is unchanged.
pub fn normal_password(password: &str) -> String {
    password.nfkc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_the_same_is_the_same_password() {
        assert_eq!(normal_password("re\u{301}sume\u{301} et \u{FF41}bc"), normal_password("résumé et abc"));
        assert_eq!(normal_password("correct horse battery"), "correct horse battery");
    }

    #[test]
    fn a_password_is_measured_as_entered_and_as_hashed() {
        assert!(new_password_fits("twelve chars") && new_password_fits(&"p".repeat(128)));
        assert!(!new_password_fits("elevenchars") && !new_password_fits(&"p".repeat(129)));
        assert!(password_fits(&"e\u{301}".repeat(6)) && !new_password_fits(&"e\u{301}".repeat(6)));
    }
}
