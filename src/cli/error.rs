//! Errors as people read them: `error:`, `caused by:`, `hint:`.

use std::error::Error as StdError;
use std::fmt::Write as _;

use super::Exit;
use crate::client;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// What a command ends with when it cannot do what was asked.
#[derive(Debug)]
pub struct Error {
    pub exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// The message has its `error:` in it already, or says nothing.
    rendered: bool,
}

impl Error {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            rendered: false,
        }
    }

    /// Text that is complete as it is, for example every problem of a configuration.
    pub fn rendered(exit: Exit, text: impl Into<String>) -> Self {
        let mut error = Self::new(exit, text);
        error.rendered = true;
        error
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps a cause and all causes behind it.
    #[must_use]
    pub fn because(mut self, cause: &dyn StdError) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat the inner text in the outer one.
            if self.causes.last().is_none_or(|last| !last.ends_with(&text)) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// An input or output operation on `what` failed.
    pub fn io(what: impl Into<String>, cause: &std::io::Error) -> Self {
        Self::new(Exit::Failure, what).because(cause)
    }

    /// The text for stderr; empty when there is nothing to say.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if self.rendered {
            if !self.message.is_empty() {
                let _ = writeln!(text, "{}", self.message.trim_end());
            }
        } else {
            let _ = writeln!(text, "error: {}", self.message);
        }
        for cause in &self.causes {
            let _ = writeln!(text, "caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        use crate::ports::ErrorKind;
        let exit = match error.kind {
            _ if error.is_not_running() => Exit::NotRunning,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::AlreadyExists => Exit::AlreadyRunning,
            ErrorKind::Transient | ErrorKind::Broken => Exit::Failure,
        };
        let mut result = Self::new(exit, error.message);
        if let Some(source) = &error.source {
            result = result.because(source.as_ref());
        }
        result.hint = error.hint;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_the_chain_and_the_hint_have_a_line_each() {
        let cause = std::io::Error::other("disk full");
        let error = Error::io("cannot write `x`", &cause).hint("make room");
        assert_eq!(
            error.render(),
            "error: cannot write `x`\ncaused by: disk full\nhint: make room\n"
        );
    }

    #[test]
    fn complete_text_stays_as_it_is() {
        let error = Error::rendered(Exit::Usage, "error: a\nerror: b\n");
        assert_eq!(error.render(), "error: a\nerror: b\n");
        assert_eq!(Error::rendered(Exit::Done, "").render(), "");
    }
}
