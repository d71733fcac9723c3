//! `--watch`: drawn again with every change, in place on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::error::Result;
use super::format::now;
use super::output::{self, Colour};
use super::{Error, Exit};
use crate::client::{Client, StatusStream};
use crate::model::Timestamp;
use crate::model::view::FleetView;

/// Ages move on between changes.
const TICK: Duration = Duration::from_secs(1);

/// How a frame is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// What ages are counted to.
    pub(super) now: Timestamp,
    /// `None`: as wide as it gets, for pipes.
    pub(super) columns: Option<u16>,
    pub(super) colour: Colour,
}

impl Look {
    /// As stdout takes it, now.
    pub(super) fn of_stdout() -> Self {
        Self {
            now: now(),
            columns: output::terminal_size().map(|(columns, _)| columns),
            colour: Colour::of_stdout(),
        }
    }
}

/// What is shown of each snapshot.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub(super) frame: fn(&FleetView, Look) -> String,
    /// One line of JSON. The same again is not shown.
    pub(super) line: fn(&FleetView) -> serde_json::Result<String>,
}

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    InPlace,
    OneAfterTheOther,
    Json,
}

pub(super) async fn run(client: &Client, json: bool, shown: Shown) -> Result<Exit> {
    let mut views = client.watch().await?;
    let form = match json {
        true => Form::Json,
        false if io::stdout().is_terminal() => Form::InPlace,
        false => Form::OneAfterTheOther,
    };
    let ended = {
        let _screen = (form == Form::InPlace).then(Screen::enter);
        let watching = watch(&mut views, form, shown);
        tokio::select! {
            result = watching => result?,
            () = told_to_end() => return Ok(Exit::Done),
        }
    };
    if let (Some(view), Form::InPlace) = (&ended, form) {
        // The screen is back as it was; what was seen last stays readable.
        output::data(&(shown.frame)(view, Look::of_stdout()))?;
    }
    output::say("the supervisor has ended");
    Ok(Exit::Done)
}

/// Ctrl-C, or the end of the terminal.
async fn told_to_end() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

/// Until the stream ends; gives the last snapshot.
async fn watch(views: &mut StatusStream, form: Form, shown: Shown) -> Result<Option<FleetView>> {
    let mut last: Option<FleetView> = None;
    let mut said = String::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            view = views.next() => match view {
                None => return Ok(last),
                Some(view) => {
                    let view = view?;
                    if form == Form::Json {
                        tell(&view, shown, &mut said)?;
                    } else {
                        draw(&view, form, shown)?;
                    }
                    last = Some(view);
                }
            },
            _ = tick.tick(), if form == Form::InPlace => {
                if let Some(view) = &last {
                    draw(view, form, shown)?;
                }
            }
        }
    }
}

/// A line of JSON, unless it says what the last one said.
fn tell(view: &FleetView, shown: Shown, said: &mut String) -> Result<()> {
    let line = (shown.line)(view).map_err(|error| {
        Error::new(Exit::Failure, "cannot write the answer as JSON").because(&error)
    })?;
    if line == *said {
        return Ok(());
    }
    output::data(&format!("{line}\n"))?;
    *said = line;
    Ok(())
}

fn draw(view: &FleetView, form: Form, shown: Shown) -> Result<()> {
    let frame = (shown.frame)(view, Look::of_stdout());
    if form != Form::InPlace {
        return output::data(&format!("{frame}\n"));
    }
    let rows = output::terminal_size().map_or(usize::MAX, |(_, rows)| usize::from(rows));
    output::data(&over(&frame, rows))
}

/// The terminal's alternate screen (xterm control sequences, DECSET 1049 and 25), left when
/// dropped.
struct Screen;

impl Screen {
    fn enter() -> Self {
        put("\x1b[?1049h\x1b[?25l");
        Self
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put("\x1b[?25h\x1b[?1049l");
    }
}

fn put(sequence: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(sequence.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Over what was there, cut to the height, so that nothing scrolls or flickers.
fn over(frame: &str, rows: usize) -> String {
    let mut text = String::from("\x1b[H");
    for (row, line) in frame.lines().take(rows).enumerate() {
        if row > 0 {
            text.push_str("\r\n");
        }
        text.push_str(line);
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_last_one_and_never_scrolls() {
        let mut terminal = vt100::Parser::new(3.try_into().unwrap(), 20.try_into().unwrap(), 10);
        terminal.process(over("first\nlonger line\nthree\nfour", 3).as_bytes());
        terminal.process(over("second\nshort", 3).as_bytes());
        assert_eq!(terminal.screen().contents().trim_end(), "second\nshort");
        terminal.process(over("1\n2\n3\n4\n5", 3).as_bytes());
        assert_eq!(terminal.screen().contents(), "1\n2\n3");
    }
}
