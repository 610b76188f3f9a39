//! Identity: who asks (`email`, `callers`), in which role, what they may do to themselves and to others
//! (`permissions`), and what they could do when an answer was stored for them (`rights`).

mod callers;
mod email;
mod permissions;
mod rights;

pub use callers::{Caller, Credential, Forbidden, Subject};
pub use email::{EMAIL_MAX_LENGTH, Email, EmailRefused, PASSWORD_LENGTH, password_fits};
pub use permissions::{Permission, PermissionSet, Role, UnknownPermission, UnknownRole};
pub use rights::CallerRights;
