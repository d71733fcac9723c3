//! Text into a pane, exactly.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tmux_interface::{
    CapturePane, DeleteBuffer, LoadBuffer, PasteBuffer, SendKeys, TmuxCommand, TmuxCommands,
};

use super::client::Client;
use super::error::TmuxError;
use super::layout::argument;
use crate::ports::{ErrorKind, PortError, PortResult};

/// The longest text that is pasted, in bytes: 1 MB. More is a file's job.
pub const MAX_PASTE_BYTES: usize = 1024 * 1024;

/// Between the paste and its Enter at least. An idle Claude Code needs none; one on a loaded machine may
/// read both at once and leave the text unsent, so the pane is looked at until it shows something new,
/// each time after half as much more,
const BEFORE_ENTER: Duration = Duration::from_millis(80);
/// and so long altogether: 2.5 s were not enough where nine started on two cores. Then Enter is pressed
/// all the same.
const ECHO_DEADLINE: Duration = Duration::from_secs(10);

/// Control characters are refused: `ESC[201~` inside the text would end the bracketed paste, and
/// what follows would be typed as keys. Tab, line feed and carriage return stay what they are.
pub(super) fn check(text: &str) -> PortResult<()> {
    let refuse =
        |message: String, hint: &str| Err(PortError::new(ErrorKind::Refused, message).hint(hint));
    if text.len() > MAX_PASTE_BYTES {
        return refuse(
            format!(
                "a text of {} bytes is too long to paste; 1 MB is the limit",
                text.len()
            ),
            "put it in a file and paste the file's path",
        );
    }
    match text.chars().find(|&c| is_key(c)) {
        None => Ok(()),
        Some(found) => refuse(
            format!(
                "the text holds the control character U+{:04X}, which is a key",
                u32::from(found)
            ),
            "replace control characters first",
        ),
    }
}

/// `text` with control characters that [`Panes::paste`](crate::ports::Panes::paste) refuses
/// replaced by their pictures (`␛` for escape) or, beyond ASCII, by `U+FFFD`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_key) {
        return Cow::Borrowed(text);
    }
    let picture = |c: char| match u32::from(c) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
        0x7f => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    };
    Cow::Owned(
        text.chars()
            .map(|c| if is_key(c) { picture(c) } else { c })
            .collect(),
    )
}

fn is_key(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

/// Text, then Enter as a command of its own. `pane` is tmux's `%` id.
pub(super) async fn paste(client: &Client, pane: &str, text: &str) -> Result<(), TmuxError> {
    if !text.is_empty() {
        let buffer = fresh_name();
        let load = LoadBuffer::new()
            .buffer_name(buffer.clone())
            .path("-")
            .build();
        let look = TmuxCommands::new().add_command(shown_in(pane));
        let before = client
            .run(look.add_command(load), Some(text.as_bytes()))
            .await?;
        let paste = PasteBuffer::new()
            .delete()
            .bracket_codes()
            .no_replacement()
            .buffer_name(buffer.clone())
            .target_pane(pane.to_owned())
            .build();
        if let Err(error) = client
            .run(TmuxCommands::new().add_command(paste), None)
            .await
        {
            let delete = DeleteBuffer::new().buffer_name(buffer).build();
            // The paste's own error is the one that counts.
            let _ = client
                .run(TmuxCommands::new().add_command(delete), None)
                .await;
            return Err(error);
        }
        until_shown(client, pane, &before).await?;
    }
    let enter = send_keys(pane, &["Enter"]);
    client
        .run(TmuxCommands::new().add_command(enter), None)
        .await
        .map(drop)
}

async fn until_shown(client: &Client, pane: &str, before: &str) -> Result<(), TmuxError> {
    let (mut waited, mut wait) = (Duration::ZERO, BEFORE_ENTER);
    while waited < ECHO_DEADLINE {
        tokio::time::sleep(wait).await;
        let look = TmuxCommands::new().add_command(shown_in(pane));
        if client.run(look, None).await? != before {
            break;
        }
        waited += wait;
        wait = wait * 3 / 2;
    }
    Ok(())
}

fn shown_in(pane: &str) -> TmuxCommand<'static> {
    CapturePane::new()
        .stdout()
        .target_pane(pane.to_owned())
        .build()
}

pub(super) fn send_keys(pane: &str, keys: &[&str]) -> TmuxCommand<'static> {
    let mut command = SendKeys::new().target_pane(pane.to_owned()).build();
    command.push_param("--");
    for key in keys {
        command.push_param(argument(key));
    }
    command
}

/// Unique on the server, also beside another process of ours.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("orchestrator-{}-{number}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_would_press_keys_is_refused_and_can_be_made_printable() {
        for text in ["a\u{1b}[201~\rrm", "\u{3}", "\u{7f}", "\u{9b}31m"] {
            assert_eq!(
                check(text).unwrap_err().kind,
                ErrorKind::Refused,
                "{text:?}"
            );
            check(&printable(text)).unwrap();
        }
        assert_eq!(printable("a\u{1b}[1m\u{7f}\u{9b}"), "a␛[1m␡\u{fffd}");
        assert!(matches!(printable("tab\tline\r\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn one_megabyte_is_the_limit() {
        check(&"x".repeat(MAX_PASTE_BYTES)).unwrap();
        check(&"x".repeat(MAX_PASTE_BYTES + 1)).unwrap_err();
    }
}
