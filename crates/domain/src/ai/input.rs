//! Input: its size, estimated before the call. The amount reserved for it is based on these numbers.
//!
//! Every byte of a request is counted. Only proven media (the base64 bytes of an image, audio, a video or a document,
//! at a known place of the dialect) are excluded from the text and counted by rules of their own:
//!
//! - Text: `likely` is at least one token per 4 bytes, and at least the token counter's count of all of it: field
//!   names, numbers, tool arguments and unknown fields are text. `most` is at least one token per 3 bytes. Providers
//!   other than `OpenAI` count up to a half more than our counter, and each digit as a token of its own.
//! - Opaque bytes (signatures, encrypted reasoning and search results, base64 of unknown formats) are excluded from the
//!   token count, which does not apply to them, but not from the bytes.
//! - An image: 5,000 tokens at most, or one token per 1,000 characters of its base64 if that is more.
//! - Audio and video: one token per 40 characters of base64, uncompressed audio one token per 300.
//! - A document is compressed, so its text cannot be counted: it is unseen. It likely has one page per 50,000
//!   characters.
//! - Unseen input (files, URLs, caches, containers, the provider's own tools) is reserved as the model's input window.

use super::usage::ToolCalls;

/// The bytes of text per token, at most, for the likely count.
pub const BYTES_A_TOKEN: u64 = 4;
/// The same for the reserved amount.
pub const BYTES_A_TOKEN_HELD: u64 = 3;
/// The tokens of each message beside its text, and once more for the request. Used where the JSON of the messages is
/// not counted.
const TOKENS_A_MESSAGE: u64 = 8;
/// The upper bound for one image, at the highest resolution that any provider accepts.
const TOKENS_AN_IMAGE: u64 = 5_000;
/// Models that count more tokens per image than the others.
const TOKENS_AN_IMAGE_OF: [(&str, u64); 1] = [("gpt-4o-mini", 48_200)];
/// The likely tokens of an image.
const TOKENS_AN_IMAGE_LIKELY: u64 = 1_500;
/// The likely tokens of a document's page: its text and its image.
const TOKENS_A_PAGE: u64 = 3_000;
/// The tokens that providers add to a call with tools.
const TOKENS_OF_TOOLS: u64 = 1_000;

/// The input, as far as its price depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is seen or not")]
pub struct InputSize {
    /// Of all text, by the token counter, tools and system prompt included.
    pub text_tokens: u64,
    /// Of everything except media.
    pub text_bytes: u64,
    /// Which of those bytes are not counted in `text_tokens`.
    pub opaque_bytes: u64,
    /// How many digits the text has.
    pub digits: u64,
    /// Messages of which only the text is counted, not their own JSON.
    pub messages: u64,
    pub images: u64,
    /// Pages of documents, estimated by their length.
    pub pages: u64,
    /// Of audio and video, and of very large images beyond the tokens of an image.
    pub media_tokens: u64,
    pub has_audio: bool,
    pub has_tools: bool,
    /// Whether the call has input that is not in the request.
    pub is_unseen: bool,
    /// Whether the answer may be audio.
    pub answers_in_sound: bool,
    /// The reasoning tokens that the request allows: the output limit must be larger.
    pub thinking_budget: u64,
    /// How often each of the provider's own tools may be called, if the call offers them.
    pub tool_calls: ToolCalls,
}

impl InputSize {
    /// The likely size: reported if tokens are only counted, and billed if the provider reports nothing.
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

    /// The upper bound at a provider; `is_openai` says whether its tokens are those of the counter.
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

    /// The input that is certainly text, so that a call with more than the model accepts can be refused at once.
    pub const fn least(&self) -> u64 {
        self.text_tokens
    }

    /// The same with one more message of this text.
    #[must_use]
    pub const fn with_text(self, tokens: u64, bytes: u64) -> Self {
        let (text_tokens, text_bytes) =
            (self.text_tokens.saturating_add(tokens), self.text_bytes.saturating_add(bytes));
        Self { text_tokens, text_bytes, messages: self.messages.saturating_add(1), ..self }
    }

    /// Adds the tokens of audio, a video, or a larger image, by the length of its base64.
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
