//! Input: how large what goes in is, counted before the call. What is held for it rests on these numbers.
//!
//! Every byte of a request is weighed. Only what is proven to be a medium (the base64 bytes of a picture, a sound, a film or
//! a document, at a known place of the dialect) is taken off, and counted by a rule of its own:
//!
//! - Text: `likely` is never fewer than a token for 4 bytes, and never fewer than the token counter's count of all of it:
//!   names of fields, numbers, arguments of tools and unknown fields are text. `most` is never fewer than a token for 3
//!   bytes. Providers other than `OpenAI` count up to a half more than our counter, and each digit as a token of its own.
//! - Opaque bytes (signatures, encrypted thoughts and search results, base64 of no known format) are taken from the
//!   counter, which knows nothing of them, but not from the bytes.
//! - A picture: 5,000 tokens at most, or a token for 1,000 characters of its base64 where that is more.
//! - Sound and film: a token for 40 characters of base64, uncompressed sound a token for 300.
//! - A document is compressed, so that nobody sees its text: it is unseen. It is likely to have a page for 50,000 characters.
//! - What is unseen (files, addresses, caches, containers, the provider's own tools) is held at the model's input window.

use super::usage::ToolCalls;

/// The bytes of text that are a token at least, as they are likely to be counted.
pub const BYTES_A_TOKEN: u64 = 4;
/// The same for what is held.
pub const BYTES_A_TOKEN_HELD: u64 = 3;
/// What every message costs beside its text, and the request once more. Where the JSON of the messages is weighed, it stands for
/// that.
const TOKENS_A_MESSAGE: u64 = 8;
/// The most that one picture comes to, at the highest resolution that any of the providers takes.
const TOKENS_AN_IMAGE: u64 = 5_000;
/// Models that count a picture as many more tokens than the others do.
const TOKENS_AN_IMAGE_OF: [(&str, u64); 1] = [("gpt-4o-mini", 48_200)];
/// What a picture is likely to come to.
const TOKENS_AN_IMAGE_LIKELY: u64 = 1_500;
/// What a page of a document is likely to come to: its text, and the picture of it.
const TOKENS_A_PAGE: u64 = 3_000;
/// What the providers put before a call with tools.
const TOKENS_OF_TOOLS: u64 = 1_000;

/// What goes in, as far as its price depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is seen or not")]
pub struct InputSize {
    /// Of all text, by the token counter, tools and system prompt included.
    pub text_tokens: u64,
    /// Of everything but the media.
    pub text_bytes: u64,
    /// Which of those bytes are not counted in `text_tokens`.
    pub opaque_bytes: u64,
    /// How many digits the text has.
    pub digits: u64,
    /// Messages whose own JSON is not weighed, of which nothing but the text is.
    pub messages: u64,
    pub images: u64,
    /// Pages of documents, by their length.
    pub pages: u64,
    /// Of sound and film, and of very large pictures beyond what a picture has.
    pub media_tokens: u64,
    pub has_audio: bool,
    pub has_tools: bool,
    /// Whether something goes in that cannot be seen in the request.
    pub is_unseen: bool,
    /// Whether the answer may be spoken.
    pub answers_in_sound: bool,
    /// How many tokens the model is told to think with: the bound of its answer has to be larger.
    pub thinking_budget: u64,
    /// How often each of the provider's own tools may be called, where the call offers them.
    pub tool_calls: ToolCalls,
}

impl InputSize {
    /// As much as it is likely to be: what is told where tokens are only counted, and billed where the provider says nothing.
    pub fn likely(&self) -> u64 {
        let parts = [
            self.text(),
            self.of_messages(),
            TOKENS_AN_IMAGE_LIKELY.saturating_mul(self.images),
            TOKENS_A_PAGE.saturating_mul(self.pages),
            self.media_tokens,
        ];
        sum(parts)
    }

    /// As much as it can be at a provider; `is_openai` says whether its tokens are those of the counter.
    pub fn most(&self, model: &str, is_openai: bool) -> u64 {
        let counted = self.text().saturating_add(self.of_messages());
        let text = if is_openai {
            counted
        } else {
            // The counter takes three digits for a token.
            let singly = counted.saturating_add(self.digits.saturating_mul(2) / 3);
            counted.saturating_add(counted / 2).max(singly)
        };
        let of_bytes = self.text_bytes.div_ceil(BYTES_A_TOKEN_HELD).saturating_add(self.of_messages());
        let tools = if self.has_tools && !is_openai { TOKENS_OF_TOOLS } else { 0 };
        let dear = TOKENS_AN_IMAGE_OF.iter().find(|(prefix, _)| model.starts_with(prefix));
        let an_image = dear.map_or(TOKENS_AN_IMAGE, |(_, tokens)| *tokens);
        sum([text.max(of_bytes), tools, an_image.saturating_mul(self.images), self.media_tokens, 0])
    }

    /// What of it is surely text, so that a call with more than the model takes can be refused at once.
    pub const fn least(&self) -> u64 {
        self.text_tokens
    }

    /// The same with what goes along.
    #[must_use]
    pub const fn with_text(self, tokens: u64, bytes: u64) -> Self {
        let (text_tokens, text_bytes) =
            (self.text_tokens.saturating_add(tokens), self.text_bytes.saturating_add(bytes));
        Self { text_tokens, text_bytes, messages: self.messages.saturating_add(1), ..self }
    }

    /// A sound, a film, or a picture that is larger than others, by the length of its base64.
    pub const fn add_media(&mut self, tokens: u64) {
        self.media_tokens = self.media_tokens.saturating_add(tokens);
    }

    fn text(&self) -> u64 {
        let counted = self.text_tokens.saturating_add(self.opaque_bytes.div_ceil(BYTES_A_TOKEN));
        counted.max(self.text_bytes.div_ceil(BYTES_A_TOKEN))
    }

    const fn of_messages(&self) -> u64 {
        match self.messages {
            0 => 0,
            messages => TOKENS_A_MESSAGE.saturating_mul(messages.saturating_add(1)),
        }
    }
}

fn sum(parts: [u64; 5]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_picture_has_what_its_model_counts() {
        let size = InputSize { images: 2, ..InputSize::default() };
        assert_eq!((size.likely(), size.most("gpt-5", true)), (3_000, 10_000));
        assert_eq!(size.most("gpt-4o-mini-2024", true), 2 * 48_200);
    }

    #[test]
    fn others_count_each_digit() {
        let digits = InputSize { text_tokens: 1_000, text_bytes: 3_000, digits: 3_000, ..InputSize::default() };
        assert_eq!(digits.most("m", true), 1_000);
        assert_eq!(digits.most("m", false), 3_000);
    }

    proptest! {
        #[test]
        fn it_is_never_less_than_its_bytes_say(
            text_tokens: u64, text_bytes: u64, opaque_bytes: u64, digits: u64, messages: u64, images: u64, is_openai: bool,
        ) {
            let size = InputSize { text_tokens, text_bytes, opaque_bytes, digits, messages, images, ..InputSize::default() };
            prop_assert!(size.likely() >= text_bytes.div_ceil(BYTES_A_TOKEN).max(text_tokens));
            let most = size.most("m", is_openai);
            prop_assert!(most >= text_bytes.div_ceil(BYTES_A_TOKEN_HELD).max(text_tokens));
        }
    }
}
