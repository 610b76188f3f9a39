//! Text whose tokens a test can count: one token a word, and the words are not all ASCII.

/// Words of one to four bytes a character, one that JSON must escape, and one of several code points.
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

/// How many tokens a text has: its words.
pub fn count(text: &str) -> u64 {
    text.split_whitespace().map(|_| 1).sum()
}

/// The tokens of a text. Joined, they are the text again, to the byte: white space stands before its word, and what
/// follows the last word stays with it. A text without a word has no token.
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
