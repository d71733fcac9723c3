//! `orchestrator-hook snapshot`: keeps everything of the checkout that is not in a commit the
//! supervisor has.
//!
//! Runs in the checkout, as the agent. Touches neither working tree nor index nor `HEAD` nor any
//! branch, takes none of git's locks on them, and needs no clean state. What it makes is one commit
//! ([`mod@write`] says how it looks), named by a reference below `refs/orchestrator/rescue/` until the
//! supervisor has it, and sent as a bundle:
//!
//! ```text
//! orchestrator-snapshot 1
//! none | same SNAPSHOT | taken SNAPSHOT
//! also SNAPSHOT             earlier ones that the supervisor does not have, in the bundle too
//!
//! <the bundle>
//! ```
//!
//! What git's own conversions (line endings, filters) hide from `git status` does not count as a
//! change; a file that does is kept byte by byte.

mod git;
mod heads;
mod last;
mod look;
mod nested;
mod write;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use git::Git;
use heads::{Heads, OWN, Objects};
use write::Limits;

/// Snapshots in the checkout that the supervisor does not have. Beyond it the oldest goes.
const MAX_WAITING: usize = 32;

/// What the supervisor wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    ignored: bool,
    limits: Limits,
    /// Commits the supervisor keeps whatever happens.
    known: Vec<String>,
    /// Snapshots it has, oldest first: as made here, and as kept there.
    have: Vec<(String, String)>,
}

impl Order {
    /// `[--ignored] [--max-file BYTES] [--max-total BYTES] [--have MADE=KEPT]... [KNOWN]...`
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let mut order = Self {
            ignored: false,
            limits: Limits {
                file: 100 * 1024 * 1024,
                total: 200 * 1024 * 1024,
            },
            known: Vec::new(),
            have: Vec::new(),
        };
        let id = |text: &str| git::is_id(text.as_bytes()).then(|| text.to_owned());
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--ignored" => order.ignored = true,
                "--max-file" => order.limits.file = words.next()?.parse().ok()?,
                "--max-total" => order.limits.total = words.next()?.parse().ok()?,
                "--have" => {
                    let (made, kept) = words.next()?.split_once('=')?;
                    order.have.push((id(made)?, id(kept)?));
                }
                commit => order.known.push(id(commit)?),
            }
        }
        Some(order)
    }

    fn settings(&self) -> Vec<String> {
        let mut settings = vec![format!("{} {:?}", self.ignored, self.limits)];
        settings.extend(self.known.iter().cloned());
        settings
    }
}

/// A temporary file in the git directory.
struct Scratch(PathBuf);

