//! Pushing what was merged. Never with force: the refspec has no `+`, and no option adds one.

use super::command::{Git, last_lines};
use super::read::descends;
use super::remote::EXCHANGE_DEADLINE;
use super::store::{GitStore, commit_id, find, head_name, oid, remote_name};
use crate::model::CommitId;
use crate::ports::{ErrorKind, PortError, PortResult};

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    Pushed {
        commit: CommitId,
    },
    UpToDate,
    /// The remote has commits we have not merged: integrate them, then push again.
    Moved,
    /// The remote said no and will again: no permission, a protected branch, a hook.
    Denied {
        reason: String,
    },
}

impl GitStore {
    /// Fetches, then pushes our tip of the branch if it is ahead of the remote's.
    ///
    /// Errors are those of [`GitStore::fetch`]; authentication failures while pushing are `Denied`.
    pub fn push(&self) -> PortResult<PushOutcome> {
        let _turn = self.network_turn();
        let remote = oid(&self.fetch_in_turn(&|_| {}, EXCHANGE_DEADLINE)?.remote_head)?;
        let repository = self.repository()?;
        let head = head_name(&self.branch);
        let tip = find(&repository, &head)?.ok_or_else(|| {
            PortError::new(
                ErrorKind::Broken,
                format!("the store has no branch {:?}", self.branch),
            )
        })?;
        if tip == remote || descends(&repository, remote, tip)? {
            return Ok(if tip == remote {
                PushOutcome::UpToDate
            } else {
                PushOutcome::Moved
            });
        }
        if !descends(&repository, tip, remote)? {
            return Ok(PushOutcome::Moved);
        }
        let output = Git::network(&self.path)
            .deadline(EXCHANGE_DEADLINE)
            .args([
                "push",
                "--porcelain",
                "--no-verify",
                "--no-follow-tags",
                "--",
            ])
            .arg(&self.remote_url)
            .arg(format!("{tip}:{head}"))
            .output()?;
        match verdict(&String::from_utf8_lossy(&output.stdout), &head) {
            Some(Verdict::Taken) if output.status.success() => {
                repository
                    .reference(&remote_name(&self.branch), tip, true, "push")
                    .map_err(|cause| super::store::broken("could not note the push", cause))?;
                Ok(PushOutcome::Pushed {
                    commit: commit_id(tip),
                })
            }
            Some(Verdict::Moved) => Ok(PushOutcome::Moved),
            Some(Verdict::Denied(reason)) => Ok(PushOutcome::Denied {
                reason: self.reason(&reason, &output.stderr),
            }),
            _ => {
                let error = self.network_error("push to", &output);
                if error.kind == ErrorKind::Refused {
                    return Ok(PushOutcome::Denied {
                        reason: error.message,
                    });
                }
                Err(error)
            }
        }
    }

    /// The remote's word for it and what its hooks or rules printed.
    fn reason(&self, word: &str, stderr: &str) -> String {
        let said: Vec<&str> = stderr
            .lines()
            .filter_map(|line| line.strip_prefix("remote:"))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let text = if said.is_empty() {
            word.to_owned()
        } else {
            format!("{word}: {}", last_lines(&said.join("\n")))
        };
        self.redact(&text)
    }
}

enum Verdict {
    Taken,
    Moved,
    Denied(String),
}

/// Reads the line about `reference` in `git push --porcelain`:
/// `<flag>\t<from>:<to>\t<summary> (<reason>)`, flags ` `, `*`, `=`, `!`.
fn verdict(porcelain: &str, reference: &str) -> Option<Verdict> {
    let line = porcelain.lines().find(|line| {
        line.split('\t')
            .nth(1)
            .is_some_and(|refs| refs.ends_with(&format!(":{reference}")))
    })?;
    let summary = line.split('\t').nth(2).unwrap_or_default();
    if !line.starts_with('!') {
        return Some(Verdict::Taken);
    }
    let reason = summary
        .split_once('(')
        .map_or(summary, |(_, rest)| rest.trim_end_matches(')'));
    // The remote moved between our fetch and our push, seen by us or by its own compare-and-set.
    let moved = [
        "fetch first",
        "non-fast-forward",
        "cannot lock ref",
        "failed to update ref",
        "stale info",
        "failed to lock",
    ];
    if moved.iter().any(|piece| reason.contains(piece)) {
        return Some(Verdict::Moved);
    }
    if summary.starts_with("[remote failure]") {
        return None;
    }
    Some(Verdict::Denied(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(summary: &str) -> &'static str {
        let text = format!("To /r\n!\tabc:refs/heads/main\t{summary}\nDone\n");
        match verdict(&text, "refs/heads/main") {
            Some(Verdict::Taken) => "taken",
            Some(Verdict::Moved) => "moved",
            Some(Verdict::Denied(_)) => "denied",
            None => "unknown",
        }
    }

    #[test]
    fn rejections_are_told_apart() {
        assert_eq!(word("[rejected] (fetch first)"), "moved");
        assert_eq!(word("[rejected] (non-fast-forward)"), "moved");
        assert_eq!(
            word("[remote rejected] (cannot lock ref 'refs/heads/main': is at x)"),
            "moved"
        );
        assert_eq!(
            word("[remote rejected] (pre-receive hook declined)"),
            "denied"
        );
        assert_eq!(
            word("[remote rejected] (protected branch hook declined)"),
            "denied"
        );
        assert_eq!(
            word("[remote failure] (remote failed to report status)"),
            "unknown"
        );
    }

    #[test]
    fn a_taken_push_is_recognised() {
        let text = "To /r\n \tabc:refs/heads/main\t1..2\nDone\n";
        assert!(matches!(
            verdict(text, "refs/heads/main"),
            Some(Verdict::Taken)
        ));
        assert!(verdict("To /r\n", "refs/heads/main").is_none());
    }
}
