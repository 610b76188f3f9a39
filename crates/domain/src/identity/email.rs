//! E-mail addresses: an address entered here is validated (`Email`), one stored by an identity provider is not
//! (`StoredEmail`).
//!
//! Promise: an `Email` is in one spelling (lower case, NFC, at most 254 bytes) and parsing it again gives the same; it
//! has no invisible characters, none that only look like ASCII, no phonetic letters among ASCII ones, and no letters of
//! another script among or in the place of Latin ones that they resemble (Unicode Technical Standard 39). Costs a pass or two over at most 254 bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use unicode_security::{GeneralSecurityProfile, MixedScript, skeleton};

/// The longest e-mail address that SMTP can carry, in bytes (RFC 5321, section 4.5.3.1.3).
pub const EMAIL_MAX_LENGTH: usize = 254;

/// Characters that are invisible or change how their neighbours are shown: Unicode's default ignorable code points, the
/// interlinear marks, the replacement characters and the Braille blank.
const INVISIBLE: [(u32, u32); 21] = [
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xE000, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFF),
    (0x1_BCA0, 0x1_BCA3),
    (0x1_D173, 0x1_D17A),
    (0xE_0000, 0xE_0FFF),
    (0xF_0000, 0x10_FFFF),
];

/// Letters of Turkish, Icelandic and Ewe that resemble an ASCII letter and are written among such.
const LETTERS_IN_USE: [char; 5] = ['ı', 'þ', 'ƒ', 'ɣ', 'ʋ'];

/// An e-mail address as it is entered here, in one spelling, so that one mailbox is one identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EmailRefused {
    #[error("an e-mail address has one @ between a name and a domain")]
    Malformed,
    #[error("an e-mail address has at most 254 bytes, in lower case and NFC")]
    TooLong,
    #[error("an e-mail address has no invisible characters and none that only look like others")]
    LookAlike,
}

impl Email {
    pub fn parse(text: &str) -> Result<Self, EmailRefused> {
        let text = text.trim();
        // The spelling has at least a third of the bytes that were entered, so a far longer text is refused unread.
        if text.len() > 4 * EMAIL_MAX_LENGTH {
            return Err(EmailRefused::TooLong);
        }
        if text.chars().any(is_look_alike) {
            return Err(EmailRefused::LookAlike);
        }
        // All other checks apply to the one spelling: lower case may be longer, with other characters, than the text
        // entered (a Turkish capital I with a dot becomes an i and a combining dot).
        let text = spelling(text);
        if text.len() > EMAIL_MAX_LENGTH {
            return Err(EmailRefused::TooLong);
        }
        if spelling(&text) != text || !is_well_formed(&text) {
            return Err(EmailRefused::Malformed);
        }
        if text.split(|character: char| !character.is_alphanumeric()).any(imitates_latin) {
            return Err(EmailRefused::LookAlike);
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The spellings under which an account opened with this text may be stored, the exact one first: earlier releases
    /// did not normalize to NFC. Empty for a text that no account can have.
    pub fn stored_spellings(text: &str) -> Vec<String> {
        let text = text.trim();
        if text.is_empty() || text.len() > 4 * EMAIL_MAX_LENGTH || text.chars().any(char::is_control) {
            return Vec::new();
        }
        let mut spellings = vec![text.to_lowercase()];
        spellings.extend(Some(spelling(text)).filter(|one| spellings.first() != Some(one)));
        spellings
    }
}

/// Lower case and NFC.
fn spelling(text: &str) -> String {
    text.to_lowercase().nfc().collect()
}

fn is_well_formed(text: &str) -> bool {
    let Some((name, domain)) = text.split_once('@') else { return false };
    let unfit =
        |character: char| character.is_whitespace() || character.is_control() || "<>()[],;:\\\"".contains(character);
    let hyphens_inside = |label: &str| !label.starts_with('-') && !label.ends_with('-');
    let fits = |label: &str| !label.is_empty() && label.chars().all(|one| one.is_alphanumeric() || one == '-');
    let domain_is_one = domain.split('.').all(|label| fits(label) && hyphens_inside(label));
    !name.is_empty() && domain_is_one && !text.contains(unfit)
}

/// Whether the character is invisible or resembles ASCII without being it: a full-width or mathematical letter, a
/// ligature, a superscript.
fn is_look_alike(character: char) -> bool {
    let code = u32::from(character);
    let is_invisible = INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&code));
    let is_styled_ascii = || {
        !character.is_ascii() && !character.is_whitespace() && {
            // Canonical equivalence does not count: the Kelvin sign is a K, and NFC writes it so.
            std::iter::once(character).nfc().any(|one| !one.is_ascii())
                && std::iter::once(character).nfkc().all(|one| one.is_ascii())
        }
    };
    is_invisible || is_styled_ascii()
}

