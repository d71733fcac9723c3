//! `init DIR`: writes a config directory, from flags or by questions.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use dialoguer::Input;
use serde_json::{Map, Value, json};

use super::error::Result;
use super::{Error, Exit, output, wiring};

const FILE: &str = "orchestrator.json";
const SCHEMA: &str = "orchestrator.schema.json";

/// What Claude Code itself writes after a login.
const DEFAULT_CREDENTIALS: &str = "~/.claude/.credentials.json";

/// Nothing with a secret in it is committed by accident.
const GITIGNORE: &str = "\
# Credentials and state do not belong into a repository.
*.credentials.json
.credentials.json
credentials/
settings*.json
.env
state/
";

/// Write a config directory: by questions, or from the flags
///
/// Nothing that exists is overwritten.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator init ./fleet
  orchestrator init ./fleet --repository git@github.com:org/repo.git --workers 3 \\
      --claude-configs '~/claude-configs/*.json'")]
pub struct InitArgs {
    /// The directory; made if it is not there
    directory: PathBuf,
    /// The git repository to work on
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// The branch that work is merged into [default: main]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// How many workers
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Glob of Claude Code credential files
    #[arg(long, value_name = "GLOB")]
    claude_configs: Option<String>,
}

/// All that `orchestrator.json` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answers {
    repository: String,
    branch: String,
    workers: u32,
    claude_configs: String,
}

pub(super) fn run(args: &InitArgs) -> Result<Exit> {
    // Before any question: nobody answers for nothing.
    refuse_to_overwrite(&args.directory)?;
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    let answers = if may_ask && !args.any() {
        ask()?
    } else {
        args.answers()?
    };
    write(&args.directory, &answers, &wiring::schema())?;
    let directory = args.directory.display();
    output::say(&format!("written: {directory}/{FILE}"));
    output::say(&format!("next: orchestrator doctor --config {directory}"));
    output::say(&format!("then: orchestrator up -d --config {directory}"));
    Ok(Exit::Done)
}

impl InitArgs {
    fn any(&self) -> bool {
        self.repository.is_some()
            || self.branch.is_some()
            || self.workers.is_some()
            || self.claude_configs.is_some()
    }

    fn answers(&self) -> Result<Answers> {
        let missing: Vec<&str> = [
            ("--repository URL", self.repository.is_none()),
            ("--workers N", self.workers.is_none()),
        ]
        .iter()
        .filter_map(|(name, missing)| missing.then_some(*name))
        .collect();
        let (Some(repository), Some(workers)) = (self.repository.clone(), self.workers) else {
            return Err(
                Error::new(Exit::Usage, format!("missing: {}", missing.join(", "))).hint(
                    "in a terminal, `orchestrator init DIR` without flags asks for everything",
                ),
            );
        };
        if workers == 0 {
            return Err(Error::new(Exit::Usage, "`--workers` must be at least 1"));
        }
        Ok(Answers {
            repository,
            branch: self.branch.clone().unwrap_or_else(|| "main".to_owned()),
            workers,
            claude_configs: self
                .claude_configs
                .clone()
                .unwrap_or_else(|| DEFAULT_CREDENTIALS.to_owned()),
        })
    }
}

fn ask() -> Result<Answers> {
    let failed = |error: dialoguer::Error| {
        Error::new(Exit::Failure, "the questions were not answered").because(&error)
    };
    let text = |question: &str| Input::<String>::new().with_prompt(question);
    Ok(Answers {
        repository: text("Git repository (URL or path)")
            .interact_text()
            .map_err(failed)?,
        branch: text("Branch that work is merged into")
            .default("main".to_owned())
            .interact_text()
            .map_err(failed)?,
        workers: Input::<u32>::new()
            .with_prompt("How many workers")
            .default(3)
            .validate_with(|number: &u32| match number {
                0 => Err("at least 1"),
                _ => Ok(()),
            })
            .interact_text()
            .map_err(failed)?,
        claude_configs: text("Claude Code credential files (a glob)")
            .default(DEFAULT_CREDENTIALS.to_owned())
            .interact_text()
            .map_err(failed)?,
    })
}

fn refuse_to_overwrite(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    if fs::symlink_metadata(&path).is_ok() {
        return Err(
            Error::new(Exit::Refused, format!("{} exists already", path.display()))
                .hint("edit it, or choose another directory"),
        );
    }
    Ok(())
}

fn write(directory: &Path, answers: &Answers, schema: &Value) -> Result<()> {
    refuse_to_overwrite(directory)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Error::io(format!("cannot make {}", directory.display()), &error))?;
    put(&directory.join(SCHEMA), &pretty(schema), Existing::Keep)?;
    put(&directory.join(".gitignore"), GITIGNORE, Existing::Keep)?;
    // Last: with this file the directory is complete.
    put(
        &directory.join(FILE),
        &pretty(&document(answers)),
        Existing::Refuse,
    )
}

fn document(answers: &Answers) -> Value {
    let mut document = Map::new();
    document.insert("$schema".to_owned(), json!(format!("./{SCHEMA}")));
    document.insert("repositoryUrl".to_owned(), json!(answers.repository));
    document.insert("branch".to_owned(), json!(answers.branch));
    document.insert("workerCount".to_owned(), json!(answers.workers));
    document.insert("claudeConfigs".to_owned(), json!(answers.claude_configs));
    Value::Object(document)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What to do about a file that is there.
#[derive(PartialEq, Eq)]
enum Existing {
    Keep,
    Refuse,
}

fn put(path: &Path, text: &str, existing: Existing) -> Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error)
            if existing == Existing::Keep && error.kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        Err(error) => Err(Error::io(
            format!("cannot write {}", path.display()),
            &error,
        )),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn answers() -> Answers {
        Answers {
            repository: "https://example.com/r.git".into(),
            branch: "main".into(),
            workers: 3,
            claude_configs: "~/c/*.json".into(),
        }
    }

    #[test]
    fn a_directory_is_written_complete_and_private() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/fleet");
        write(&directory, &answers(), &json!({"title": "schema"})).unwrap();
        let text = fs::read_to_string(directory.join(FILE)).unwrap();
        assert_eq!(
            text,
            "{\n  \"$schema\": \"./orchestrator.schema.json\",\n  \
             \"repositoryUrl\": \"https://example.com/r.git\",\n  \"branch\": \"main\",\n  \
             \"workerCount\": 3,\n  \"claudeConfigs\": \"~/c/*.json\"\n}\n"
        );
        assert!(directory.join(SCHEMA).is_file());
        assert!(directory.join(".gitignore").is_file());
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".gitignore"), "mine").unwrap();
        write(root.path(), &answers(), &json!({})).unwrap();
        let mut other = answers();
        other.workers = 9;
        let error = write(root.path(), &other, &json!({})).unwrap_err();
        assert_eq!(error.exit, Exit::Refused);
        let text = fs::read_to_string(root.path().join(FILE)).unwrap();
        assert!(text.contains("\"workerCount\": 3"));
        let ignored = fs::read_to_string(root.path().join(".gitignore")).unwrap();
        assert_eq!(ignored, "mine");
    }

    #[test]
    fn missing_flags_are_named_all_at_once() {
        let args = InitArgs {
            directory: "x".into(),
            repository: None,
            branch: None,
            workers: None,
            claude_configs: None,
        };
        let error = args.answers().unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(
            error
                .render()
                .starts_with("error: missing: --repository URL, --workers N\n")
        );
    }
}
