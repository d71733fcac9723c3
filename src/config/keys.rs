//! The one table of keys. Parsing, environment names, schema, documentation and `show` follow it.

mod gate;

use std::time::Duration;

/// The Claude Code version the agent image is built with by default: the one every observation
/// about hooks, screens and credentials was made on.
pub const CLAUDE_VERSION: &str = "2.1.197";

/// More agents than this on one machine is a mistake, not a wish: 64 need 16 GiB when idle.
pub const MAX_WORKERS: u64 = 64;

/// One key of `orchestrator.json`.
#[derive(Debug)]
pub struct Key {
    /// Dotted path, for example `container.tmpSize`.
    pub path: &'static str,
    pub kind: Kind,
    pub default: DefaultValue,
    /// One sentence or two, in Markdown.
    pub doc: &'static str,
    /// A value in its text form, for hints, the schema and documentation.
    pub example: &'static str,
    /// The value may hold a secret: it is never shown.
    pub sensitive: bool,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    Text {
        allowed: &'static str,
        check: fn(&str) -> bool,
    },
    /// A whole number.
    Integer {
        min: u64,
        max: u64,
    },
    Number {
        min: f64,
        max: f64,
    },
    Boolean,
    Choice(&'static [&'static str]),
    /// Text with a unit, for example `1h30m`.
    Duration {
        min: Duration,
        max: Duration,
    },
    /// Bytes as text with a unit, for example `512MiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// Names of environment variables with their values.
    Map,
    /// Text for a shell, or a program and its arguments.
    Command,
    /// `"agent"`, or an object that names an image.
    Place,
    /// A list of objects that have keys of their own.
    List(&'static Entries),
}

/// What the objects of a list may hold.
#[derive(Debug)]
pub struct Entries {
    /// One of them, in a word.
    pub one: &'static str,
    /// The key that tells them apart.
    pub unique: &'static str,
    /// How many there may be.
    pub most: usize,
    /// Paths are names without dots.
    pub keys: &'static [Key],
}

/// What holds when no layer sets a key.
#[derive(Debug)]
pub enum DefaultValue {
    Required,
    /// No value, and that has a meaning of its own.
    Unset,
    /// A value in its text form.
    Text(&'static str),
    /// Worked out when loading; in words.
    Derived(&'static str),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const fn key(
    path: &'static str,
    kind: Kind,
    default: DefaultValue,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
        example,
        sensitive: false,
    }
}

const fn text(allowed: &'static str, check: fn(&str) -> bool) -> Kind {
    Kind::Text { allowed, check }
}

const fn duration(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max }
}

use DefaultValue::{Derived, Required, Text, Unset};
use Kind::{Boolean, Choice, Integer, Number, Size};

const REPOSITORY: Kind = text(
    "an https, http, ssh, git or file URL, `user@host:path`, or a path; no control characters, no leading `-`",
    super::repository::is_acceptable,
);
const PATH: Kind = text(
    "a path; `~` is your home directory, relative ones start at the config directory",
    is_path,
);

