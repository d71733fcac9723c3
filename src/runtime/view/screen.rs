//! What the view itself writes on the terminal: modes, and one calm status line.
//!
//! The sequences are those of xterm's control sequences and the ones tmux understands.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Bracketed paste on: an application says this once, when it starts, and whoever attaches later
/// never hears it; `paste-buffer -p` brackets only in a terminal that was told. Then a clean
/// screen for the redraw.
const ATTACH: &[u8] = b"\x1b[?2004h\x1b[0m\x1b[r\x1b[H\x1b[2J";

/// Modes an application may have left on: bracketed paste, mouse (click, drag, all, UTF-8, SGR),
/// focus reports, application cursor keys and keypad, synchronized output, other-keys, no wrap,
/// margins, colours, hidden cursor, alternate screen (`?47`, which leaves the cursor where it is).
const RESET: &[u8] =
    b"\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1004l\
\x1b[?1l\x1b>\x1b[?2026l\x1b[>4m\x1b[?7h\x1b[r\x1b[0m\x1b[?25h\x1b[?47l";

/// To a new line below everything shown, wherever the application had its cursor.
const BELOW: &[u8] = b"\x1b[999;1H\r\n";

pub(super) struct Screen<O> {
    output: O,
    /// The status line that is shown.
    status: Option<String>,
    attached: bool,
}

impl<O: AsyncWrite + Unpin> Screen<O> {
    pub(super) fn new(output: O) -> Self {
        Self {
            output,
            status: None,
            attached: false,
        }
    }

    pub(super) async fn attach(&mut self) -> io::Result<()> {
        self.attached = true;
        self.status = None;
        self.write(ATTACH).await
    }

    /// Resets the modes. What the agent showed last stays, so that its last words can be read.
    pub(super) async fn detach(&mut self) -> io::Result<()> {
        if !self.attached {
            return Ok(());
        }
        self.attached = false;
        self.write(RESET).await?;
        self.write(BELOW).await
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes).await?;
        self.output.flush().await
    }

    /// Shows `text` in place of the last status, cut so that it never wraps.
    pub(super) async fn status(&mut self, text: &str, columns: u16) -> io::Result<()> {
        if self.status.as_deref() == Some(text) {
            return Ok(());
        }
        let width = match usize::from(columns) {
            0 => 79,
            columns => columns.saturating_sub(1),
        };
        let shown: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(width)
            .collect();
        self.write(format!("\r\x1b[2K{shown}").as_bytes()).await?;
        self.status = Some(text.to_owned());
        Ok(())
    }

    /// The last thing a view does: leaves a terminal that others can use.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.detach().await?;
        if self.status.take().is_some() {
            self.write(b"\r\x1b[2K").await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_status_is_written_once_in_one_line() {
        let mut screen = Screen::new(Vec::new());
        for _ in 0..3 {
            screen.status("orchestrator: waiting", 10).await.unwrap();
        }
        screen.status("ok\x1b[2J\n", 10).await.unwrap();
        assert_eq!(screen.output, b"\r\x1b[2Korchestra\r\x1b[2Kok[2J");
    }

    #[tokio::test]
    async fn modes_are_reset_once_and_only_after_an_attachment() {
        let mut screen = Screen::new(Vec::new());
        screen.detach().await.unwrap();
        assert_eq!(screen.output, b"");
        screen.attach().await.unwrap();
        assert!(screen.output.starts_with(b"\x1b[?2004h"));
        screen.output.clear();
        screen.detach().await.unwrap();
        screen.close().await.unwrap();
        assert_eq!(screen.output, [RESET, BELOW].concat());
    }
}
