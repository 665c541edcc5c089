//! Bytes as hexadecimal text, and what they digest to.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Two lower-case hexadecimal digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of these parts, one after the other, in 64 hexadecimal digits.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_digest_as_if_they_were_one() {
        assert_eq!(sha256([&b"ab"[..], b"c"]), sha256([&b"abc"[..]]));
        assert!(sha256([&b"abc"[..]]).starts_with("ba7816bf8f01cfea"));
    }
}