/// Whether letters of another script occur in a word of Latin ones that they resemble, or form a word that resembles an
/// ASCII one, or whether phonetic letters or letters of a script that is not in everyday use (Unicode Technical
/// Standard 39, General Security Profile) occur among ASCII ones.
fn imitates_latin(word: &str) -> bool {
    if word.is_ascii() {
        return false;
    }
    let letters = || word.chars().filter(|one| one.is_alphabetic());
    let (imitating, others): (Vec<char>, Vec<char>) = letters().partition(|letter| imitates_ascii(*letter));
    let is_imitation = !imitating.is_empty() && (others.is_empty() || !word.is_single_script());
    let is_odd = |letter: char| !letter.is_ascii() && (!letter.identifier_allowed() || is_taken_for_one(letter));
    is_imitation || letters().any(is_odd) && letters().any(|letter| letter.is_ascii())
}

/// Whether a letter looks like one ASCII letter, as a Latin iota does.
fn is_taken_for_one(letter: char) -> bool {
    !LETTERS_IN_USE.contains(&letter)
        && imitates_ascii(letter)
        && skeleton(letter.encode_utf8(&mut [0; 4])).count() == 1
}

/// Whether a letter beyond ASCII resembles an ASCII letter in lower or in upper case.
fn imitates_ascii(letter: char) -> bool {
    let resembles = |one: char| skeleton(one.encode_utf8(&mut [0; 4])).all(|one| one.is_ascii());
    !letter.is_ascii()
        && (resembles(letter) || letter.to_uppercase().all(|upper| !upper.is_ascii() && resembles(upper)))
}

impl TryFrom<String> for Email {
    type Error = EmailRefused;

