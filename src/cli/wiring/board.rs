//! `.coordination/`: its files from `store::files`, what they say from `coordination::board`.

use std::path::{Path, PathBuf};

use super::super::error::{Error, Result};
use super::super::{Exit, output};
use crate::coordination::board;
pub(in crate::cli) use crate::coordination::board::{
    Board, BoardError, BoardTask, Claimed, NewBoardTask,
};
use crate::store::files::{Directory, Found, Written};

/// Somebody saves the list at each of these: then something is wrong.
const MAX_TRIES: usize = 50;
const PLAN: &str = "master-plan.md";
const DISCOVERIES: &str = "context/discoveries.md";

/// The locked directory.
pub(in crate::cli) struct Shared {
    root: PathBuf,
    directory: Directory,
}

impl Shared {
    pub(in crate::cli) fn open(root: &Path) -> Result<Self> {
        match Directory::open(root) {
            Ok(directory) => Ok(Self {
                root: root.to_owned(),
                directory,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::new(
                Exit::NotFound,
                format!("there is no directory {}", root.display()),
            )
            .hint("`orchestrator leader init \"GOAL\"` makes it; `--dir DIR` names another one")),
            Err(error) => Err(failed(root, &error)),
        }
    }

    /// Makes what is missing. Which of the files were made.
    ///
    /// A plan with another goal stays, and that is an error.
    pub(in crate::cli) fn init(root: &Path, goal: &str) -> Result<(Self, Vec<String>)> {
        let directory = Directory::create(root).map_err(|error| failed(root, &error))?;
        let shared = Self {
            root: root.to_owned(),
            directory,
        };
        let plan = format!(
            "# Master plan\n\n## Goal\n\n{}\n\n## Approach\n\n",
            goal.trim()
        );
        let mut made = Vec::new();
        for (name, text) in [
            (PLAN, plan.as_str()),
            (
                DISCOVERIES,
                "# Discoveries\n\nWhat all should know, newest last.\n",
            ),
        ] {
            if shared.io(shared.directory.write_new(name, text))? {
                made.push(name.to_owned());
            } else if name == PLAN && shared.goal()?.as_deref() != Some(goal.trim()) {
                return Err(Error::new(
                    Exit::Refused,
                    format!("{} has a goal already", root.join(PLAN).display()),
                )
                .hint("edit that file, or use another directory (`--dir DIR`)"));
            }
        }
        let found = shared.io(shared.directory.read())?;
        if found.tasks.is_none() && found.good.is_none() {
            let empty = Board::default().text();
            shared.io(shared.directory.write(None, &empty))?;
            made.push("tasks.json".to_owned());
        }
        Ok((shared, made))
    }

    /// What the plan says under `Goal`.
    pub(in crate::cli) fn goal(&self) -> Result<Option<String>> {
        let Some(text) = self.io(self.directory.text(PLAN))? else {
            return Ok(None);
        };
        let after = text.split_once("## Goal").map(|(_, after)| after);
        let goal = after.map(|after| after.split("\n## ").next().unwrap_or(after).trim());
        Ok(goal.filter(|goal| !goal.is_empty()).map(str::to_owned))
    }

    /// The tasks as they are, mended where the file is broken. What was mended is said.
    pub(in crate::cli) fn board(&self) -> Result<Board> {
        self.change(|_| Ok(())).map(|((), board)| board)
    }

    /// Changes the tasks. Nobody's edit is lost: if the file was saved meanwhile, `change` is made anew.
    pub(in crate::cli) fn change<T>(
        &self,
        mut change: impl FnMut(&mut Board) -> std::result::Result<T, BoardError>,
    ) -> Result<(T, Board)> {
        for _ in 0..MAX_TRIES {
            let found = self.io(self.directory.read())?;
            if found.tasks.is_none() && found.good.is_none() {
                return Err(Error::new(
                    Exit::NotFound,
                    format!("{} has no tasks.json", self.root.display()),
                )
                .hint("`orchestrator leader init \"GOAL\"` makes it"));
            }
            let reading = board::read(found.tasks.as_deref(), found.good.as_deref());
            if !reading.problems.is_empty() {
                self.mend(&found, &reading)?;
                continue;
            }
            let mut board = reading.board;
            let was = board.clone();
            let value = change(&mut board).map_err(refused)?;
            if board == was {
                if found.good != found.tasks
                    && let Some(text) = &found.tasks
                {
                    self.io(self.directory.remember(text))?;
                }
                return Ok((value, board));
            }
            let written = self.directory.write(found.tasks.as_deref(), &board.text());
            if self.io(written)? == Written::Done {
                return Ok((value, board));
            }
        }
        Err(Error::new(
            Exit::Failure,
            format!(
                "{} is saved all the time",
                self.root.join("tasks.json").display()
            ),
        )
        .hint("which program writes it?"))
    }

    fn mend(&self, found: &Found, reading: &board::Reading) -> Result<()> {
        let stem = format!(
            "tasks-broken-{}",
            jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")
        );
        let mut said = Vec::new();
        for problem in &reading.problems {
            let kept = match &problem.removed {
                Some(text) => Some(self.io(self.directory.keep_aside(&stem, text))?),
                None => None,
            };
            let kept = kept.map_or_else(String::new, |path| {
                format!("; what was there is in {}", path.display())
            });
            said.push(format!("warning: {}{kept}", problem.text));
        }
        let written = self
            .directory
            .write(found.tasks.as_deref(), &reading.board.text());
        if self.io(written)? == Written::Done {
            for line in &said {
                output::say(line);
            }
        }
        Ok(())
    }

    /// The result of a task, as the next part of its file if it has one.
    pub(in crate::cli) fn result(&self, task: &str, text: &str) -> Result<PathBuf> {
        let name = format!("results/{task}.md");
        self.io(self
            .directory
            .append(&name, &format!("{}\n", text.trim_end())))?;
        Ok(self.root.join(name))
    }

    /// Adds a line with the time to somebody's log.
    pub(in crate::cli) fn log(&self, who: &str, text: &str) -> Result<()> {
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let line = format!("{at} {}\n", text.lines().next().unwrap_or_default());
        self.io(self.directory.append(&format!("logs/{who}.log"), &line))
    }

    fn io<T>(&self, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|error| failed(&self.root, &error))
    }
}

fn failed(root: &Path, error: &std::io::Error) -> Error {
    let failed = Error::io(format!("cannot use {}", root.display()), error);
    match error.kind() {
        std::io::ErrorKind::TimedOut => failed.hint("is one of these commands hanging?"),
        _ => failed,
    }
}

fn refused(error: BoardError) -> Error {
    let (exit, hint) = match error.code() {
        "TASK_NOT_FOUND" => (
            Exit::NotFound,
            "`orchestrator leader status` lists the tasks",
        ),
        "INVALID_NAME" | "INVALID_TASK" => (Exit::Usage, ""),
        "UNKNOWN_DEPENDENCY" => (
            Exit::Usage,
            "add that task first; `orchestrator leader status` lists those there are",
        ),
        _ => (
            Exit::Refused,
            "`orchestrator leader status` shows who does what",
        ),
    };
    let told = Error::new(exit, format!("{error} ({})", error.code()));
    if hint.is_empty() {
        told
    } else {
        told.hint(hint)
    }
}
