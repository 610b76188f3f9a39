//! Counts tokens with the built-in vocabulary of `OpenAI`'s newest models (`o200k_base`).
//!
//! The vocabulary is loaded at the first count: 50 ms and 67 MB, once per process. A count is linear in the text,
//! whatever its content: 10 to 35 ms per megabyte. A text of more than `AT_ONCE` bytes is counted in parts; each part
//! may add one token, and none is missed.

use ports::ai::TokenCounter;

/// Bounds the memory of one count.
const AT_ONCE: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, Default)]
pub struct O200kCounter;

impl TokenCounter for O200kCounter {
    fn count(&self, text: &str) -> u64 {
        let tokenizer = bpe_openai::o200k_base();
        let mut rest = text;
        let mut tokens = 0_u64;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.floor_char_boundary(AT_ONCE.min(rest.len())));
            tokens = tokens.saturating_add(u64::try_from(tokenizer.count(part)).unwrap_or(u64::MAX));
            rest = after;
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn tokens_are_those_of_openai() {
        // Counted with tiktoken's o200k_base.
        for (text, tokens) in [("", 0), ("hello world", 2), ("tiktoken is great!", 6), (" ", 1), ("{\"a\":1}", 5)] {
            assert_eq!(O200kCounter.count(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn nothing_takes_long() {
        for text in ["a", " ", "\n ", "東", "1", "!-", "👩‍🚀", "e\u{301}", "'s", "aA"] {
            let text = text.repeat(300_000 / text.len());
            let started = Instant::now();
            assert!(O200kCounter.count(&text) > 0);
            // Takes 1 to 10 ms; without optimization on a busy machine a hundred times that.
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}: {:?}", text.get(..12), started.elapsed());
        }
    }

    #[test]
    fn a_long_text_is_counted_in_parts() {
        let text = "é".repeat(AT_ONCE);
        let half = O200kCounter.count(text.get(..AT_ONCE).unwrap());
        assert!(O200kCounter.count(&text).abs_diff(2 * half) <= 2);
    }
}
