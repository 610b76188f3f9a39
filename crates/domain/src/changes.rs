//! Changes: what the database says that it changed, so that whoever remembers it forgets it.
//!
//! The triggers send one short text an object: `catalogue`, `user:<id>` or `key:<id>`.

use uuid::Uuid;

use crate::api_keys::ApiKeyId;
use crate::users::UserId;

/// What is no longer as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A plan, a feature, what a plan grants of one, or a setting that all users share.
    Catalogue,
    /// A user's plan, role, subscription, scheduled change or exception; or the user is gone.
    User(UserId),
    /// An API key.
    Key(ApiKeyId),
    /// Nobody can say what.
    Everything,
}

impl Change {
    /// What a text of the triggers means. One that is not understood, of a newer schema perhaps, may mean anything.
    pub fn parse(text: &str) -> Self {
        let id = |text: &str| Uuid::try_parse(text).ok();
        match text.split_once(':') {
            None if text == "catalogue" => Self::Catalogue,
            Some(("user", user)) => id(user).map_or(Self::Everything, |user| Self::User(UserId(user))),
            Some(("key", key)) => id(key).map_or(Self::Everything, |key| Self::Key(ApiKeyId(key))),
            _ => Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_what_changed_and_one_that_is_not_understood_means_everything() {
        let id = Uuid::from_u128(7);
        assert_eq!(Change::parse("catalogue"), Change::Catalogue);
        assert_eq!(Change::parse(&format!("user:{id}")), Change::User(UserId(id)));
        assert_eq!(Change::parse(&format!("key:{id}")), Change::Key(ApiKeyId(id)));
        for strange in ["", "user", "user:", "user:ada", "catalogue:", "plan:gold", "key:7"] {
            assert_eq!(Change::parse(strange), Change::Everything, "{strange}");
        }
    }
}
