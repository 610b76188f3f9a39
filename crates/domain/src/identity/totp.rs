//! Second factors: time-based one-time codes (RFC 6238), and recovery codes for users who lost the device.
//!
//! Promise: a code is accepted within one step of 30 seconds before and after its own, and once: a step is accepted
//! only if it is later than the last one used. A recovery code is accepted once.

use chrono::{DateTime, Utc};

/// How long one code is valid.
pub const STEP_SECONDS: i64 = 30;

/// By how many steps the clock of a device may differ.
const WINDOW: i64 = 1;

/// How many digits a code has.
pub const CODE_DIGITS: usize = 6;

/// How many recovery codes there are at first.
pub const RECOVERY_CODES: usize = 10;

/// A second factor as entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownCode {
    /// The digits of a device.
    Totp(String),
    /// A recovery code, in its one spelling.
    Recovery(String),
}

impl ShownCode {
    /// Ignores blanks and hyphens, with which users group digits.
    pub fn read(text: &str) -> Self {
        let bare: String = text.chars().filter(|character| !character.is_whitespace() && *character != '-').collect();
        if bare.len() == CODE_DIGITS && bare.bytes().all(|byte| byte.is_ascii_digit()) {
            Self::Totp(bare)
        } else {
            Self::Recovery(bare.to_ascii_lowercase())
        }
    }
}

/// The steps whose codes are accepted now, the current one first. `last_used` is the last step that was accepted.
pub fn open_steps(now: DateTime<Utc>, last_used: Option<i64>) -> Vec<i64> {
    let present = now.timestamp().div_euclid(STEP_SECONDS);
    let mut steps: Vec<i64> = (present - WINDOW..=present + WINDOW).collect();
    steps.retain(|step| last_used.is_none_or(|last| *step > last));
    steps.sort_by_key(|step| (step - present).abs());
    steps
}

/// The URL that an authenticator app reads, often as a QR code (Google's "Key URI Format"). `secret` is base32.
pub fn otpauth_url(issuer: &str, account: &str, secret: &str) -> String {
    let (issuer, account) = (percent_encoded(issuer), percent_encoded(account));
    format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits={CODE_DIGITS}&period={STEP_SECONDS}"
    )
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[test]
    fn codes_of_three_steps_are_taken_and_none_twice() {
        assert_eq!(open_steps(at(3_000), None), [100, 99, 101]);
        assert_eq!(open_steps(at(3_029), Some(98)), [100, 99, 101]);
        assert_eq!(open_steps(at(3_029), Some(99)), [100, 101]);
        assert_eq!(open_steps(at(3_029), Some(100)), [101]);
        assert!(open_steps(at(3_029), Some(101)).is_empty());
    }

    #[test]
    fn a_code_is_read_as_it_is_typed() {
        for (text, shown) in [
            ("123456", ShownCode::Totp("123456".into())),
            (" 123 456 ", ShownCode::Totp("123456".into())),
            ("12345", ShownCode::Recovery("12345".into())),
            ("ABCDE-fghij", ShownCode::Recovery("abcdefghij".into())),
            ("\u{FF11}23456", ShownCode::Recovery("\u{FF11}23456".into())),
        ] {
            assert_eq!(ShownCode::read(text), shown, "{text}");
        }
    }

    #[test]
    fn an_authenticator_can_read_the_address() {
        let url = otpauth_url("Product Base", "ada+x@example.com", "JBSWY3DP");
        assert_eq!(
            url,
            "otpauth://totp/Product%20Base:ada%2Bx%40example.com?secret=JBSWY3DP&issuer=Product%20Base&algorithm=SHA1&digits=6&period=30"
        );
    }

    proptest! {
        #[test]
        fn whatever_the_time_a_step_is_taken_once(times in prop::collection::vec(0_i64..100, 1..60)) {
            let (mut last, mut used, mut now) = (None, Vec::new(), 1_000_000_i64);
            for pause in times {
                now += pause;
                if let Some(step) = open_steps(at(now), last).first().copied() {
                    prop_assert!((step - now / 30).abs() <= 1 && !used.contains(&step));
                    used.push(step);
                    last = Some(step);
                }
            }
        }
    }
}
