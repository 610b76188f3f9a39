//! Identity: authentication (`email`, `passwords`, `callers`, `states`), roles and permissions (`permissions`), and the
//! rights that a caller had when a response was stored (`rights`).

mod callers;
mod common_passwords;
mod email;
pub mod log_in_failures;
mod passwords;
mod permissions;
mod recency;
mod rights;
mod states;
pub mod totp;

pub use callers::{Caller, Credential, PermissionMissing, TokenLife, UsageSubject};
pub use common_passwords::{CommonPassword, common_password};
pub use email::{EMAIL_MAX_LENGTH, Email, EmailRefused, StoredEmail};
pub use passwords::{PASSWORD_LENGTH, new_password_fits, normal_password, password_fits};
pub use permissions::{Permission, PermissionSet, Role, UnknownPermission, UnknownRole};
pub use recency::RecencyRule;
pub use rights::CallerRights;
pub use states::{CLOCK_LEEWAY, CallerFacts, IdentityState, NotAdmitted, UnknownIdentityState};