impl Scratch {
    fn new(git_directory: &Path, what: &str) -> io::Result<Self> {
        let name = format!("orchestrator-rescue-{what}.{}", std::process::id());
        let path = git_directory.canonicalize()?.join(name);
        // git writes a lock beside it and renames that.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

pub(crate) fn run(workspace: &Path, order: &Order) -> io::Result<()> {
    let git = Git::of_checkout(workspace);
    let git_directory = crate::head::git_directory(workspace)
        .ok_or_else(|| io::Error::other(format!("{} has no .git", workspace.display())))?;
    let mut seen = look::look(&git, workspace, &git_directory, order.ignored)?;
    let heads = heads::find(&git, &git_directory)?;
    let signature = last::signature(workspace, &seen, &heads, &order.settings());
    if let Some(signature) = &signature
        && let Some((before, outcome)) = last::remembered(&git_directory)
        && before == *signature
    {
        if outcome == "-" {
            return answer("none", &[]);
        }
        let is_here = heads.own.iter().any(|(_, id)| *id == outcome);
        if order.has(&outcome) || is_here {
            return give(&git, order, &heads, &outcome);
        }
    }
    let made = make(&git, workspace, order, &mut seen, &heads)?;
    let outcome = made.as_deref().unwrap_or("-");
    if let Some(signature) = signature {
        // Without it the next look reads everything again, which costs time and nothing else.
        let _forgotten = last::remember(&git_directory, &signature, outcome);
    }
    match made {
        None => give_waiting(&git, order, &heads),
        Some(snapshot) => {
            let heads = heads::find(&git, &git_directory)?;
            give(&git, order, &heads, &snapshot)
        }
    }
}

impl Order {
    fn has(&self, made: &str) -> bool {
        self.have.iter().any(|(have, _)| have == made)
    }
}

/// The snapshot's commit: a new one, or the last one if nothing differs from it. `None`: there is
/// nothing to keep.
fn make(
    git: &Git,
    workspace: &Path,
    order: &Order,
    seen: &mut look::Seen,
    heads: &Heads,
) -> io::Result<Option<String>> {
    let asked = heads.candidates.iter().map(|candidate| &candidate.id);
    let asked = asked.chain(&order.known).chain(&seen.head);
    let kept: Vec<String> = order.have.iter().map(|(_, kept)| kept.clone()).collect();
    let plain = seen.staged.iter().map(|staged| &staged.id);
    let objects = Objects::ask(git, asked.chain(&kept), plain)?;
    let here = |ids: &[String]| -> Vec<String> {
        ids.iter().filter_map(|id| objects.commit(id)).collect()
    };
    let tips = heads.tips(&objects, seen);
    let known = here(&order.known);
    let new = heads::unknown(git, &tips, &known)?;
    if seen.items.is_empty() && seen.staged.is_empty() && seen.extras.is_empty() {
        let both = [known, here(&kept)].concat();
        let nothing_new = new.is_empty() || heads::unknown(git, &tips, &both)?.is_empty();
        if nothing_new && seen.nested.is_empty() {
            return Ok(None);
        }
    }
    nested::bundles(workspace, seen);
    heads.keep_tags(git, seen);
    let mut parents = Vec::new();
    if let Some(head) = seen.head.clone().and_then(|head| objects.commit(&head)) {
        parents.push((head, b"HEAD".to_vec()));
    }
    for tip in new {
        if parents.iter().all(|(id, _)| *id != tip) {
            let name = tips.get(&tip).cloned().unwrap_or_default();
            parents.push((tip, name));
        }
    }
    if seen.items.is_empty()
        && seen.staged.is_empty()
        && seen.extras.is_empty()
        && parents.is_empty()
    {
        return Ok(None);
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let reference = format!("{OWN}{:013}-{}", now.as_millis(), std::process::id());
    let plan = write::Order {
        workspace,
        reference: &reference,
        seconds: now.as_secs(),
        parents,
        limits: order.limits,
    };
    write::write(git, &plan, seen, &objects)?;
    let before = order
        .have
        .last()
        .map(|(made, kept)| (made.clone(), objects.commit(kept)));
    the_same_or_new(git, &reference, heads, before).map(Some)
}

/// A snapshot that says what the last one says goes again.
fn the_same_or_new(
    git: &Git,
    reference: &str,
    heads: &Heads,
    kept: Option<(String, Option<String>)>,
) -> io::Result<String> {
    let describe = |commit: &str| -> io::Result<(String, String)> {
        let said = git.run(&["rev-list", "--no-walk", "--format=%T %P", commit])?;
        let text = String::from_utf8_lossy(&said).into_owned();
        let mut lines = text.lines();
        let id = lines.next().and_then(|line| line.strip_prefix("commit "));
        let id = id.ok_or_else(|| io::Error::other("git rev-list names no commit"))?;
        Ok((id.to_owned(), lines.next().unwrap_or_default().to_owned()))
    };
    let (new, content) = describe(reference)?;
    let mut before: Vec<(String, String)> = Vec::new();
    before.extend(heads.own.last().map(|(_, id)| (id.clone(), id.clone())));
    if let Some((made, Some(kept))) = kept {
        before.push((made, kept));
    }
    for (made, where_it_is) in before {
        if describe(&where_it_is).is_ok_and(|(_, earlier)| earlier == content) {
            git.run(&["update-ref", "-d", reference, &new])?;
            return Ok(made);
        }
    }
    Ok(new)
}

/// There is nothing to keep now, but earlier snapshots may still wait for the supervisor.
fn give_waiting(git: &Git, order: &Order, heads: &Heads) -> io::Result<()> {
    match heads.own.iter().rev().find(|(_, id)| !order.has(id)) {
        Some((_, id)) => give(git, order, heads, &id.clone()),
        None => {
            tidy(git, order, heads);
            answer("none", &[])
        }
    }
}

/// Sends `snapshot` and all others in the checkout that the supervisor does not have.
fn give(git: &Git, order: &Order, heads: &Heads, snapshot: &str) -> io::Result<()> {
    tidy(git, order, heads);
    let mut waiting: Vec<&(String, String)> =
        heads.own.iter().filter(|(_, id)| !order.has(id)).collect();
    let too_many = waiting.len().saturating_sub(MAX_WAITING);
    for (name, id) in waiting.drain(..too_many) {
        let _stays = git.run(&["update-ref", "-d", name, id]);
    }
    if waiting.is_empty() {
        return answer(&format!("same {snapshot}"), &[]);
    }
    let also: Vec<&str> = waiting
        .iter()
        .map(|(_, id)| id.as_str())
        .filter(|id| *id != snapshot)
        .collect();
    let word = if order.has(snapshot) { "same" } else { "taken" };
    answer(&format!("{word} {snapshot}"), &also)?;
    bundle(git, order, &waiting)
}

fn bundle(git: &Git, order: &Order, waiting: &[&(String, String)]) -> io::Result<()> {
    let mut arguments: Vec<String> = ["bundle", "create", "-q", "--version=2", "-"]
        .map(str::to_owned)
        .into();
    arguments.extend(waiting.iter().map(|(name, _)| name.clone()));
    let kept: Vec<String> = order.have.iter().map(|(_, kept)| kept.clone()).collect();
    let objects = Objects::ask(git, order.known.iter().chain(&kept), std::iter::empty())?;
    for id in &order.known {
        arguments.extend(objects.commit(id).map(|id| format!("^{id}")));
    }
    for id in &kept {
        if objects.commit(id).is_some() {
            arguments.push(format!("^{id}"));
            // Its contents as well, and not only its commits.
            arguments.push(format!("^{id}^{{tree}}"));
        }
    }
    let output = git
        .command(&arguments)
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(git::no_git)?
        .wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(git::failed(&arguments, &output.stderr))
}

/// What the supervisor has needs no name here.
fn tidy(git: &Git, order: &Order, heads: &Heads) {
    let mut done = BTreeSet::new();
    for (name, id) in heads.own.iter().filter(|(_, id)| order.has(id)) {
        if done.insert(name) {
            let _stays = git.run(&["update-ref", "-d", name, id]);
        }
    }
}

fn answer(outcome: &str, also: &[&str]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "orchestrator-snapshot 1\n{outcome}")?;
    for id in also {
        writeln!(out, "also {id}")?;
    }
    writeln!(out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn an_order_is_read_and_anything_that_is_no_commit_refused() {
        let pair = format!("{ID}={ID}");
        let order = Order::parse(&["--ignored", "--max-file", "7", "--have", &pair, ID]);
        let order = order.expect("an order");
        assert!(order.ignored && order.has(ID));
        assert_eq!((order.limits.file, order.known), (7, vec![ID.to_owned()]));
        for words in [
            &["HEAD"][..],
            &["--upload-pack=x"],
            &["--max-file"],
            &["--have", ID],
        ] {
            assert_eq!(Order::parse(words), None, "{words:?}");
        }
    }
}
