//! Redaction: no log line has a secret, whatever the filter lets through.
//!
//! Our own types with secrets do not print, but libraries log their inputs: at the level trace, the address of the
//! database with its password, or the headers of a request. So the known secrets are removed from each line, and with
//! them everything that has the form of a token or of an API key. Costs a search a secret and line.

use std::io::{self, Write};
use std::sync::{PoisonError, RwLock};

use tracing_subscriber::fmt::MakeWriter;

/// What replaces a secret.
const REDACTED: &str = "(redacted)";
/// Shorter secrets occur in too many words to be removed.
const SECRET_LENGTH_MIN: usize = 6;
/// What a JSON Web Token begins with: `{"` in base64.
const TOKEN_BEGIN: &str = "eyJ";
/// Shorter text is no token and no key.
const CREDENTIAL_LENGTH_MIN: usize = 24;

static KEPT_OUT: RwLock<Vec<String>> = RwLock::new(Vec::new());
static BEGINNINGS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Keeps a secret out of every line from now on; of an address, also its password.
pub fn keep_out(secret: &str) {
    let mut found = vec![secret.to_owned()];
    found.extend(password_of(secret));
    let mut kept_out = KEPT_OUT.write().unwrap_or_else(PoisonError::into_inner);
    for one in found.into_iter().filter(|one| one.len() >= SECRET_LENGTH_MIN) {
        if !kept_out.contains(&one) {
            kept_out.push(one);
        }
    }
    // The longer one first: an address is replaced before its password.
    kept_out.sort_by_key(|one| std::cmp::Reverse(one.len()));
}

/// Keeps out every text that begins so and continues like a key.
pub fn keep_out_keys(beginning: &str) {
    let mut beginnings = BEGINNINGS.write().unwrap_or_else(PoisonError::into_inner);
    if !beginning.is_empty() && !beginnings.iter().any(|known| known == beginning) {
        beginnings.push(beginning.to_owned());
    }
}

/// The password in an address, as it is written there, which is how it is logged.
fn password_of(address: &str) -> Option<String> {
    let (_, rest) = address.split_once("://")?;
    let (user, _) = rest.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    Some(password.to_owned())
}

fn redact(mut line: String) -> String {
    for secret in KEPT_OUT.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if line.contains(secret.as_str()) {
            line = line.replace(secret.as_str(), REDACTED);
        }
    }
    let beginnings = BEGINNINGS.read().unwrap_or_else(PoisonError::into_inner);
    for beginning in beginnings.iter().map(String::as_str).chain([TOKEN_BEGIN]) {
        if line.contains(beginning) {
            line = without_credentials(&line, beginning);
        }
    }
    line
}

/// The line without the texts that begin so and continue like a credential.
fn without_credentials(line: &str, beginning: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, from)) = rest.find(beginning).and_then(|at| rest.split_at_checked(at)) {
        let belongs = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
        let length = from.find(|letter: char| !belongs(letter)).unwrap_or(from.len());
        let length = length.max(beginning.len());
        let (credential, after) = from.split_at_checked(length).unwrap_or((from, ""));
        out.push_str(before);
        out.push_str(if credential.len() >= CREDENTIAL_LENGTH_MIN { REDACTED } else { credential });
        rest = after;
    }
    out + rest
}

/// Writes lines to stderr, without their secrets.
#[derive(Clone, Copy, Default)]
pub struct RedactingWriter;

impl<'a> MakeWriter<'a> for RedactingWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for RedactingWriter {
    /// The formatter writes a line at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(redact(String::from_utf8_lossy(bytes).into_owned()).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_a_line() {
        keep_out("postgres://app:hunter2%21x@db:5432/base");
        keep_out("the provider's own key");
        keep_out("abc");
        keep_out_keys("sk_live_");
        let key = format!("sk_live_{}", "a1B2c3".repeat(8));
        let token = format!("eyJhbGciOiJIUzI1NiJ9.{}.x-y_z", "eyJzdWIiOiIxIn0".repeat(3));
        for secret in ["postgres://app:hunter2%21x@db:5432/base", "hunter2%21x", "the provider's own key", &key, &token]
        {
            let line = redact(format!("connect url=\"{secret}\" abc\n"));
            assert!(!line.contains(secret) && line.contains(REDACTED), "{line}");
            assert!(line.starts_with("connect url=\"") && line.ends_with("\" abc\n"), "{line}");
        }
        for harmless in ["sk_live_ is the prefix", "eyJ", "answered status=200"] {
            assert_eq!(redact(harmless.to_owned()), harmless);
        }
    }
}
