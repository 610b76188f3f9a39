//! Sizing: what goes in, counted before the call, so that the most that it can cost is held.
//!
//! Every text at any depth is counted, and a tool's schema as the JSON that it is: rather too much than too little.
//! Pictures, sound and documents are counted as such, never as text; a document is as many pictures as it has pages, which
//! its length tells nearly enough. Costs one walk over the body and one count of its text.

use serde_json::Value;
use services::ai::calls::InputSize;

use super::asked::refused;
use crate::http::problem::Problem;

/// How many pictures a call may have.
pub const IMAGES_MAX: u64 = 20;
/// How long one picture may be, in base64: one MiB of bytes.
pub const IMAGE_LENGTH_MAX: usize = 1_400_000;
/// How long the address of a picture may be.
const ADDRESS_LENGTH_MAX: usize = 8_192;
/// The base64 of about a page of a document.
const PAGE_LENGTH: usize = 50_000;
/// What a document has that we do not see.
const PAGES_UNSEEN: u64 = 10;
/// What a video has that we do not see: a frame a second, for a minute.
const FRAMES_UNSEEN: u64 = 60;

/// Fields whose text is no input: names of kinds, ids, and bytes that are counted otherwise.
const NO_TEXT: [&str; 14] = [
    "type",
    "role",
    "id",
    "tool_call_id",
    "tool_use_id",
    "signature",
    "thoughtSignature",
    "thought_signature",
    "encrypted_content",
    "media_type",
    "mimeType",
    "mime_type",
    "cache_control",
    "data",
];

/// Counts what it is shown.
pub struct Scale<'a> {
    count: &'a dyn Fn(&str) -> u64,
    pub size: InputSize,
    images: u64,
}

/// What is too much, and where: the path grows on the way up.
struct TooMuch {
    path: String,
    why: String,
}

impl TooMuch {
    fn under(self, name: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { path: format!("{name}{joint}{}", self.path), ..self }
    }
}

type Walked = Result<(), TooMuch>;

impl<'a> Scale<'a> {
    pub fn new(count: &'a dyn Fn(&str) -> u64) -> Self {
        Self { count, size: InputSize::default(), images: 0 }
    }

    /// Counts a field of the body with everything in it.
    pub fn weigh(&mut self, body: &Value, name: &str) -> Result<(), Problem> {
        let Some(value) = body.get(name) else { return Ok(()) };
        self.walk(value).map_err(|much| much.under(name)).map_err(|much| refused(much.path, much.why))
    }