    fn try_from(text: String) -> Result<Self, EmailRefused> {
        Self::parse(&text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An address as the identity provider stores it: shown unchanged, and never a reason to refuse a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEmail(String);

impl StoredEmail {
    /// `None` for an empty text, which some providers store for no address.
    pub fn new(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this address in some spelling.
    pub fn is(&self, email: &Email) -> bool {
        Self::from(email.clone()) == *self || spelling(self.0.trim()) == email.0
    }
}

impl From<Email> for StoredEmail {
    fn from(email: Email) -> Self {
        Self(email.0)
    }
}

impl fmt::Display for StoredEmail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, EmailRefused> {
        Email::parse(text).map(String::from)
    }

    #[test]
    fn an_email_is_trimmed_and_in_one_spelling() {
        assert_eq!(parsed("  Ada@Example.COM ").as_deref(), Ok("ada@example.com"));
        assert_eq!(parsed("a\u{308}da@exa\u{308}mple.com").as_deref(), Ok("äda@exämple.com"), "NFC");
        assert_eq!(parsed("AD\u{212A}@example.com").as_deref(), Ok("adk@example.com"), "the Kelvin sign is a K");
        for bad in
            ["", "ada", "@example.com", "ada@", "a@b@c", "a b@c.d", "a@b..c", "a\u{0}@b.c", "a@.c", "a@b*.c", "a@-b.c"]
        {
            assert_eq!(parsed(bad), Err(EmailRefused::Malformed), "{bad:?}");
        }
        assert_eq!(parsed(&format!("{}@example.com", "a".repeat(250))), Err(EmailRefused::TooLong));
    }

    #[test]
    fn lower_case_is_judged_and_not_what_was_entered() {
        assert_eq!(parsed("a@İstanbul.com"), Err(EmailRefused::Malformed));
        assert_eq!(parsed(&format!("{}@example.com", "İ".repeat(110))), Err(EmailRefused::TooLong));
        assert!(parsed("İ@example.com").is_ok_and(|text| text == "i\u{307}@example.com"));
    }

    #[test]
    fn what_nobody_sees_or_what_is_taken_for_another_is_refused() {
        for bad in [
            '\u{200B}',
            '\u{200D}',
            '\u{AD}',
            '\u{FEFF}',
            '\u{202E}',
            '\u{2066}',
            '\u{200F}',
            '\u{061C}',
            '\u{2060}',
            '\u{FE0F}',
            '\u{E0041}',
            '\u{3164}',
            '\u{180E}',
            'ａ',
            'ﬁ',
            '𝐚',
            'ª',
            '①',
            'ſ',
        ] {
            for text in [format!("a{bad}da@example.com"), format!("ada@exa{bad}mple.com"), format!("{bad}@example.com")]
            {
                assert_eq!(parsed(&text), Err(EmailRefused::LookAlike), "{text:?}");
            }
        }
        let imitations = [
            "аdmin@example.com",
            "admin@exаmple.com",
            "ada.lοvelace@x.com",
            "ѕсоре7@example.com",
            "a@аррӏе.com",
            "ɑdmin@example.com",
            "ᴀdmin@example.com",
            "ɡoogle@example.com",
            "gⲟⲟgle@example.com",
            "ꭺdmin@example.com",
            "ᎪᎠᎪ@example.com",
            "admin@eхample.com",
            "admɩn@example.com",
            "ɾoot@example.com",
        ];
        for word in imitations {
            assert_eq!(parsed(word), Err(EmailRefused::LookAlike), "{word:?}");
        }
        for good in [
            "пример@пример.рф",
            "用户@例子.公司",
            "o'neil+x@example.com",
            "ผู้นำ@example.com",
            "yıldız@example.com",
            "josé@münchen.de",
            "tanaka太郎@example.jp",
            "иван.petrov@example.com",
            "ali٣@example.com",
            "ада+shop@example.com",
            "kadın.ışık@örnek.com.tr",
            "þórður@dæmi.is",
            "nguyễn@vídụ.vn",
            "łukasz.żółć@przykład.pl",
            "ყველა@მაგალითი.გე",
            "אדם@דוגמה.co.il",
            "आदम@उदाहरण.भारत",
            "ꮳꮃꭹ@example.com",
            "ŋaa@example.com",
            "ɛlikem@example.gh",
        ] {
            assert!(parsed(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_stored_is_shown_as_it_is() {
        let email = Email::parse("ada@example.com").unwrap();
        for (stored, is_hers) in
            [("Ada@Example.com", true), ("ada@example.com", true), ("q2V5GtL_hash", false), ("a@[127.0.0.1]", false)]
        {
            let shown = StoredEmail::new(stored).unwrap();
            assert_eq!((shown.as_str(), shown.is(&email)), (stored, is_hers));
        }
        assert_eq!(StoredEmail::new(""), None);
    }

    #[test]
    fn an_account_of_an_earlier_release_is_found_by_its_exact_spelling_first() {
        assert_eq!(Email::stored_spellings(" Ada@Example.com"), ["ada@example.com"]);
        assert_eq!(Email::stored_spellings("A\u{308}@x.y"), ["a\u{308}@x.y", "ä@x.y"]);
        for nobodys in ["", "  ", "a\u{0}@b.c", &"a".repeat(2_000)] {
            assert_eq!(Email::stored_spellings(nobodys), Vec::<String>::new());
        }
    }

    proptest! {
        /// An accepted address parses to the same again, and fits where it is stored.
        #[test]
        fn an_accepted_address_is_accepted_again_as_it_is(name in "\\PC{1,60}", domain in "[a-zA-ZäÖİßſKå\u{308}.-]{1,20}") {
            if let Ok(email) = Email::parse(&format!("{name}@{domain}")) {
                prop_assert!(email.as_str().len() <= EMAIL_MAX_LENGTH);
                prop_assert_eq!(Email::parse(email.as_str()), Ok(email.clone()));
                prop_assert!(StoredEmail::from(email.clone()).is(&email));
            }
        }
    }
}
