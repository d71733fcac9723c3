//! The checks. Each has a deadline and never changes anything but a file it removes again.

use std::future::Future;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Command;

use super::report::Check;
use super::task_lists;
use crate::cli::wiring::{self, Settings};

/// Local programs answer at once; the engine may be starting.
const DEADLINE: Duration = Duration::from_secs(10);

/// A remote far away, through a slow line.
const REMOTE_DEADLINE: Duration = Duration::from_secs(30);

/// `merge-tree --write-tree`, on which merging in memory rests, came with git 2.38.
const GIT: (u32, u32) = (2, 38);

/// `set-option -p` and formats of user options came with tmux 3.0.
const TMUX: (u32, u32) = (3, 0);

const GIB: u64 = 1 << 30;

/// What the machine must have, whatever the fleet.
pub(super) async fn machine() -> Vec<Check> {
    let (engine, git, tmux) = tokio::join!(
        engine(),
        program("git", "--version", GIT),
        program("tmux", "-V", TMUX)
    );
    vec![engine, git, tmux]
}

/// What this fleet needs.
pub(super) async fn fleet(settings: &Settings) -> Vec<Check> {
    let config = &settings.loaded.config;
    let (remote, port, images) = tokio::join!(
        remote(&config.repository_url, &config.branch),
        port(config.api_port, &settings.control_socket),
        within(DEADLINE, wiring::check_gate_images(settings))
    );
    let mut checks = vec![remote];
    checks.extend(wiring::check_credentials(settings));
    checks.extend(images.into_iter().flatten());
    checks.push(port);
    checks.push(writable(&config.state_directory));
    checks.push(space(&config.state_directory));
    if let Some(lists) = wiring::task_lists(settings) {
        checks.extend(
            lists
                .iter()
                .map(|(name, bytes)| task_lists::check(name, bytes)),
        );
    }
    checks
}

async fn engine() -> Check {
    let fix =
        "start Docker (`systemctl start docker`), and be in the group `docker`, or set DOCKER_HOST";
    match within(DEADLINE, wiring::probe_engine()).await {
        Some(Ok(version)) => Check::ok("container engine", version),
        Some(Err((reason, hint))) => {
            Check::fail("container engine", reason, hint.as_deref().unwrap_or(fix))
        }
        None => Check::fail("container engine", "no answer within 10 s", fix),
    }
}

async fn program(name: &str, flag: &str, least: (u32, u32)) -> Check {
    let wanted = format!("{}.{}", least.0, least.1);
    let install = format!("install {name} {wanted} or newer");
    let Some(Ok(output)) = within(DEADLINE, run(Command::new(name).arg(flag))).await else {
        return Check::fail(name, "not found, or it does not answer", install);
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match version(&text) {
        Some(found) if found >= least => Check::ok(name, text),
        Some(_) => Check::fail(name, format!("{text} is older than {wanted}"), install),
        None => Check::warn(name, format!("`{text}` names no version"), install),
    }
}

/// The first `MAJOR.MINOR` in a text such as `tmux 3.3a` or `git version 2.47.3`.
fn version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text.get(start..)?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

async fn remote(url: &str, branch: &str) -> Check {
    let name = "repository";
    let reference = format!("refs/heads/{branch}");
    let mut git = Command::new("git");
    git.args(["ls-remote", "--exit-code", "--", url, &reference])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
        .env("LC_ALL", "C")
        .current_dir("/");
    let Some(output) = within(REMOTE_DEADLINE, run(&mut git)).await else {
        return Check::fail(
            name,
            "no answer within 30 s",
            "check the network and the URL",
        );
    };
    let output = match output {
        Ok(output) => output,
        Err(error) => return Check::fail(name, error.to_string(), "install git"),
    };
    match output.status.code() {
        Some(0) => Check::ok(name, format!("reachable, and has the branch `{branch}`")),
        // The documented code of `--exit-code` for "no matching refs".
        Some(2) => Check::fail(
            name,
            format!("reachable, but has no branch `{branch}`"),
            "push that branch, or set `branch`",
        ),
        _ => {
            // git may repeat the URL with the password in it.
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().replace(url, "the repository");
            Check::fail(
                name,
                format!("git cannot read it: {said}"),
                "check `repositoryUrl`, and that `git ls-remote` works for this user without asking",
            )
        }
    }
}

async fn port(port: u16, control_socket: &Path) -> Check {
    let name = "port";
    if port == 0 {
        return Check::ok(name, "any free one is used");
    }
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(_) => Check::ok(name, format!("{port} is free")),
        Err(_) if std::os::unix::net::UnixStream::connect(control_socket).is_ok() => {
            Check::ok(name, format!("{port} is in use; the supervisor is running"))
        }
        Err(error) => Check::fail(
            name,
            format!("{port}: {error}"),
            "set `apiPort` to another one, or to 0 for any free one",
        ),
    }
}

