//! Maintenance: what the regular checks of the books and of the schema can find.

/// Something that the data says and must not be. `finding` is a stable word such as `MISSING_AUTH_USER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrityFinding {
    pub finding: String,
    pub subject: String,
    pub detail: String,
}
