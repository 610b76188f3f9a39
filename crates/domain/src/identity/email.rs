//! E-mail addresses and passwords: what an account is opened with.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The shortest and longest password, in characters. The upper bound keeps one log-in
/// from buying minutes of hashing.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 12..=128;

/// The longest e-mail address that SMTP can carry (RFC 5321, section 4.5.3.1.3).
pub const EMAIL_MAX_LENGTH: usize = 254;

/// An e-mail address, trimmed and in lower case, so that one mailbox is one identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EmailRefused {
    #[error("an e-mail address has one @ between a name and a domain")]
    Malformed,
    #[error("an e-mail address has at most 254 characters")]
    TooLong,
}

impl Email {
    pub fn parse(text: &str) -> Result<Self, EmailRefused> {
        let text = text.trim();
        if text.len() > EMAIL_MAX_LENGTH {
            return Err(EmailRefused::TooLong);
        }
        let (name, domain) = text.split_once('@').ok_or(EmailRefused::Malformed)?;
        let unfit = |character: char| {
            character.is_whitespace() || character.is_control() || "<>()[],;:\\\"".contains(character)
        };
        let hyphens_inside = |label: &str| !label.starts_with('-') && !label.ends_with('-');
        let fits = |label: &str| !label.is_empty() && label.chars().all(|one| one.is_alphanumeric() || one == '-');
        let domain_is_one = domain.split('.').all(|label| fits(label) && hyphens_inside(label));
        if name.is_empty() || domain.is_empty() || domain.contains('@') || text.contains(unfit) || !domain_is_one {
            return Err(EmailRefused::Malformed);
        }
        Ok(Self(text.to_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = EmailRefused;

    fn try_from(text: String) -> Result<Self, EmailRefused> {
        Self::parse(&text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a password is long enough to be worth guessing and short enough to be hashed.
pub fn password_fits(password: &str) -> bool {
    PASSWORD_LENGTH.contains(&password.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_trimmed_and_lower_case() {
        assert_eq!(Email::parse("  Ada@Example.COM ").map(String::from), Ok("ada@example.com".to_owned()));
        for bad in
            ["", "ada", "@example.com", "ada@", "a@b@c", "a b@c.d", "a@b..c", "a\u{0}@b.c", "a@.c", "a@b*.c", "a@-b.c"]
        {
            assert_eq!(Email::parse(bad), Err(EmailRefused::Malformed), "{bad:?}");
        }
        assert_eq!(Email::parse(&format!("{}@example.com", "a".repeat(250))), Err(EmailRefused::TooLong));
    }
}
