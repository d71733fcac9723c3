//! One copy, in words.

use std::fmt::Write as _;

use crate::cli::format::{age, safe};
use crate::model::{LeftOut, RescueContent, RescueKind, RescueView, Restored, Timestamp};

/// Paths of one kind in a text; `--json` has all.
const MAX_PATHS: usize = 200;

pub(super) fn content(content: &RescueContent, now: Timestamp) -> String {
    let rescue = &content.rescue;
    let mut text = head(rescue, now);
    let kinds = [
        (RescueKind::Staged, "staged"),
        (RescueKind::Changed, "changed"),
        (RescueKind::Untracked, "untracked"),
        (RescueKind::Deleted, "deleted"),
        (RescueKind::Nested, "in a repository inside"),
        (RescueKind::Ignored, "ignored by git"),
    ];
    for (kind, word) in kinds {
        let files: Vec<_> = content.files.iter().filter(|f| f.kind == kind).collect();
        if files.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{word}");
        for file in files.iter().take(MAX_PATHS) {
            let _ = match kind {
                RescueKind::Deleted => writeln!(text, "  {}", safe(&file.path)),
                _ => writeln!(text, "  {}  ({} bytes)", safe(&file.path), file.size),
            };
        }
        if files.len() > MAX_PATHS {
            let _ = writeln!(text, "  and {} more", files.len() - MAX_PATHS);
        }
    }
    left_out(&mut text, &rescue.left_out, "not copied");
    let _ = write!(
        text,
        "\nget it back  orchestrator rescue restore {id}\n\
         compare      orchestrator rescue show {id} --diff\n",
        id = rescue.id
    );
    text
}

fn head(rescue: &RescueView, now: Timestamp) -> String {
    let based = rescue
        .head
        .as_ref()
        .map_or("no commit yet", |head| head.as_str());
    format!(
        "copy         {}\nagent        {}\ntaken        {} ago, {}\nbased on     {based}\n\
         files        {}\nkept as      {}\n",
        rescue.commit,
        safe(rescue.agent.as_str()),
        age(now.since(rescue.at)),
        safe(&rescue.cause),
        rescue.files,
        safe(&rescue.reference),
    )
}

fn left_out(text: &mut String, all: &[LeftOut], title: &str) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for left in all.iter().take(MAX_PATHS) {
        let _ = writeln!(text, "  {}: {}", safe(&left.path), safe(&left.why));
    }
}

/// What was written, and what to do with it.
pub(super) fn restored(restored: &Restored) -> String {
    let directory = &restored.directory;
    let mut text = format!(
        "wrote {directory}\n  worktree/  {} files, as {} had them: committed, changed and untracked\n",
        restored.files,
        safe(restored.rescue.agent.as_str()),
    );
    if restored.staged > 0 {
        let _ = writeln!(
            text,
            "  index/     {} files as they were staged, where that differs",
            restored.staged
        );
    }
    if restored.extras > 0 {
        let _ = writeln!(
            text,
            "  extra/     {} files of a merge or rebase under way, and of repositories inside",
            restored.extras
        );
    }
    if !restored.deleted.is_empty() {
        text.push_str("\ndeleted there\n");
        for path in restored.deleted.iter().take(MAX_PATHS) {
            let _ = writeln!(text, "  {}", safe(path));
        }
    }
    left_out(&mut text, &restored.left_out, "not there");
    let _ = write!(
        text,
        "\nto use it: copy files from {directory}/worktree into a checkout of\n{}, or compare: \
         git diff --no-index CHECKOUT {directory}/worktree\n",
        restored
            .rescue
            .head
            .as_ref()
            .map_or("the repository", |head| head.as_str()),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::{NOW, rescue};
    use crate::model::RescueFile;

    fn file(path: &str, kind: RescueKind, size: u64) -> RescueFile {
        RescueFile {
            path: path.into(),
            kind,
            size,
        }
    }

    #[test]
    fn a_copy_is_shown_by_kinds() {
        let all = RescueContent {
            rescue: rescue(),
            files: vec![
                file("a.txt", RescueKind::Changed, 12),
                file("b.txt", RescueKind::Staged, 3),
                file("new\u{1b}[1m", RescueKind::Untracked, 7),
                file("old.txt", RescueKind::Deleted, 0),
            ],
        };
        insta::assert_snapshot!(content(&all, NOW));
    }

    #[test]
    fn what_was_written_says_how_to_use_it() {
        let written = Restored {
            rescue: rescue(),
            directory: "/here/rescue-3f2a9c01d4e5".into(),
            files: 9,
            staged: 1,
            extras: 0,
            deleted: vec!["old.txt".into()],
            left_out: rescue().left_out,
        };
        insta::assert_snapshot!(restored(&written));
    }
}
