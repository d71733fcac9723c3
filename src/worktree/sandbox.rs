//! What runs inside the container, as the agent: the scripts, how to call them, and how to read
//! what they print. Everything they print was written by the agent and is read as such.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::CommitId;
use crate::ports::{ErrorKind, ExecOutput, ExecSpec, PortError, PortResult};

/// Brings a checkout up to a commit. Also installed into instances as `hooks/bring-up-to.sh`.
pub const BRING_UP_TO: &str = include_str!("../../hooks/bring-up-to.sh");
const EXPORT: &str = include_str!("../../hooks/export-work.sh");
const INSPECT: &str = include_str!("../../hooks/inspect-work.sh");
/// The static helper, as every instance has it mounted.
pub const HELPER: &str = "/opt/orchestrator/orchestrator-hook";

/// A `git status` of a very dirty tree; beyond it the tree is not worth listing.
const MAX_STATUS: usize = 8 * 1024 * 1024;
/// The lines before a snapshot's bundle.
const MAX_SNAPSHOT_HEADER: usize = 16 * 1024;
/// Paths kept in a [`TreeState`].
const MAX_DIRTY: usize = 100;

/// Bundles the commits of `head` (`None`: whatever `HEAD` is) that are not in `known`, commits of
/// the store that the checkout sees through its alternates. Standard output is the bundle, for
/// [`GitStore::import_bundle`](super::GitStore::import_bundle); empty if nothing is new.
pub fn export(
    workspace: &str,
    head: Option<&CommitId>,
    known: &[CommitId],
    max_bytes: usize,
) -> ExecSpec {
    let head = head.map_or("HEAD", CommitId::as_str);
    let mut arguments = vec![head];
    arguments.extend(known.iter().map(CommitId::as_str));
    script(
        EXPORT,
        "export-work",
        &arguments,
        workspace,
        max_bytes,
        Duration::from_secs(300),
    )
}

/// Prints the state of the checkout, for [`parse_inspect`].
pub fn inspect(workspace: &str) -> ExecSpec {
    script(
        INSPECT,
        "inspect-work",
        &[],
        workspace,
        MAX_STATUS,
        Duration::from_secs(60),
    )
}

/// Brings the checkout up to `target`, and its `origin/<branch>` with it, touching no uncommitted
/// or untracked work; for [`parse_bring_up_to`].
pub fn bring_up_to(workspace: &str, target: &CommitId, branch: &str) -> ExecSpec {
    let arguments = [target.as_str(), branch];
    script(
        BRING_UP_TO,
        "bring-up-to",
        &arguments,
        workspace,
        64 * 1024,
        Duration::from_secs(120),
    )
}

/// What a checkout need not send: see [`GitStore::rescue_known`](super::GitStore::rescue_known).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RescueKnown {
    /// Commits that stay in the store whatever happens.
    pub commits: Vec<CommitId>,
    /// The agent's newest snapshots, oldest first: as made in the checkout, and as kept in the store.
    pub rescues: Vec<(CommitId, CommitId)>,
}

/// Keeps everything in the checkout that is in no commit of `known`, touching neither files, index
/// nor branches; for [`parse_snapshot`]. `ignored`: also what the repository's rules ignore. Three
/// quarters of `max_bytes` are for uncommitted content; what does not fit is left out and named.
pub fn snapshot(workspace: &str, known: &RescueKnown, ignored: bool, max_bytes: usize) -> ExecSpec {
    let mut command = vec![HELPER.to_owned(), "snapshot".to_owned()];
    if ignored {
        command.push("--ignored".to_owned());
    }
    let total = max_bytes / 4 * 3;
    command.extend(["--max-total".to_owned(), total.to_string()]);
    for (made, kept) in &known.rescues {
        command.extend(["--have".to_owned(), format!("{made}={kept}")]);
    }
    command.extend(known.commits.iter().map(ToString::to_string));
    specification(command, workspace, max_bytes, Duration::from_secs(300))
}

/// What [`snapshot`] said, for [`GitStore::import_rescue`](super::GitStore::import_rescue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub outcome: SnapshotOutcome,
    /// Earlier ones that never arrived; they are in the bundle as well.
    pub also: Vec<CommitId>,
    pub bundle: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// Everything is in commits the store has.
    Nothing,
    /// As in this one, which the store has.
    Same(CommitId),
    Taken(CommitId),
}

