//! Identity states: whether an identity may act now, and whether a token was issued within its lifetime.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;

use super::permissions::Role;

/// By how much the clocks of an issuer, of the database and of this process may differ.
pub const CLOCK_LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// The state of an identity at its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityState {
    Active,
    /// It may act again when the ban ends.
    Banned,
    /// Deleted, or marked as deleted by its provider.
    Deleted,
    /// An id that no identity has or had.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no state of an identity")]
pub struct UnknownIdentityState(pub String);

impl FromStr for IdentityState {
    type Err = UnknownIdentityState;

    fn from_str(text: &str) -> Result<Self, UnknownIdentityState> {
        match text {
            "active" => Ok(Self::Active),
            "banned" => Ok(Self::Banned),
            "deleted" => Ok(Self::Deleted),
            "unknown" => Ok(Self::Unknown),
            other => Err(UnknownIdentityState(other.to_owned())),
        }
    }
}

/// The facts of an identity that are read to authenticate a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerFacts {
    /// The profile's role; `None` if there is no profile yet.
    pub role: Option<Role>,
    pub state: IdentityState,
    /// When the identity was created, if its provider reports it.
    pub began_at: Option<DateTime<Utc>>,
}

/// Why this identity may not act now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    #[error("the identity is banned")]
    Banned,
    #[error("the identity is deleted")]
    Deleted,
    #[error("the token is older than the identity")]
    OlderThanIdentity,
}

impl IdentityState {
    pub const fn admit(self) -> Result<(), NotAdmitted> {
        match self {
            // What an unknown identity may do is checked by each action.
            Self::Active | Self::Unknown => Ok(()),
            Self::Banned => Err(NotAdmitted::Banned),
            Self::Deleted => Err(NotAdmitted::Deleted),
        }
    }
}

impl CallerFacts {
    /// The role in which a token issued at that time acts. A token of an earlier identity with the same id is refused.
    /// A token without an issue time is not checked for that.
    pub fn admit(&self, issued_at: Option<DateTime<Utc>>) -> Result<Option<Role>, NotAdmitted> {
        self.state.admit()?;
        match (issued_at, self.began_at) {
            (Some(issued_at), Some(began_at)) if issued_at + CLOCK_LEEWAY < began_at => {
                Err(NotAdmitted::OlderThanIdentity)
            }
            _ => Ok(self.role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_banned_or_deleted_does_not_act() {
        let facts = |state| CallerFacts { role: Some(Role::Admin), state, began_at: None };
        for (state, admitted) in [
            (IdentityState::Active, Ok(Some(Role::Admin))),
            (IdentityState::Unknown, Ok(Some(Role::Admin))),
            (IdentityState::Banned, Err(NotAdmitted::Banned)),
            (IdentityState::Deleted, Err(NotAdmitted::Deleted)),
        ] {
            assert_eq!(facts(state).admit(None), admitted);
        }
    }

    #[test]
    fn a_token_acts_within_the_life_of_its_identity() {
        let began_at = DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::milliseconds(700);
        let facts = CallerFacts { role: Some(Role::User), state: IdentityState::Active, began_at: Some(began_at) };
        let issued = |seconds| facts.admit(Some(began_at - TimeDelta::milliseconds(700) + TimeDelta::seconds(seconds)));
        // In the same second, and as far before as clocks may differ.
        for seconds in [0, -29, 1, 1_000_000] {
            assert_eq!(issued(seconds), Ok(Some(Role::User)), "{seconds}");
        }
        assert_eq!(issued(-30), Err(NotAdmitted::OlderThanIdentity));
        assert_eq!(facts.admit(None), Ok(Some(Role::User)));
        assert_eq!(CallerFacts { began_at: None, ..facts }.admit(Some(DateTime::UNIX_EPOCH)), Ok(Some(Role::User)));
    }
}
