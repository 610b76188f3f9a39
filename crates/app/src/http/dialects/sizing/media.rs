//! Media: what of a body is proven to be an image, audio, video or a document, so that its bytes are not text.
//!
//! A string is proven if it is at a known place of its dialect, is base64 throughout, and begins with the bytes of its
//! format. Base64 of no known format at such a place is opaque: the provider refuses it or knows the format. Everything
//! else is text.

use std::collections::HashMap;

use domain::ai::InputSize;

/// The base64 of about a page of a document.
const PAGE_LENGTH: usize = 50_000;
/// The assumed pages of a document that we cannot see.
const PAGES_UNSEEN: u64 = 10;
/// Base64 characters a token: of audio and video, of uncompressed audio, of a very large image.
const OF_SOUND: usize = 40;
const OF_UNCOMPRESSED: usize = 300;
const OF_A_PICTURE: usize = 1_000;
/// The tokens that each image counts by its number alone; a larger one counts the rest by its length.
const PICTURE: u64 = 5_000;

/// How a string of a body that is not text is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaClass {
    Medium,
    /// By its bytes alone.
    Opaque,
}

/// Strings that are left out of the text, each as often as it is at a place for it.
#[derive(Debug, Default)]
pub struct TakenMedia<'a>(HashMap<&'a str, (MediaClass, u64)>);

impl<'a> TakenMedia<'a> {
    fn add(&mut self, text: &'a str, class: MediaClass) {
        let (known, times) = self.0.entry(text).or_insert((class, 0));
        // The same bytes as a medium and as something else: the more expensive class.
        if *known != class {
            *known = MediaClass::Opaque;
        }
        *times += 1;
    }

    /// Whether this string is one of them; if so, there is one fewer.
    pub fn take(&mut self, text: &str) -> Option<MediaClass> {
        let (class, times) = self.0.get_mut(text).filter(|(_, times)| *times > 0)?;
        *times -= 1;
        Some(*class)
    }
}

/// What the known places of a body contain.
#[derive(Debug, Default)]
pub struct FoundMedia<'a> {
    pub size: InputSize,
    pub taken: TakenMedia<'a>,
}

/// The kind of a medium, as far as it is counted differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Picture,
    Sound,
    Uncompressed,
    Film,
    Document,
}

impl<'a> FoundMedia<'a> {
    /// Base64 with a media type, as Claude and Gemini accept it.
    pub fn inline(&mut self, media_type: &str, data: &'a str) {
        let kind = match media_type.split('/').next() {
            Some("image") => Kind::Picture,
            Some("audio") => Kind::Sound,
            Some("video") => Kind::Film,
            _ if media_type == "application/pdf" => Kind::Document,
            // Text in base64 is counted as the text that it looks like; all other types are compressed.
            Some("text") => return,
            _ => {
                self.size.is_unseen = true;
                return self.opaque(data);
            }
        };
        self.medium(kind, data);
    }

    /// An image by its URL, or as a data URI.
    pub fn picture_url(&mut self, url: &'a str) {
        match data_uri(url) {
            Some((media_type, data)) if media_type.starts_with("image/") => self.medium_in(Kind::Picture, data, url),
            _ => self.picture_unseen(),
        }
    }

    /// A document as a data URI, or as base64 alone.
    pub fn file_data(&mut self, data: &'a str) {
        match data_uri(data) {
            Some(("application/pdf", inner)) => self.medium_in(Kind::Document, inner, data),
            Some((media_type, _)) if media_type.starts_with("text/") => {}
            Some(_) => self.unseen_document(),
            None => self.medium(Kind::Document, data),
        }
    }

    pub fn sound(&mut self, data: &'a str) {
        self.medium(Kind::Sound, data);
    }

    pub fn picture_unseen(&mut self) {
        self.size.images = self.size.images.saturating_add(1);
        self.size.is_unseen = true;
    }

    pub fn unseen_document(&mut self) {
        self.size.pages = self.size.pages.saturating_add(PAGES_UNSEEN);
        self.size.is_unseen = true;
    }

    /// The model reads something that is not in the body.
    pub fn unseen(&mut self) {
        self.size.is_unseen = true;
    }