/// All keys, in the order they are shown and documented.
pub static KEYS: &[Key] = &[
    Key {
        sensitive: true,
        ..key(
            "repositoryUrl",
            REPOSITORY,
            Required,
            "https://github.com/org/repo.git",
            "The git repository to work on. A relative path starts at the config directory.",
        )
    },
    key(
        "branch",
        text("a valid git branch name", is_branch),
        Text("main"),
        "main",
        "The branch that agents start from and their work is merged into.",
    ),
    key(
        "workerCount",
        Integer {
            min: 1,
            max: MAX_WORKERS,
        },
        Required,
        "3",
        "How many workers run beside the manager.",
    ),
    key(
        "claudeConfigs",
        text("a glob pattern of files", is_glob),
        Required,
        "~/claude-configs/*.json",
        "Glob of Claude Code credential files: `settings.json` files with `env` or `apiKeyHelper`, and `.credentials.json` files. `~` is your home directory; relative patterns start at the config directory.",
    ),
    key(
        "credentials.switchAt",
        Integer { min: 1, max: 100 },
        Text("95"),
        "90",
        "Per cent of a subscription's 5-hour or weekly window at which an agent is moved to another credential, before it meets the limit. 100 moves only at the limit.",
    ),
    key(
        "credentials.writeBack",
        Boolean,
        Text("false"),
        "true",
        "Whether a renewed login is also written into your own `.credentials.json`. Otherwise the newer one lies in the state directory, and yours ages.",
    ),
    key(
        "credentials.tokenUrl",
        text(
            "an https URL; http only on this machine (localhost, 127.0.0.1, [::1])",
            is_token_url,
        ),
        Text("https://platform.claude.com/v1/oauth/token"),
        "https://platform.claude.com/v1/oauth/token",
        "Where logins are renewed.",
    ),
    key(
        "project",
        text(
            "1 to 40 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit",
            is_project,
        ),
        Derived("repository name and a short hash of the config directory"),
        "my-project",
        "Name of the fleet on this machine; part of container and tmux names.",
    ),
    key(
        "stateDirectory",
        PATH,
        Derived("`$XDG_STATE_HOME/orchestrator/<project>`, or `~/.local/state/...`"),
        "~/.local/state/orchestrator/my-project",
        "Where the supervisor keeps its database, git store, checkouts and logs.",
    ),
    key(
        "model",
        text("a model name or alias without spaces", is_word),
        Text("sonnet"),
        "sonnet",
        "The model every agent is started with, so that a change of credential does not change it.",
    ),
    key(
        "claudeVersion",
        text("a version such as 2.1.197", is_version),
        Text(CLAUDE_VERSION),
        CLAUDE_VERSION,
        "The Claude Code version the agent image is built with.",
    ),
    key(
        "image",
        text("an image reference without spaces", is_word),
        Unset,
        "registry.example.com/team/agent:1",
        "An image of your own instead of the bundled one. Not together with `dockerfile`.",
    ),
    key(
        "dockerfile",
        PATH,
        Unset,
        "agent.Dockerfile",
        "A Dockerfile of your own to build the agent image from. Not together with `image`.",
    ),
    key(
        "container.uid",
        Integer {
            min: 1,
            max: u32::MAX as u64 - 1,
        },
        Derived("your own user id, or 1000 for root"),
        "1000",
        "User id of the agent inside its container; never root.",
    ),
    key(
        "container.memory",
        Size {
            min: 256 * MIB,
            max: 4 * TIB,
        },
        Text("4GiB"),
        "4GiB",
        "Memory limit of one container.",
    ),
    key(
        "container.cpus",
        Number {
            min: 0.1,
            max: 1024.0,
        },
        Text("2"),
        "1.5",
        "CPU limit of one container, in cores; may be a fraction.",
    ),
    key(
        "container.pids",
        Integer {
            min: 64,
            max: 4_194_304,
        },
        Text("2048"),
        "2048",
        "Limit of processes and threads in one container.",
    ),
    key(
        "container.tmpSize",
        Size {
            min: 16 * MIB,
            max: TIB,
        },
        Text("1GiB"),
        "1GiB",
        "Size of the writable `/tmp` in a container; it counts as memory.",
    ),
    Key {
        sensitive: true,
        ..key(
            "environment",
            Kind::Map,
            Text("{}"),
            "{\"CARGO_TERM_COLOR\":\"never\"}",
            "Environment variables for every agent. Not for Claude credentials: those belong in the files of `claudeConfigs`.",
        )
    },
    key(
        "gates",
        Kind::List(&gate::GATES),
        Text("[]"),
        r#"[{"name":"test","command":"make test","timeout":"20m"}]"#,
        "Commands that must pass on the merged tree before it becomes the branch. They run in this order, in containers of their own, up to the first that does not pass.",
    ),
    key(
        "mergeBy",
        Choice(&["train", "manager"]),
        Text("train"),
        "manager",
        "Who merges the work of workers into the branch: `train`, the supervisor itself, in memory; `manager`, the manager, as tasks of its own. Its commits go through the gates all the same.",
    ),
    key(
        "mergeBatch",
        Integer { min: 1, max: 100 },
        Text("5"),
        "1",
        "How many agents' work is merged and tested together, or the manager is asked to merge at once, at most. 1 takes each by itself.",
    ),
    key(
        "apiPort",
        Integer {
            min: 0,
            max: 65_535,
        },
        Text("0"),
        "7780",
        "Port of the HTTP API on the loopback address; 0 chooses a free one.",
    ),
    key(
        "planning.emptyRounds",
        Integer { min: 1, max: 1000 },
        Text("2"),
        "2",
        "How many planning rounds in a row may bring no new task before the manager rests.",
    ),
    key(
        "planning.coolDown",
        duration(Duration::from_secs(1), DAY),
        Text("60s"),
        "60s",
        "Least time between two planning rounds.",
    ),
    key(
        "fetchInterval",
        duration(Duration::from_secs(1), DAY),
        Text("30s"),
        "30s",
        "How often the remote is fetched.",
    ),
    key(
        "push",
        Boolean,
        Text("true"),
        "false",
        "Whether merged commits are pushed to the remote.",
    ),
    key(
        "tasks.attempts",
        Integer { min: 1, max: 100 },
        Text("3"),
        "3",
        "How often a task may end by a cause of its own (a crash of its agent, lack of memory, an error of its turn; a hang half as often) before it counts as failed.",
    ),
    key(
        "tasks.lease",
        duration(MINUTE, Duration::from_secs(30 * 86_400)),
        Text("6h"),
        "6h",
        "How long a claim lasts when nobody renews it; a running supervisor does, while the agent holds the task.",
    ),
    key(
        "tasks.proof",
        Choice(&["commit", "none"]),
        Text("commit"),
        "none",
        "What makes a worker's task done: `commit` is commits in the branch (or its word that nothing had to be changed), nothing left uncommitted, nothing changed outside the files of the task. `none` is the end of its turn, for fleets whose tasks change no files.",
    ),
    key(
        "tasks.sendBack",
        Integer { min: 0, max: 20 },
        Text("2"),
        "1",
        "How often a task that is said to be done without proof goes back to its worker, before the manager is told or asked.",
    ),
    key(
        "git.name",
        text("a name without control characters, `<` or `>`", is_identity),
        Text("orchestrator"),
        "orchestrator",
        "Author of agents' commits and of merges.",
    ),
    key(
        "git.email",
        text(
            "an address without spaces, control characters, `<` or `>`",
            is_email,
        ),
        Text("orchestrator@localhost"),
        "bot@example.com",
        "Author address of agents' commits and of merges.",
    ),
    key(
        "restart.burst",
        Integer { min: 1, max: 1000 },
        Text("5"),
        "5",
        "How often an agent may be restarted within `restart.window` before it counts as failed.",
    ),
    key(
        "restart.window",
        duration(Duration::from_secs(1), DAY),
        Text("10m"),
        "10m",
        "The time that `restart.burst` counts over.",
    ),
    key(
        "restart.perDay",
        Integer { min: 1, max: 1000 },
        Text("20"),
        "20",
        "How often an agent may be restarted within 24 hours before it counts as failed, however far apart.",
    ),
    key(
        "restart.backoff",
        duration(Duration::from_millis(100), HOUR),
        Text("2s"),
        "2s",
        "Wait before the second restart within `restart.window`, doubled with each further one. The first is at once.",
    ),
    key(
        "restart.maximumBackoff",
        duration(Duration::from_millis(100), DAY),
        Text("2m"),
        "2m",
        "Longest wait before a restart.",
    ),
    key(
        "restart.hungAfter",
        duration(Duration::from_secs(5), DAY),
        Text("10m"),
        "10m",
        "An agent at work of which nothing has moved for so long (no hook, no status line, screen, transcript and CPU use unchanged) is restarted.",
    ),
    key(
        "rescue.interval",
        duration(Duration::from_secs(10), DAY),
        Text("5m"),
        "5m",
        "How often the uncommitted work of an agent that works is copied into the store. Before a stop, after a crash and at the end of a turn it is copied in any case.",
    ),
    key(
        "rescue.ignored",
        Boolean,
        Text("false"),
        "true",
        "Whether files that git ignores are copied too.",
    ),
    key(
        "rescue.keep",
        duration(HOUR, Duration::from_secs(3650 * 86_400)),
        Text("30d"),
        "30d",
        "How long copies of uncommitted work, and checkouts in the trash, are kept.",
    ),
    key(
        "stopGrace",
        duration(Duration::ZERO, HOUR),
        Text("20s"),
        "20s",
        "How long a stopping agent may take before it is killed.",
    ),
    key(
        "logs.level",
        Choice(&["error", "warn", "info", "debug", "trace"]),
        Text("info"),
        "debug",
        "How much the supervisor logs.",
    ),
    key(
        "logs.size",
        Size {
            min: 64 * KIB,
            max: 100 * GIB,
        },
        Text("10MiB"),
        "10MiB",
        "A log file is rotated at this size.",
    ),
    key(
        "logs.files",
        Integer { min: 1, max: 1000 },
        Text("5"),
        "5",
        "How many log files are kept.",
    ),
];