/// Reads what [`snapshot`] printed: a few lines, an empty one, the bundle.
pub fn parse_snapshot(mut output: Vec<u8>) -> PortResult<Snapshot> {
    let unreadable = || {
        PortError::new(
            ErrorKind::Broken,
            "the answer of the snapshot could not be read",
        )
    };
    let start = &output[..output.len().min(MAX_SNAPSHOT_HEADER)];
    let end = start
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .ok_or_else(unreadable)?;
    let text = std::str::from_utf8(&output[..end]).map_err(|_| unreadable())?;
    let id = |text: &str| {
        is_commit_id(text)
            .then(|| CommitId::new(text))
            .ok_or_else(unreadable)
    };
    let mut lines = text.lines();
    if lines.next() != Some("orchestrator-snapshot 1") {
        return Err(unreadable());
    }
    let outcome = match lines.next().unwrap_or_default() {
        "none" => SnapshotOutcome::Nothing,
        line => match line.split_once(' ') {
            Some(("same", made)) => SnapshotOutcome::Same(id(made)?),
            Some(("taken", made)) => SnapshotOutcome::Taken(id(made)?),
            _ => return Err(unreadable()),
        },
    };
    let also = lines
        .map(|line| id(line.strip_prefix("also ").unwrap_or_default()))
        .collect::<PortResult<Vec<_>>>()?;
    output.drain(..end + 2);
    Ok(Snapshot {
        outcome,
        also,
        bundle: output,
    })
}

fn script(
    text: &str,
    name: &str,
    arguments: &[&str],
    workspace: &str,
    max_output_bytes: usize,
    deadline: Duration,
) -> ExecSpec {
    let mut command = vec![
        "sh".to_owned(),
        "-c".to_owned(),
        text.to_owned(),
        name.to_owned(),
    ];
    command.extend(arguments.iter().map(|&argument| argument.to_owned()));
    specification(command, workspace, max_output_bytes, deadline)
}

fn specification(
    command: Vec<String>,
    workspace: &str,
    max_output_bytes: usize,
    deadline: Duration,
) -> ExecSpec {
    // The container's user owns the checkout in the ordinary case; this covers mapped users.
    let environment = [
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
    ];
    ExecSpec {
        command,
        working_directory: Some(workspace.to_owned()),
        environment: environment
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>(),
        stdin: Vec::new(),
        max_output_bytes,
        deadline,
    }
}

/// Standard output of a script that ended well; otherwise what it said is the error.
pub fn checked(what: &str, output: ExecOutput) -> PortResult<Vec<u8>> {
    if output.exit_code == 0 {
        return Ok(output.stdout);
    }
    let said: String = String::from_utf8_lossy(&output.stderr)
        .trim()
        .chars()
        .take(500)
        .collect();
    Err(PortError::new(
        ErrorKind::Broken,
        format!("{what} ended with status {}: {said}", output.exit_code),
    )
    .hint("look at the checkout from inside the container: `git status`"))
}

/// The state of a checkout, as its own git tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeState {
    /// `None` before the first commit of a branch.
    pub head: Option<CommitId>,
    /// `None`: detached.
    pub branch: Option<String>,
    /// Tracked files with staged or unstaged changes; the first 100.
    pub dirty: Vec<String>,
    pub dirty_count: usize,
    /// Untracked files; a wholly untracked directory counts once. Ignored ones do not count.
    pub untracked: usize,
    /// `rebase`, `merge`, `cherry-pick`, `revert` or `bisect` in progress.
    pub operation: Option<String>,
}

impl TreeState {
    /// Whether everything in the tree is committed.
    pub fn is_clean(&self) -> bool {
        self.dirty_count == 0 && self.untracked == 0 && self.operation.is_none()
    }
}

/// Reads what [`inspect`] printed: `operation <name>`, then `git status --porcelain=v2 -z --branch`.
pub fn parse_inspect(output: &[u8]) -> PortResult<TreeState> {
    let unreadable = || PortError::new(ErrorKind::Broken, "the checkout's state could not be read");
    let line_end = output
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or_else(unreadable)?;
    let (first, rest) = output.split_at(line_end);
    let operation = first.strip_prefix(b"operation ").ok_or_else(unreadable)?;
    let mut state = TreeState {
        operation: (operation != b"-").then(|| bounded(operation)),
        ..TreeState::default()
    };
    let mut entries = rest[1..]
        .split(|&byte| byte == 0)
        .filter(|entry| !entry.is_empty());
    while let Some(entry) = entries.next() {
        take_entry(&mut state, entry, &mut entries).ok_or_else(unreadable)?;
    }
    Ok(state)
}

/// One entry; field counts as in git-status(1), "Porcelain Format Version 2".
fn take_entry<'a>(
    state: &mut TreeState,
    entry: &'a [u8],
    rest: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<()> {
    let path_after = |fields: usize| entry.splitn(fields + 1, |&byte| byte == b' ').nth(fields);
    match entry.first()? {
        b'#' => {
            let text = String::from_utf8_lossy(entry);
            if let Some(id) = text.strip_prefix("# branch.oid ") {
                state.head = is_commit_id(id).then(|| CommitId::new(id));
            } else if let Some(name) = text.strip_prefix("# branch.head ") {
                state.branch = (name != "(detached)").then(|| bounded(name.as_bytes()));
            }
        }
        b'1' => add_dirty(state, path_after(8)?),
        b'u' => add_dirty(state, path_after(10)?),
        b'2' => {
            add_dirty(state, path_after(9)?);
            // The path it was renamed from is an entry of its own.
            rest.next()?;
        }
        b'?' => state.untracked += 1,
        b'!' => {}
        _ => return None,
    }
    Some(())
}