/// Without making it: the nearest directory that exists must be writable.
fn writable(directory: &Path) -> Check {
    let name = "state directory";
    let place = existing(directory);
    match tempfile::tempfile_in(place) {
        Ok(_) => Check::ok(name, format!("{} is writable", directory.display())),
        Err(error) => Check::fail(
            name,
            format!("cannot write in {}: {error}", place.display()),
            "set `stateDirectory` to a place you may write to",
        ),
    }
}

fn space(directory: &Path) -> Check {
    let name = "disk";
    let fix = "make room, or set `stateDirectory` to a larger disk";
    match rustix::fs::statvfs(existing(directory)) {
        Ok(disk) => space_verdict(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Check::warn(name, format!("unknown: {error}"), fix),
    }
}

/// A clone for each agent shares the objects of one store, but builds do not share anything.
fn space_verdict(free: u64) -> Check {
    let name = "disk";
    let fix = "make room, or set `stateDirectory` to a larger disk";
    let detail = format!("{:.1} GiB free", free as f64 / GIB as f64);
    if free < GIB {
        Check::fail(name, detail, fix)
    } else if free < 10 * GIB {
        Check::warn(name, detail, fix)
    } else {
        Check::ok(name, detail)
    }
}

fn existing(directory: &Path) -> &Path {
    directory
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("/"))
}

async fn run(command: &mut Command) -> std::io::Result<Output> {
    command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
}

async fn within<T>(deadline: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(deadline, future).await.ok()
}

#[cfg(test)]
mod tests {
    use super::super::report::Outcome;
    use super::*;

    fn repository(root: &Path) -> std::path::PathBuf {
        let path = root.join("repository");
        let repository = git2::Repository::init(&path).unwrap();
        let who = git2::Signature::now("a", "a@localhost").unwrap();
        let tree = repository.treebuilder(None).unwrap().write().unwrap();
        let tree = repository.find_tree(tree).unwrap();
        repository
            .commit(Some("refs/heads/main"), &who, &who, "first", &tree, &[])
            .unwrap();
        path
    }

    #[tokio::test]
    async fn the_repository_must_be_there_and_have_the_branch() {
        let root = tempfile::tempdir().unwrap();
        let path = repository(root.path());
        let check = remote(path.to_str().unwrap(), "main").await;
        assert_eq!(check.outcome, Outcome::Ok, "{check:?}");
        let check = remote(path.to_str().unwrap(), "other").await;
        assert_eq!(check.detail, "reachable, but has no branch `other`");
        assert_eq!(check.outcome, Outcome::Fail);
        let nowhere = root.path().join("nowhere");
        let check = remote(nowhere.to_str().unwrap(), "main").await;
        assert!(check.detail.starts_with("git cannot read it:"), "{check:?}");
        assert!(
            !check.detail.contains("nowhere"),
            "the URL may hold a password"
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_a_failure_unless_it_is_ours() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("control.sock");
        let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let number = taken.local_addr().unwrap().port();
        assert_eq!(port(number, &socket).await.outcome, Outcome::Fail);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(port(number, &socket).await.outcome, Outcome::Ok);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_too_old_is_a_failure() {
        let check = program("no-such-program-here", "--version", (1, 0)).await;
        assert_eq!(check.outcome, Outcome::Fail);
        let check = program("git", "--version", (99, 0)).await;
        assert!(check.detail.ends_with("is older than 99.0"), "{check:?}");
        let check = program("git", "--version", (1, 0)).await;
        assert_eq!(check.outcome, Outcome::Ok);
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version("tmux 3.3a"), Some((3, 3)));
        assert_eq!(version("git version 2.47.3"), Some((2, 47)));
        assert_eq!(version("tmux master"), None);
    }

    #[test]
    fn a_state_directory_that_does_not_exist_yet_is_judged_by_its_parent() {
        let root = tempfile::tempdir().unwrap();
        let check = writable(&root.path().join("a/b"));
        assert_eq!(check.outcome, Outcome::Ok);
        assert!(!root.path().join("a").exists(), "nothing is made");
        assert_eq!(writable(Path::new("/proc/x")).outcome, Outcome::Fail);
    }

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        assert_eq!(space_verdict(GIB / 2).outcome, Outcome::Fail);
        assert_eq!(space_verdict(5 * GIB).outcome, Outcome::Warn);
        assert_eq!(space_verdict(50 * GIB).outcome, Outcome::Ok);
    }
}