    /// Bytes that the provider made and recognizes: signatures, encrypted thoughts. Text there stays text.
    pub fn opaque(&mut self, text: &'a str) {
        if is_base64(text) {
            self.taken.add(text, MediaClass::Opaque);
        }
    }

    fn medium(&mut self, kind: Kind, data: &'a str) {
        self.medium_in(kind, data, data);
    }

    /// `whole` is the string that contains the base64.
    fn medium_in(&mut self, kind: Kind, data: &str, whole: &'a str) {
        let is_sound = matches!(kind, Kind::Sound | Kind::Uncompressed | Kind::Film);
        self.size.has_audio |= is_sound;
        if kind == Kind::Picture {
            self.size.images = self.size.images.saturating_add(1);
        }
        if kind == Kind::Document {
            let pages = data.len().div_ceil(PAGE_LENGTH).max(1);
            self.size.pages = self.size.pages.saturating_add(u64::try_from(pages).unwrap_or(u64::MAX));
            self.size.is_unseen = true;
        }
        if !is_base64(data) {
            return;
        }
        let found = format_of(data).filter(|found| fits(kind, *found));
        self.taken.add(whole, if found.is_some() { MediaClass::Medium } else { MediaClass::Opaque });
        let tokens = |characters: usize| u64::try_from(data.len().div_ceil(characters)).unwrap_or(u64::MAX);
        // How long compressed audio or video lasts cannot be told from its size.
        self.size.is_unseen |= matches!(found, Some(Kind::Sound | Kind::Film));
        self.size.add_media(match found {
            Some(Kind::Picture) => tokens(OF_A_PICTURE).saturating_sub(PICTURE),
            Some(Kind::Sound | Kind::Film) => tokens(OF_SOUND),
            Some(Kind::Uncompressed) => tokens(OF_UNCOMPRESSED),
            Some(Kind::Document) | None => 0,
        });
    }
}

/// Video and audio share their containers.
const fn fits(asked: Kind, found: Kind) -> bool {
    match asked {
        Kind::Picture => matches!(found, Kind::Picture),
        Kind::Document => matches!(found, Kind::Document),
        Kind::Sound | Kind::Uncompressed | Kind::Film => matches!(found, Kind::Sound | Kind::Uncompressed | Kind::Film),
    }
}

/// The media type and the base64 of a data URI.
fn data_uri(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix("data:")?.split_once(";base64,")
}

/// Whether a text is base64 in either alphabet, and nothing else.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    !digits.is_empty() && text.len() - digits.len() <= 2 && digits.len() % 4 != 1 && digits.bytes().all(is_digit)
}