    /// Counts a field as the JSON that it is.
    pub fn weigh_json(&mut self, body: &Value, name: &str) {
        if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
            self.add_text(&value.to_string());
        }
    }

    fn add_text(&mut self, text: &str) {
        self.size.text_tokens = self.size.text_tokens.saturating_add((self.count)(text));
    }

    fn walk(&mut self, value: &Value) -> Walked {
        match value {
            Value::String(text) => self.add_text(text),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(item).map_err(|much| much.under(&format!("[{index}]")))?;
                }
            }
            Value::Object(fields) => {
                if self.medium(value)? {
                    return Ok(());
                }
                for (name, inner) in fields.iter().filter(|(name, _)| !NO_TEXT.contains(&name.as_str())) {
                    self.walk(inner).map_err(|much| much.under(name))?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    /// Whether it is something else than text; then it is counted.
    fn medium(&mut self, part: &Value) -> Result<bool, TooMuch> {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        let field = |camel: &str, snake: &str| part.get(camel).or_else(|| part.get(snake));
        match kind {
            "image_url" | "input_image" => {
                let address = part.pointer("/image_url/url").or_else(|| part.get("image_url"));
                self.image(address.and_then(Value::as_str).unwrap_or_default())
                    .map_err(|much| much.under("image_url"))?;
            }
            "image" => {
                let source = part.get("source");
                let bytes = source.and_then(|source| source.get("data").or_else(|| source.get("url")));
                self.image(bytes.and_then(Value::as_str).unwrap_or_default()).map_err(|much| much.under("source"))?;
            }
            "input_audio" => self.size.has_audio = true,
            "file" => self.document(part.pointer("/file/file_data").and_then(Value::as_str)),
            "document" => return Ok(self.source(part)),
            _ => {
                if let Some(inline) = field("inlineData", "inline_data") {
                    let bytes = inline.get("data").and_then(Value::as_str).unwrap_or_default();
                    return self.by_mime(inline, Some(bytes)).map_err(|much| much.under("inlineData")).map(|()| true);
                }
                if let Some(file) = field("fileData", "file_data").filter(|file| file.is_object()) {
                    return self.by_mime(file, None).map(|()| true);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn by_mime(&mut self, data: &Value, bytes: Option<&str>) -> Walked {
        let mime = data.get("mimeType").or_else(|| data.get("mime_type")).and_then(Value::as_str).unwrap_or_default();
        match mime.split('/').next() {
            Some("image") => return self.image(bytes.unwrap_or_default()),
            Some("audio") => self.size.has_audio = true,
            Some("video") => {
                self.size.has_audio = true;
                self.size.images = self.size.images.saturating_add(FRAMES_UNSEEN);
            }
            _ => self.document(bytes),
        }
        Ok(())
    }

    /// Claude's document: bytes, an address, plain text, or content of its own.
    fn source(&mut self, part: &Value) -> bool {
        let source = part.get("source").unwrap_or(&Value::Null);
        let text = |name: &str| source.get(name).and_then(Value::as_str);
        match text("type") {
            Some("text") => self.add_text(text("data").unwrap_or_default()),
            Some("base64") => self.document(text("data")),
            Some("content") => return false,
            _ => self.document(None),
        }
        true
    }

    fn document(&mut self, bytes: Option<&str>) {
        let pages = |bytes: &str| u64::try_from(bytes.len().div_ceil(PAGE_LENGTH)).unwrap_or(u64::MAX).max(1);
        self.size.images = self.size.images.saturating_add(bytes.map_or(PAGES_UNSEEN, pages));
    }

    /// By its bytes, or by an address.
    fn image(&mut self, source: &str) -> Walked {
        self.images += 1;
        self.size.images = self.size.images.saturating_add(1);
        let much = |why: String| Err(TooMuch { path: String::new(), why });
        if self.images > IMAGES_MAX {
            return much(format!("is one picture too many: a call has at most {IMAGES_MAX}"));
        }
        let is_address = source.starts_with("http://") || source.starts_with("https://");
        let most = if is_address { ADDRESS_LENGTH_MAX } else { IMAGE_LENGTH_MAX };
        if source.len() > most {
            return much(format!("is longer than a picture may be: {most} characters"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> u64 {
        u64::try_from(text.split_whitespace().count()).unwrap()
    }

    fn weigh(messages: &Value) -> Result<InputSize, Problem> {
        let mut scale = Scale::new(&words);
        scale.weigh(&json!({ "messages": messages }), "messages")?;
        Ok(scale.size)
    }

    #[test]
    fn all_text_counts_and_nothing_else() {
        let size = weigh(&json!([
            { "role": "user", "content": "one two" },
            { "role": "assistant", "content": null, "tool_calls": [{ "id": "a b", "type": "function",
                "function": { "name": "f", "arguments": "{ \"x\": 1 }" } }] },
            { "role": "user", "content": [{ "type": "text", "text": "three" },
                { "type": "tool_result", "tool_use_id": "a b", "content": [{ "type": "text", "text": "four five" }] },
                { "type": "document", "source": { "type": "text", "data": "six seven" } }] }
        ]));
        assert_eq!(size.unwrap(), InputSize { text_tokens: 7 + 5, ..InputSize::default() });
        let mut scale = Scale::new(&words);
        scale.weigh_json(&json!({ "tools": [{ "description": "so it is" }] }), "tools");
        assert_eq!(scale.size.text_tokens, 3);
    }

    #[test]
    fn pictures_sound_and_documents_count_as_what_they_are() {
        let long = "A".repeat(PAGE_LENGTH + 1);
        for (part, images, has_audio) in [
            (json!({ "type": "image_url", "image_url": { "url": "https://x/y.png" } }), 1, false),
            (json!({ "type": "image", "source": { "type": "base64", "data": long } }), 1, false),
            (json!({ "inlineData": { "mimeType": "image/png", "data": long } }), 1, false),
            (json!({ "inline_data": { "mime_type": "application/pdf", "data": long } }), 2, false),
            (json!({ "type": "document", "source": { "type": "base64", "data": long } }), 2, false),
            (json!({ "type": "file", "file": { "file_id": "f" } }), PAGES_UNSEEN, false),
            (json!({ "type": "input_audio", "input_audio": { "data": long } }), 0, true),
            (json!({ "fileData": { "mimeType": "video/mp4", "fileUri": "x" } }), FRAMES_UNSEEN, true),
        ] {
            let size = weigh(&json!([{ "role": "user", "content": [part] }])).unwrap();
            assert_eq!(size, InputSize { images, has_audio, ..InputSize::default() }, "{part}");
        }
    }

    #[test]
    fn what_is_too_much_is_named() {
        let image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AA" } });
        let many = vec![image; 21];
        let refused = weigh(&json!([{ "role": "user", "content": many }])).unwrap_err();
        assert_eq!(refused.fields["errors"][0]["field"], "messages[0].content[20].image_url");
        let long = "A".repeat(IMAGE_LENGTH_MAX + 1);
        let image = json!({ "type": "image", "source": { "type": "base64", "data": long } });
        let refused =
            weigh(&json!([{ "role": "user", "content": [{ "type": "text", "text": "x" }, image] }])).unwrap_err();
        assert_eq!(refused.fields["errors"][0]["field"], "messages[0].content[1].source");
        assert_eq!(refused.status.as_u16(), 400);
    }
}
