//! What a conflict looks like, in text an agent or a person can work from.

use git2::{Index, IndexConflict, IndexEntry, MergeFileInput, MergeFileOptions, Repository};

use super::store::broken;
use crate::ports::PortResult;

/// Text per file; longer conflicts are cut with a note.
const MAX_TEXT: usize = 4 * 1024;
/// Files listed; a merge with more conflicts than this is not solved from the list.
const MAX_FILES: usize = 200;
/// Larger files are named without their text.
const MAX_BLOB: usize = 1024 * 1024;

/// One file that could not be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictFile {
    pub path: String,
    /// The conflicting places with git's markers (`ours`: the target branch, `theirs`: the merged
    /// commit), or one sentence where there is no text. At most about 4 KB.
    pub hunks: String,
}

pub(super) fn describe(repository: &Repository, index: &Index) -> PortResult<Vec<ConflictFile>> {
    let conflicts = index
        .conflicts()
        .map_err(|cause| broken("could not list the conflicts", cause))?;
    let mut files = Vec::new();
    for conflict in conflicts.take(MAX_FILES) {
        let conflict = conflict.map_err(|cause| broken("could not read a conflict", cause))?;
        files.push(one(repository, &conflict));
    }
    Ok(files)
}

fn one(repository: &Repository, conflict: &IndexConflict) -> ConflictFile {
    let entry = [&conflict.our, &conflict.their, &conflict.ancestor]
        .into_iter()
        .find_map(Option::as_ref);
    let path = entry.map_or_else(String::new, |entry| {
        String::from_utf8_lossy(&entry.path).into_owned()
    });
    let hunks = match (&conflict.our, &conflict.their) {
        (Some(our), Some(their)) => text(repository, conflict.ancestor.as_ref(), our, their)
            .unwrap_or_else(|| {
                "both sides changed it, and it is not text that can be shown".to_owned()
            }),
        (Some(_), None) => {
            "changed on the target branch (ours), deleted or renamed by the merged commit (theirs)"
                .to_owned()
        }
        (None, Some(_)) => {
            "deleted or renamed on the target branch (ours), changed by the merged commit (theirs)"
                .to_owned()
        }
        (None, None) => "renamed differently on both sides".to_owned(),
    };
    ConflictFile { path, hunks }
}

fn text(
    repository: &Repository,
    ancestor: Option<&IndexEntry>,
    our: &IndexEntry,
    their: &IndexEntry,
) -> Option<String> {
    let read = |entry: &IndexEntry| {
        let blob = repository.find_blob(entry.id).ok()?;
        (blob.size() <= MAX_BLOB && !blob.is_binary()).then(|| blob.content().to_vec())
    };
    let base = match ancestor {
        Some(entry) => read(entry)?,
        None => Vec::new(),
    };
    let (ours, theirs) = (read(our)?, read(their)?);
    let mut inputs = [
        MergeFileInput::new(),
        MergeFileInput::new(),
        MergeFileInput::new(),
    ];
    let [base_input, our_input, their_input] = &mut inputs;
    base_input.content(&base);
    our_input.content(&ours);
    their_input.content(&theirs);
    let mut options = MergeFileOptions::new();
    options
        .our_label("ours")
        .their_label("theirs")
        .style_standard(true);
    let merged = git2::merge_file(base_input, our_input, their_input, Some(&mut options)).ok()?;
    let found = hunks(&String::from_utf8_lossy(merged.content()));
    // Equal text but, for example, different modes.
    (!found.is_empty()).then_some(found)
}

/// The marked places with three lines around each.
fn hunks(merged: &str) -> String {
    const AROUND: usize = 3;
    let lines: Vec<&str> = merged.lines().collect();
    let mut keep = vec![false; lines.len()];
    let mut start = None;
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with("<<<<<<< ") {
            start = Some(number);
        } else if line.starts_with(">>>>>>> ")
            && let Some(first) = start.take()
        {
            let end = (number + AROUND + 1).min(lines.len());
            keep[first.saturating_sub(AROUND)..end].fill(true);
        }
    }
    let mut out = String::new();
    let mut gap = true;
    for (number, line) in lines.iter().enumerate() {
        if !keep[number] {
            gap = true;
            continue;
        }
        if gap {
            out.push_str("@@ line ");
            out.push_str(&(number + 1).to_string());
            out.push_str(" @@\n");
            gap = false;
        }
        if out.len() + line.len() > MAX_TEXT {
            out.push_str("... (more conflicts or longer lines are not shown)\n");
            break;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_show_the_markers_and_three_lines_around() {
        let text = "1\n2\n3\n4\n5\n<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n6\n7\n8\n9\n";
        assert_eq!(
            hunks(text),
            "@@ line 3 @@\n3\n4\n5\n<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n6\n7\n8\n"
        );
    }

    #[test]
    fn a_huge_conflict_is_cut() {
        let body = "x".repeat(100) + "\n";
        let text = format!(
            "<<<<<<< ours\n{}=======\n{}>>>>>>> theirs\n",
            body.repeat(200),
            body
        );
        let shown = hunks(&text);
        assert!(shown.len() < MAX_TEXT + 200);
        assert!(shown.contains("not shown"));
    }
}