/// The kind of a medium, by its first bytes.
fn format_of(base64: &str) -> Option<Kind> {
    let head = head(base64);
    let at = |from: usize, bytes: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(bytes));
    let in_riff = |kind: &[u8]| at(0, b"RIFF") && at(8, kind);
    let brand = |brands: &[&[u8]]| at(4, b"ftyp") && brands.iter().any(|brand| at(8, brand));
    if at(0, b"\x89PNG\r\n\x1a\n")
        || at(0, b"\xff\xd8\xff")
        || at(0, b"GIF87a")
        || at(0, b"GIF89a")
        || in_riff(b"WEBP")
        || brand(&[b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif"])
    {
        return Some(Kind::Picture);
    }
    if at(0, b"%PDF-") {
        return Some(Kind::Document);
    }
    if in_riff(b"WAVE") || (at(0, b"FORM") && at(8, b"AIF")) {
        return Some(Kind::Uncompressed);
    }
    let is_mpeg_audio = matches!(head.get(..2), Some([0xff, second]) if second & 0xe0 == 0xe0);
    if at(0, b"ID3") || is_mpeg_audio || at(0, b"fLaC") || at(0, b"OggS") || at(4, b"ftyp") {
        return Some(Kind::Sound);
    }
    let is_film = at(0, b"\x1a\x45\xdf\xa3") || at(0, b"\0\0\x01\xba") || at(0, b"FLV") || in_riff(b"AVI ");
    is_film.then_some(Kind::Film)
}

/// The first bytes that base64 encodes.
fn head(base64: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    for quad in base64.as_bytes().chunks_exact(4).take(8) {
        let bits = quad.iter().fold(0_u32, |bits, digit| (bits << 6) | value(*digit));
        let [_, first, second, third] = bits.to_be_bytes();
        bytes.extend([first, second, third]);
    }
    bytes
}

fn value(digit: u8) -> u32 {
    let number = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        _ => 63,
    };
    u32::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB";
    const PDF: &str = "JVBERi0xLjcKJeLjz9MK";
    const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAAB";
    const MP3: &str = "SUQzBAAAAAAAAAAAAAAAAAAA";

    fn class(found: &FoundMedia<'_>, text: &str) -> Option<MediaClass> {
        found.taken.0.get(text).map(|(class, _)| *class)
    }

    #[test]
    fn a_medium_is_proven_by_its_first_bytes() {
        for (media_type, data, expected) in [
            ("image/png", PNG, Some(MediaClass::Medium)),
            ("image/jpeg", PNG, Some(MediaClass::Medium)),
            ("application/pdf", PDF, Some(MediaClass::Medium)),
            ("audio/wav", WAV, Some(MediaClass::Medium)),
            ("audio/mp3", MP3, Some(MediaClass::Medium)),
            ("video/mp4", "AAAAIGZ0eXBpc29tAAACAGlz", Some(MediaClass::Medium)),
            ("image/png", PDF, Some(MediaClass::Opaque)),
            ("image/png", "wordwordwordword", Some(MediaClass::Opaque)),
            ("audio/pcm", "AAAAAAAAAAAAAAAAAAAA", Some(MediaClass::Opaque)),
            ("image/png", "word word word", None),
            ("image/png", "", None),
            ("image/png", "A", None),
            ("text/plain", "aGVsbG8gd29ybGQ=", None),
            ("application/zip", "UEsDBBQAAAAI", Some(MediaClass::Opaque)),
        ] {
            let mut found = FoundMedia::default();
            found.inline(media_type, data);
            assert_eq!(class(&found, data), expected, "{media_type} {data}");
        }
    }

    #[test]
    fn each_has_a_rule_of_its_own() {
        let size = |media_type: &str, data: &str| {
            let mut found = FoundMedia::default();
            found.inline(media_type, data);
            found.size
        };
        let long = |head: &str| format!("{head}{}", "A".repeat(6_000_000));
        assert_eq!(size("image/png", PNG), InputSize { images: 1, ..InputSize::default() });
        assert_eq!(size("image/png", &long(PNG)).media_tokens, 1_001);
        let sound = size("audio/mp3", &long(MP3));
        assert_eq!((sound.has_audio, sound.media_tokens), (true, 150_001));
        assert_eq!(size("audio/wav", &long(WAV)).media_tokens, 20_001);
        let document = size("application/pdf", PDF);
        assert_eq!((document.pages, document.is_unseen, document.media_tokens), (1, true, 0));
        assert!(size("application/zip", "UEsDBBQAAAAI").is_unseen);
    }

    #[test]
    fn an_address_is_unseen_and_a_data_uri_is_not() {
        let url = format!("data:image/png;base64,{PNG}");
        let mut found = FoundMedia::default();
        found.picture_url(&url);
        assert_eq!((class(&found, &url), found.size.images), (Some(MediaClass::Medium), 1));
        assert!(!found.size.is_unseen);
        for url in ["https://example.com/x.png", "data:text/plain,hello", "data:text/html;base64,AAAA", ""] {
            let mut found = FoundMedia::default();
            found.picture_url(url);
            assert_eq!((class(&found, url), found.size.is_unseen), (None, true), "{url}");
        }
    }

    #[test]
    fn what_stands_elsewhere_too_is_taken_off_once() {
        let mut found = FoundMedia::default();
        found.inline("image/png", PNG);
        assert_eq!(found.taken.take(PNG), Some(MediaClass::Medium));
        assert_eq!(found.taken.take(PNG), None, "the same text in another place is text");
    }
}