/// The key with this dotted path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys lie under this path, as `container.memory` does under `container`.
pub fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn is_branch(text: &str) -> bool {
    text.len() <= 200 && git2::Branch::name_is_valid(text).unwrap_or(false)
}

fn is_glob(text: &str) -> bool {
    is_path(text) && glob::Pattern::new(text).is_ok()
}

/// A refresh token goes there, so it must not travel in the open.
fn is_token_url(text: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else {
        return false;
    };
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.username().is_empty()
        && url.password().is_none()
        && match url.scheme() {
            "https" => url.host_str().is_some(),
            "http" => local,
            _ => false,
        }
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4096 && !text.chars().any(char::is_control)
}

fn is_project(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=40).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with('-')
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// `MAJOR.MINOR.PATCH`, with an optional pre-release part, as the npm registry has them.
pub fn is_version(text: &str) -> bool {
    let (core, extra) = text.split_once('-').unwrap_or((text, "0"));
    let numbers: Vec<&str> = core.split('.').collect();
    let extra_ok = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    text.len() <= 64
        && numbers.len() == 3
        && numbers
            .iter()
            .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        && !extra.is_empty()
        && extra.chars().all(extra_ok)
}

fn is_identity(text: &str) -> bool {
    let bad = |c: char| c.is_control() || c == '<' || c == '>';
    !text.trim().is_empty() && text.len() <= 255 && !text.chars().any(bad)
}

