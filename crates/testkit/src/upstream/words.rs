//! Text with tokens that a test can count: one token per word, and not all words are ASCII.

/// Words of one to four bytes per character, one with characters that JSON must escape, and one of several code points.
const WORDS: [&str; 16] = [
    "plain",
    "naïve",
    "words",
    "東京",
    "over",
    "Zürich",
    "🦀",
    "\"quoted\"",
    "Ελλάδα",
    "back\\slash",
    "данные",
    "of",
    "👩‍🚀",
    "한국어",
    "e\u{301}tude",
    "end.",
];

/// A text of that many tokens, always the same one.
pub fn sentence(tokens: usize) -> String {
    WORDS.iter().cycle().take(tokens).copied().collect::<Vec<_>>().join(" ")
}

/// The number of tokens of a text: its words.
pub fn count(text: &str) -> u64 {
    text.split_whitespace().map(|_| 1).sum()
}

/// The tokens of a text. Joined, they equal the text to the byte: white space belongs to the word after it, and what
/// follows the last word belongs to that word. A text without a word has no token.
pub fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut token = String::new();
    let mut in_word = false;
    for character in text.chars() {
        if in_word && character.is_whitespace() {
            tokens.push(std::mem::take(&mut token));
            in_word = false;
        }
        in_word = in_word || !character.is_whitespace();
        token.push(character);
    }
    match tokens.last_mut() {
        Some(last) if !in_word => last.push_str(&token),
        _ if in_word => tokens.push(token),
        _ => {}
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_word_and_no_byte_is_lost() {
        for text in ["", "one", " one  two\n", "東京 🦀", "{\"city\": \"Zürich\"}", &sentence(40)] {
            assert_eq!(tokens(text).concat(), text);
            assert_eq!(u64::try_from(tokens(text).len()).unwrap(), count(text), "{text:?}");
        }
        assert_eq!(tokens(" one  two\n"), [" one", "  two\n"]);
        assert_eq!(tokens(" \n"), Vec::<String>::new());
        assert_eq!(count(&sentence(40)), 40);
    }
}
