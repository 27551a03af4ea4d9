//! The text of a key: `mnt_<id>_<secret>`. The id finds it, the whole is hashed and compared.

use muniment_ledger::Hash;
use rand_core::RngCore;
use sha2::{Digest, Sha256};

/// What every key begins with, so that tools which look for leaked secrets can find it.
const PREFIX: &str = "mnt_";
const ID_CHARS: usize = 12;
/// 32 of 62 characters are 190 bits.
const SECRET_CHARS: usize = 32;
const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new key and its id.
pub(super) fn generate(random: &mut impl RngCore) -> (String, String) {
    let id = letters(random, ID_CHARS);
    let key = format!("{PREFIX}{id}_{}", letters(random, SECRET_CHARS));
    (key, id)
}

/// Characters of which each is as likely as any other.
fn letters(random: &mut impl RngCore, count: usize) -> String {
    let mut text = String::with_capacity(count);
    while text.len() < count {
        let drawn = usize::from(random.next_u32().to_le_bytes()[0]);
        // Numbers beyond the last whole multiple would make the first letters more likely.
        if drawn < 256 / LETTERS.len() * LETTERS.len() {
            text.push(char::from(LETTERS[drawn % LETTERS.len()]));
        }
    }
    text
}

/// The id in a text that has the form of a key.
pub(super) fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let plain = |part: &str, chars| part.len() == chars && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain(id, ID_CHARS) && plain(secret, SECRET_CHARS)).then_some(id)
}

/// What is stored in place of a key. A key is random, so that a plain hash can't be guessed back.
pub(super) fn hash_of(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// Compares in a time that doesn't depend on where they differ.
pub(super) fn equal(one: &Hash, other: &Hash) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_have_one_form_and_differ() {
        let (key, id) = generate(&mut rand_core::OsRng);
        assert_eq!(id_of(&key), Some(id.as_str()));
        assert_ne!(generate(&mut rand_core::OsRng).0, key);
        let longer = format!("{key}x");
        for wrong in ["", "mnt_", "mnt__", longer.as_str(), &key[1..], &key[..key.len() - 1], &key.replace('m', "n")] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hashes_are_compared_as_a_whole() {
        let hash = hash_of("a");
        let mut other = hash;
        assert!(equal(&hash, &other));
        other[31] ^= 1;
        assert!(!equal(&hash, &other));
    }
}