fn add_dirty(state: &mut TreeState, path: &[u8]) {
    state.dirty_count += 1;
    if state.dirty.len() < MAX_DIRTY {
        state.dirty.push(bounded(path));
    }
}

fn bounded(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(500).collect()
}

fn is_commit_id(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What became of bringing a checkout up to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroughtUp {
    UpToDate,
    Forwarded,
    Merged,
    /// Uncommitted or untracked work is in the way; nothing was touched.
    Dirty,
    /// A merge, rebase or the like is in progress; nothing was touched.
    Busy,
    /// The agent has to merge by itself; nothing was touched.
    Conflict,
    /// `HEAD` is not on a branch; nothing was touched.
    Detached,
}

impl BroughtUp {
    /// Whether the checkout now holds the commit.
    pub fn holds_target(self) -> bool {
        matches!(self, Self::UpToDate | Self::Forwarded | Self::Merged)
    }
}

/// Reads what [`bring_up_to`] printed: the outcome and `HEAD` afterwards.
pub fn parse_bring_up_to(output: &[u8]) -> PortResult<(BroughtUp, Option<CommitId>)> {
    let text = String::from_utf8_lossy(output);
    let mut words = text.split_whitespace();
    let outcome = match words.next().unwrap_or_default() {
        "up-to-date" => BroughtUp::UpToDate,
        "forwarded" => BroughtUp::Forwarded,
        "merged" => BroughtUp::Merged,
        "dirty" => BroughtUp::Dirty,
        "busy" => BroughtUp::Busy,
        "conflict" => BroughtUp::Conflict,
        "detached" => BroughtUp::Detached,
        other => {
            return Err(PortError::new(
                ErrorKind::Broken,
                format!("bring-up-to printed {:?}", bounded(other.as_bytes())),
            ));
        }
    };
    Ok((
        outcome,
        words
            .next()
            .filter(|id| is_commit_id(id))
            .map(CommitId::new),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_state_is_read() {
        let text = format!(
            "operation merge\n# branch.oid {ID}\0# branch.head worker-1\0# branch.ab +1 -0\0\
             1 .M N... 100644 100644 100644 {ID} {ID} a file.txt\0\
             2 R. N... 100644 100644 100644 {ID} {ID} R100 new.txt\0old.txt\0\
             u UU N... 100644 100644 100644 100644 {ID} {ID} {ID} both.txt\0? x\0? y/\0"
        );
        let state = parse_inspect(text.as_bytes()).unwrap();
        assert_eq!(state.head, Some(CommitId::new(ID)));
        assert_eq!(state.branch.as_deref(), Some("worker-1"));
        assert_eq!(state.dirty, ["a file.txt", "new.txt", "both.txt"]);
        assert_eq!(
            (state.untracked, state.operation.as_deref()),
            (2, Some("merge"))
        );
        assert!(!state.is_clean());
    }

    #[test]
    fn a_detached_and_an_unborn_head_are_read() {
        let text = format!("operation -\n# branch.oid {ID}\0# branch.head (detached)\0");
        let state = parse_inspect(text.as_bytes()).unwrap();
        assert_eq!((state.branch.clone(), state.is_clean()), (None, true));
        let unborn = b"operation -\n# branch.oid (initial)\0# branch.head main\0";
        assert_eq!(parse_inspect(unborn).unwrap().head, None);
    }

    #[test]
    fn nonsense_is_an_error_and_nothing_panics() {
        for text in [
            &b""[..],
            b"operation",
            b"operation -\nz\0",
            b"operation -\n1 x\0",
            b"\xff\n\0",
        ] {
            assert!(parse_inspect(text).is_err(), "{text:?}");
        }
        assert!(parse_bring_up_to(b"").is_err());
        assert!(parse_bring_up_to(b"great\n").is_err());
    }

    #[test]
    fn an_outcome_is_read() {
        let (outcome, head) = parse_bring_up_to(format!("forwarded {ID}\n").as_bytes()).unwrap();
        assert_eq!(
            (outcome, head),
            (BroughtUp::Forwarded, Some(CommitId::new(ID)))
        );
        assert_eq!(
            parse_bring_up_to(b"busy -\n").unwrap(),
            (BroughtUp::Busy, None)
        );
    }
}
