//! Identity: who asks (`email`, `passwords`, `callers`, `states`), in which role, and what they may do to themselves and
//! to others (`permissions`).

mod callers;
mod email;
mod passwords;
mod permissions;
mod states;

pub use callers::{Caller, Credential, Forbidden, Subject};
pub use email::{EMAIL_MAX_LENGTH, Email, EmailRefused, StoredEmail};
pub use passwords::{PASSWORD_LENGTH, new_password_fits, normal_password, password_fits};
pub use permissions::{Permission, PermissionSet, Role, UnknownPermission, UnknownRole};
pub use states::{CLOCK_LEEWAY, CallerFacts, IdentityState, NotAdmitted, UnknownIdentityState};