fn is_email(text: &str) -> bool {
    is_identity(text) && !text.chars().any(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_those_git_accepts() {
        for good in ["main", "feature/x", "v1.2"] {
            assert!(is_branch(good), "{good}");
        }
        for bad in ["", "-x", "a..b", "a b", "a.lock", "a~1", "/a", "a/"] {
            assert!(!is_branch(bad), "{bad}");
        }
    }

    #[test]
    fn projects_fit_into_container_names() {
        assert!(is_project("a-1"));
        for bad in ["", "A", "-a", "a-", "a_b", &"a".repeat(41)] {
            assert!(!is_project(bad), "{bad}");
        }
    }

    #[test]
    fn versions_have_three_numbers() {
        for good in ["2.1.197", "2.1.0-beta.1"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["latest", "2.1", "2.1.x", "2.1.1-", "2.1.1;rm"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn tokens_go_over_https_or_stay_on_this_machine() {
        for good in [
            "https://platform.claude.com/v1/oauth/token",
            "http://127.0.0.1:8080/token",
            "http://localhost/token",
            "http://[::1]:1/",
        ] {
            assert!(is_token_url(good), "{good}");
        }
        for bad in [
            "http://example.com/token",
            "http://localhost.example.com/",
            "http://127.0.0.1@example.com/",
            "https://user:word@example.com/",
            "ftp://localhost/",
            "platform.claude.com",
            "",
        ] {
            assert!(!is_token_url(bad), "{bad}");
        }
    }

    #[test]
    fn no_key_is_also_a_section() {
        for key in KEYS {
            assert!(!is_section(key.path), "{}", key.path);
        }
    }
}
