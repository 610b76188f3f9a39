//! Finds the dialect of a request, by its path and its headers.

use actix_web::http::header::HeaderMap;
use domain::ai::Dialect;

pub const ANTHROPIC_VERSION: &str = "anthropic-version";
pub const GOOGLE_KEY: &str = "x-goog-api-key";

/// The dialect in which a request is answered, whatever it asks for; `None` for our own routes.
///
/// All dialects have `/v1/models`, so there the headers decide; a verb after a colon is Gemini's.
pub fn dialect_of(path: &str, headers: &HeaderMap) -> Option<Dialect> {
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if below("/v1beta") {
        return Some(Dialect::Gemini);
    }
    if !below("/v1") {
        return None;
    }
    let is_model = path.starts_with("/v1/models/") || path.starts_with("/v1/tunedModels/");
    let verb = path.rsplit_once(':').map(|(_, verb)| verb);
    Some(if below("/v1/messages") || headers.contains_key(ANTHROPIC_VERSION) {
        Dialect::Anthropic
    } else if headers.contains_key(GOOGLE_KEY) || (is_model && verb.is_some_and(is_verb)) {
        Dialect::Gemini
    } else {
        Dialect::OpenAiChat
    })
}

/// Whether it ends as Gemini's verbs do; tuned models of `OpenAI` have colons too, and their last part is an id.
fn is_verb(word: &str) -> bool {
    ["Content", "Contents", "Tokens"].iter().any(|ending| word.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_path_tells_and_then_the_headers() {
        let none = HeaderMap::new();
        for (path, dialect) in [
            ("/v1/chat/completions", Some(Dialect::OpenAiChat)),
            ("/v1", Some(Dialect::OpenAiChat)),
            ("/v1/nothing", Some(Dialect::OpenAiChat)),
            ("/v1/models", Some(Dialect::OpenAiChat)),
            ("/v1/models/ft:gpt-4o:acme::1", Some(Dialect::OpenAiChat)),
            ("/v1/messages", Some(Dialect::Anthropic)),
            ("/v1/messages/count_tokens", Some(Dialect::Anthropic)),
            ("/v1/models/gemini/m:streamGenerateContent", Some(Dialect::Gemini)),
            ("/v1/models/m:countTokens", Some(Dialect::Gemini)),
            ("/v1beta/anything", Some(Dialect::Gemini)),
            ("/v1beta2", None),
            ("/v10/chat", None),
            ("/api/plans", None),
            ("/", None),
        ] {
            assert_eq!(dialect_of(path, &none), dialect, "{path}");
        }
        for (header, dialect) in [(ANTHROPIC_VERSION, Dialect::Anthropic), (GOOGLE_KEY, Dialect::Gemini)] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(header), HeaderValue::from_static("x"));
            assert_eq!(dialect_of("/v1/models", &headers), Some(dialect));
            assert_eq!(dialect_of("/api/models", &headers), None);
        }
    }
}
