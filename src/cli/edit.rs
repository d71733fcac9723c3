//! `edit NAME`: the task list of a worker in the person's editor.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::context::{Context, agent};
use super::error::Result;
use super::{Error, Exit};
use crate::model::view::FleetView;

/// Edit a worker's task list in $VISUAL or $EDITOR; saving is enough, the worker is told
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  orchestrator edit worker-2

The file is a Markdown checklist: one `- [ ] TEXT` for each task. Finished tasks are ticked.")]
pub struct EditArgs {
    /// `worker-N`
    name: String,
}

pub(super) async fn run(context: &Context, args: &EditArgs) -> Result<Exit> {
    let view = context.running()?.client.status().await?;
    let path = task_list(&view, &args.name)?;
    // Agents can write in that directory: a link could lead the person to another file.
    if std::fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::new(
            Exit::Refused,
            format!("{} is not a plain file", path.display()),
        )
        .hint("an agent may have replaced it; look at it before you open it"));
    }
    let editor = editor(|name| std::env::var(name).ok());
    let status = command(&editor, &path)
        .status()
        .map_err(|error| Error::io("cannot run a shell for the editor", &error))?;
    if status.success() {
        return Ok(Exit::Done);
    }
    Err(Error::new(
        Exit::Failure,
        format!("the editor `{editor}` ended with {status}"),
    )
    .hint("choose another one with `EDITOR=...`"))
}

fn task_list(view: &FleetView, name: &str) -> Result<PathBuf> {
    let agent = agent(view, name)?;
    let number = agent.id.worker_number().ok_or_else(|| {
        Error::new(Exit::Refused, format!("`{name}` has no task list"))
            .hint("the manager follows PROJECT_DIRECTION.md; task lists belong to workers")
    })?;
    let file = agent
        .task_list
        .clone()
        .unwrap_or_else(|| format!("WORKER_{number}_TASK_LIST.md"));
    Ok(Path::new(&view.task_list_directory).join(file))
}

/// `$VISUAL`, then `$EDITOR`, then `vi`.
fn editor(env: impl Fn(&str) -> Option<String>) -> String {
    ["VISUAL", "EDITOR"]
        .iter()
        .filter_map(|name| env(name))
        .find(|value| !value.trim().is_empty())
        .unwrap_or_else(|| "vi".to_owned())
}

/// Through a shell, as git does it, so that `EDITOR="code --wait"` works; the path is an argument
/// and not part of the shell's text.
fn command(editor: &str, path: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg("orchestrator-edit")
        .arg(path);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::fleet;

    #[test]
    fn a_worker_has_a_list_and_the_manager_has_none() {
        let path = task_list(&fleet(), "worker-2").unwrap();
        assert_eq!(
            path,
            Path::new("/state/checkouts/manager/WORKER_2_TASK_LIST.md")
        );
        assert_eq!(
            task_list(&fleet(), "manager").unwrap_err().exit,
            Exit::Refused
        );
        let unknown = task_list(&fleet(), "worker-9").unwrap_err();
        assert_eq!(unknown.exit, Exit::NotFound);
        assert!(unknown.render().contains("manager, worker-1, worker-2"));
    }

    #[test]
    fn the_editor_is_the_persons_and_may_have_arguments() {
        let env = |name: &str| match name {
            "VISUAL" => Some(" ".to_owned()),
            "EDITOR" => Some("printf '%s|'".to_owned()),
            _ => None,
        };
        let editor = editor(env);
        let output = command(&editor, Path::new("/a b/$x")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/a b/$x|");
        assert_eq!(super::editor(|_| None), "vi");
    }
}
