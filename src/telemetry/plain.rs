//! Text from a program we did not write, without what would drive a terminal.

/// Takes text as it comes, cut anywhere, and gives it without escape sequences and control
/// characters; line ends, tabs and carriage returns stay.
#[derive(Debug, Default)]
pub struct Plain(Within);

#[derive(Clone, Copy, Debug, Default)]
enum Within {
    #[default]
    Text,
    Escape,
    /// `ESC [`, to its final character.
    Control,
    /// `ESC ]` and its like, to BEL or `ESC \\`.
    Command,
    CommandEscape,
}

impl Plain {
    /// The plain part of `text`.
    pub fn feed(&mut self, text: &str) -> String {
        text.chars().filter(|c| self.is_plain(*c)).collect()
    }

    fn is_plain(&mut self, c: char) -> bool {
        let (next, plain) = match (self.0, c) {
            (Within::Text, '\u{1b}') => (Within::Escape, false),
            (Within::Text, c) => {
                let kept = matches!(c, '\n' | '\r' | '\t') || !c.is_control();
                (Within::Text, kept)
            }
            // No sequence goes over a line end: what is cut off must not swallow what follows.
            (_, '\n') => (Within::Text, true),
            (within, c) => (within.then(c), false),
        };
        self.0 = next;
        plain
    }
}

impl Within {
    /// What follows a character within a sequence.
    fn then(self, c: char) -> Self {
        match (self, c) {
            (Self::Command | Self::CommandEscape, '\u{1b}') => Self::CommandEscape,
            // Also intermediate characters: `ESC ( B` chooses a character set.
            (_, '\u{1b}') | (Self::Escape, ' '..='/') => Self::Escape,
            (Self::Escape, '[') => Self::Control,
            (Self::Escape, ']' | 'P' | '^' | '_' | 'X') => Self::Command,
            (Self::Control, '\u{40}'..='\u{7e}')
            | (Self::Command, '\u{7}')
            | (Self::CommandEscape, '\\')
            | (Self::Escape | Self::Text, _) => Self::Text,
            (Self::Control, _) => Self::Control,
            (Self::Command | Self::CommandEscape, _) => Self::Command,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{1b}[1;31mred\u{1b}[0m\r\n\u{1b}]0;title\u{7}a\u{8}\tb\u{1b}(B\u{1b}]8;;x\u{1b}\\c\u{9b}\u{1b}7d\n\u{1b}[3\nend\u{1b}";
    const SEEN: &str = "red\r\na\tbcd\n\nend";

    #[test]
    fn what_drives_a_terminal_is_left_out_however_it_is_cut() {
        assert_eq!(Plain::default().feed(TEXT), SEEN);
        let starts = TEXT.char_indices().map(|(at, _)| at);
        for cut in starts {
            let mut plain = Plain::default();
            let seen = plain.feed(&TEXT[..cut]) + &plain.feed(&TEXT[cut..]);
            assert_eq!(seen, SEEN, "cut at {cut}");
        }
    }
}
