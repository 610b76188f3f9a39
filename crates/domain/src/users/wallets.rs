//! Wallets: which text is an address that can receive payments.
//!
//! One form is supported: that of Ethereum and the chains that share its addresses, `0x` and 40 hexadecimal digits.
//! Digits in one case have no checksum; in mixed case they must match the checksum of EIP-55, so that typing errors are
//! detected.

use thiserror::Error;

use super::keccak::keccak_256;

const DIGITS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WalletRefused {
    #[error("is not `0x` and 40 hexadecimal digits")]
    Form,
    #[error("has capital and small letters that are not the checksum of EIP-55; copy the address again")]
    Checksum,
}

/// Whether this text is a wallet address exactly: no blank before, after or within it.
pub fn check_wallet(text: &str) -> Result<(), WalletRefused> {
    let digits = text.strip_prefix("0x").ok_or(WalletRefused::Form)?;
    if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(WalletRefused::Form);
    }
    let is_mixed = digits.bytes().any(|digit| digit.is_ascii_uppercase())
        && digits.bytes().any(|digit| digit.is_ascii_lowercase());
    if is_mixed && digits != with_checksum(&digits.to_ascii_lowercase()) {
        Err(WalletRefused::Checksum)
    } else {
        Ok(())
    }
}

/// EIP-55: a letter is a capital where the hash of the lower-case digits has a half byte of 8 or more.
fn with_checksum(small: &str) -> String {
    let hash = keccak_256(small.as_bytes());
    let halves = hash.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    small.chars().zip(halves).map(|(digit, half)| if half >= 8 { digit.to_ascii_uppercase() } else { digit }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of EIP-55.
    const RIGHT: [&str; 8] = [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn addresses_with_their_checksum_or_without_one_are_taken() {
        for address in RIGHT {
            assert_eq!(check_wallet(address), Ok(()), "{address}");
            let (small, large) = (address.to_ascii_lowercase(), format!("0x{}", address[2..].to_ascii_uppercase()));
            assert_eq!((check_wallet(&small), check_wallet(&large)), (Ok(()), Ok(())), "{address}");
        }
    }

    #[test]
    fn a_letter_in_the_other_case_breaks_the_checksum() {
        for address in &RIGHT[4..] {
            for (place, digit) in address.char_indices().skip(2).filter(|(_, digit)| digit.is_ascii_alphabetic()) {
                let other =
                    if digit.is_ascii_uppercase() { digit.to_ascii_lowercase() } else { digit.to_ascii_uppercase() };
                let wrong = format!("{}{other}{}", &address[..place], &address[place + 1..]);
                assert_eq!(check_wallet(&wrong), Err(WalletRefused::Checksum), "{wrong}");
            }
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        let right = RIGHT[4];
        for wrong in [
            String::new(),
            "0x".to_owned(),
            "0xabc".to_owned(),
            "my wallet".to_owned(),
            right[2..].to_owned(),
            right[..41].to_owned(),
            format!("{right}0"),
            format!(" {right}"),
            format!("{right} "),
            format!("{right}\u{200B}"),
            right.replacen("0x", "0X", 1),
            right.replacen("0x", "1x", 1),
            right.replace('5', "g"),
            right.replace('5', "\u{FF15}"),
            right.replace('5', "\u{0665}"),
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".to_owned(),
            "<script>alert(1)</script>".to_owned(),
            "vitalik.eth".to_owned(),
        ] {
            assert_eq!(check_wallet(&wrong), Err(WalletRefused::Form), "{wrong}");
        }
    }
}
