//! Removing known secrets from text that leaves the program.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

/// What stands where a secret stood.
const MASK: &str = "[redacted]";

/// Shorter texts are not treated as secrets: masking them would shred ordinary words, and no key
/// or token of any provider is that short.
const SHORTEST_SECRET: usize = 6;

/// The secrets known so far. A cheap clone; a secret added through one clone is masked by all.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor([redacted])")
    }
}

impl Redactor {
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let redactor = Self::default();
        for secret in secrets {
            redactor.add(&secret);
        }
        redactor
    }

    /// Masks `secret` from now on, also as it looks inside a JSON string. Texts under
    /// 6 bytes are ignored.
    pub fn add(&self, secret: &str) {
        if secret.len() < SHORTEST_SECRET {
            return;
        }
        let escaped = serde_json::to_string(secret).unwrap_or_default();
        let escaped = escaped.trim_matches('"').to_owned();
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        for form in [secret.to_owned(), escaped] {
            if form.len() >= SHORTEST_SECRET && !secrets.contains(&form) {
                secrets.push(form);
            }
        }
        // Longest first, so that a secret which contains another one is masked whole.
        secrets.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// `text` without any known secret; borrowed when there was none.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let mut clean = Cow::Borrowed(text);
        for secret in secrets.iter() {
            if clean.contains(secret.as_str()) {
                clean = Cow::Owned(clean.replace(secret.as_str(), MASK));
            }
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_secret_is_masked_wherever_it_stands() {
        let redactor = Redactor::new(["sk-ant-123456".to_owned()]);
        assert_eq!(
            redactor.redact("key sk-ant-123456, again sk-ant-123456."),
            "key [redacted], again [redacted]."
        );
        assert_eq!(redactor.redact("nothing here"), "nothing here");
    }

    #[test]
    fn a_secret_added_later_through_a_clone_is_masked_too() {
        let redactor = Redactor::default();
        redactor.clone().add("tok-abcdef");
        assert_eq!(redactor.redact("tok-abcdef"), "[redacted]");
    }

    #[test]
    fn a_longer_secret_hides_whole_even_when_a_shorter_one_is_part_of_it() {
        let redactor = Redactor::new(["abcdef".to_owned(), "abcdef-rest".to_owned()]);
        assert_eq!(redactor.redact("abcdef-rest"), "[redacted]");
    }

    #[test]
    fn the_form_inside_a_json_string_is_masked() {
        let redactor = Redactor::new(["pass\"word\\1".to_owned()]);
        let line = serde_json::json!({ "message": "pass\"word\\1" }).to_string();
        assert_eq!(redactor.redact(&line), r#"{"message":"[redacted]"}"#);
    }

    #[test]
    fn very_short_texts_are_no_secrets_and_debug_shows_none() {
        let redactor = Redactor::new(["a".to_owned(), "secret-value".to_owned()]);
        assert_eq!(redactor.redact("a banana"), "a banana");
        assert!(!format!("{redactor:?}").contains("secret-value"));
    }
}
