//! Identity: who asks (`email`, `callers`), in which role, and what they may do to themselves and to others
//! (`permissions`).

mod callers;
mod email;
mod permissions;

pub use callers::{Caller, Credential, Forbidden, Subject};
pub use email::{EMAIL_MAX_LENGTH, Email, EmailRefused, PASSWORD_LENGTH, password_fits};
pub use permissions::{Permission, PermissionSet, Role, UnknownPermission, UnknownRole};
