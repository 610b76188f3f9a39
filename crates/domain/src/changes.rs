//! Changes: notifications of the database, by which caches invalidate entries.
//!
//! The triggers send one short text per object: `catalogue`, `user:<id>` or `key:<id>`.

use uuid::Uuid;

use crate::api_keys::ApiKeyId;
use crate::users::UserId;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A plan, a feature, what a plan grants of one, or a setting that all users share.
    Catalogue,
    /// A user's plan, role, subscription, scheduled change or override; or the user was deleted.
    User(UserId),
    /// An API key.
    Key(ApiKeyId),
    /// Unknown.
    Everything,
}

impl Change {
    /// The meaning of a trigger's text. A text that is not understood, perhaps of a newer schema, may mean any change.
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
