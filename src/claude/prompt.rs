//! Text on its way into a prompt by paste, and back again in the UserPromptSubmit receipt.

use unicode_normalization::UnicodeNormalization;

/// The whole text being one of these ends Claude Code, spaces or not.
const EXIT_WORDS: &[&str] = &["exit", "quit", ":q", ":q!", ":wq", ":wq!"];
/// What Claude Code makes of a tab.
const TAB: &str = "    ";

/// The text as it may be pasted: one space before it, so that `!`, `/`, `@` and `#` mean nothing,
/// and one after it, so that neither a menu nor a backslash eats the Enter.
pub fn wrap(text: &str) -> String {
    format!(" {} ", defuse(text))
}

/// Is `received`, from a UserPromptSubmit, what was `sent` (before or after [`wrap`])? Claude Code
/// trims the ends, replaces tabs and composes characters.
pub fn same_prompt(sent: &str, received: &str) -> bool {
    defuse(sent) == trim(&clean(received))
}

/// Idempotent, so that a text can be compared whether it was defused before or not.
fn defuse(text: &str) -> String {
    let clean = clean(text);
    let text = trim(&clean);
    if EXIT_WORDS.contains(&text.to_lowercase().as_str()) {
        return format!("\"{text}\".");
    }
    text.to_owned()
}

/// No control character but the line feed: an escape would end the bracketed paste, and what
/// follows would be keystrokes.
fn clean(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\t', TAB)
        .chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .nfc()
        .collect()
}

/// As JavaScript's `trim`, which also takes the byte order mark.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Claude Code hands to the UserPromptSubmit hook for a pasted text.
    fn as_claude_code_takes_it(pasted: &str) -> String {
        let text: String = pasted.replace('\t', TAB).nfc().collect();
        trim(&text).to_owned()
    }

    #[test]
    fn special_first_and_last_characters_are_defused() {
        for text in [
            "!ls",
            "/clear",
            "@src/main.rs",
            "#note",
            "ends with \\",
            "see @",
        ] {
            let wrapped = wrap(text);
            assert_eq!(wrapped, format!(" {text} "));
            assert!(same_prompt(text, &format!(" {text}")));
        }
    }

    #[test]
    fn a_word_that_would_exit_is_quoted() {
        for word in EXIT_WORDS {
            let wrapped = wrap(&format!("  {word}\n"));
            assert_eq!(wrapped, format!(" \"{word}\". "));
            assert!(same_prompt(word, &wrapped));
        }
        assert_eq!(wrap("exit the loop"), " exit the loop ");
    }

    #[test]
    fn an_escape_cannot_end_the_paste() {
        assert_eq!(wrap("a\u{1b}[201~\u{9b}b\u{7}\0"), " a[201~b ");
        assert_eq!(wrap("a\r\nb\rc\td"), " a\nb\nc    d ");
    }

    #[test]
    fn composed_and_decomposed_are_the_same() {
        assert!(same_prompt("e\u{301}t\u{e9}", "\u{e9}te\u{301}"));
        assert!(!same_prompt("one", "two"));
        assert!(!same_prompt("do it", "do it, please"));
    }

    proptest! {
        #[test]
        fn whatever_is_wrapped_starts_harmlessly_and_is_known_again(text in any::<String>()) {
            let wrapped = wrap(&text);
            prop_assert!(wrapped.starts_with(' ') && wrapped.ends_with(' '));
            prop_assert!(wrapped.chars().all(|c| c == '\n' || !c.is_control()));
            let word = wrapped.trim().to_lowercase();
            prop_assert!(!EXIT_WORDS.contains(&word.as_str()));
            let received = as_claude_code_takes_it(&wrapped);
            prop_assert!(same_prompt(&text, &received), "{wrapped:?} {received:?}");
            prop_assert!(same_prompt(&wrapped, &received));
        }
    }
}
