//! What `up` does when a supervisor of the fleet runs already: nothing, or take its place while
//! the agents go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::context::Context;
use crate::cli::error::Result;
use crate::cli::wiring::{self, Settings};
use crate::cli::{Error, Exit, format, output};
use crate::client::{Client, Ending, Health, registry};
use crate::config::{self, Applies, Change};
use crate::model::About;
use crate::model::about::is_older;
use crate::ports::ErrorKind;

/// How long the earlier supervisor may take to go. It waits 5 s for what it has begun.
const GONE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has gone.
const LOOK: Duration = Duration::from_millis(50);
/// Something is said at least so often while waiting.
const PROGRESS: Duration = Duration::from_secs(5);

/// What the person wants with a supervisor that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Replace it if it is another build and not a newer version.
    IfOther,
    Always,
    Never,
}

/// This program.
struct Own {
    version: &'static str,
    build: Option<String>,
}

/// The supervisor whose place is taken.
pub(super) struct Predecessor {
    program: Option<String>,
}

/// Makes sure that no other supervisor of this fleet runs, or says why one goes on running. Before
/// it is told to go, everything the new one needs has been looked for. `None`: none was running.
pub(super) async fn make_way(
    context: &Context,
    settings: &Settings,
    client: &Client,
    wish: Wish,
) -> Result<Option<Predecessor>> {
    refuse_a_second_place(context, settings)?;
    let Ok(health) = client.health().await else {
        return Ok(None);
    };
    let about = match client.about().await {
        Ok(about) => Some(about),
        Err(error) if error.kind == ErrorKind::NotFound && !error.is_not_running() => None,
        Err(error) => return Err(error.into()),
    };
    let pid = about.as_ref().map(|about| about.pid);
    let pid = pid.or_else(|| announced(context, client));
    if health.phase == "detaching" {
        output::say("the earlier supervisor is detaching");
    } else {
        decide_and_ask(settings, client, &health, about.as_ref(), wish).await?;
    }
    until_gone(client, pid).await?;
    let program = about.map(|about| about.program);
    Ok(Some(Predecessor { program }))
}

async fn decide_and_ask(
    settings: &Settings,
    client: &Client,
    health: &Health,
    about: Option<&About>,
    wish: Wish,
) -> Result<()> {
    let changes = about.map_or_else(Vec::new, |about| {
        config::changes(&about.settings, &about.salt, &settings.loaded.config)
    });
    let own = Own {
        version: env!("CARGO_PKG_VERSION"),
        build: wiring::own_build().await?,
    };
    decide(&own, health, about, &changes, wish)?;
    output::say(&both(&own, health, about));
    if !changes.is_empty() {
        output::say(&listed(&changes));
    }
    wiring::preflight(settings).await?;
    client.end(Ending::Detach).await?;
    output::say("it detaches, and this one takes over; the agents work on");
    Ok(())
}

/// `Ok`: its place is to be taken.
fn decide(
    own: &Own,
    health: &Health,
    about: Option<&About>,
    changes: &[Change],
    wish: Wish,
) -> Result<()> {
    let project = &health.project;
    let running = |why: &str| {
        let text = format!("the supervisor of `{project}` is running already{why}");
        Error::new(Exit::AlreadyRunning, text)
    };
    if health.phase != "running" {
        return Err(running(&format!(", and is {}", health.phase))
            .hint("wait until it has ended: `orchestrator status --watch`; then start again"));
    }
    let same = about.is_some_and(|about| about.build.is_some() && about.build == own.build);
    let older = is_older(own.version, &health.version);
    match wish {
        Wish::Always => {}
        Wish::Never if !same || !changes.is_empty() => {
            let told = format!(". {}\n{}", both(own, health, about), listed(changes));
            return Err(running(told.trim_end())
                .hint("without `--no-take-over` it is replaced, or `--take-over` does"));
        }
        Wish::IfOther if older => {
            let why = format!(
                ", as a newer version: {}; this is {}",
                health.version, own.version
            );
            return Err(running(&why)
                .hint("`--take-over` goes back to this version, if it can read the state"));
        }
        Wish::IfOther if !same => {}
        Wish::IfOther if !changes.is_empty() => {
            let why = format!(", on another configuration:\n{}", listed(changes));
            return Err(
                running(&why).hint("`orchestrator up --take-over` applies it; the agents work on")
            );
        }
        Wish::Never | Wish::IfOther => {
            return Err(running("")
                .hint("see it with `orchestrator status`, end it with `orchestrator down`"));
        }
    }
    let never: Vec<&str> = changes
        .iter()
        .filter(|change| change.applies == Applies::Never)
        .map(|change| change.key.as_str())
        .collect();
    if never.is_empty() {
        return Ok(());
    }
    let text = format!("`{}` cannot change while agents run", never.join("`, `"));
    Err(Error::new(Exit::Refused, text)
        .hint("stop the fleet first: `orchestrator down`; or give the new one its own `stateDirectory` and `project`"))
}

/// `demo` runs version 0.1.0, build 12ab34cd (process 4711); this is version 0.1.0, build 98fe76dc.
fn both(own: &Own, health: &Health, about: Option<&About>) -> String {
    let build = |build: Option<&String>| build.map_or("unknown".to_owned(), |b| format::cut(b, 8));
    let process = about.map_or_else(String::new, |about| format!(" (process {})", about.pid));
    format!(
        "`{}` runs version {}, build {}{process}; this is version {}, build {}",
        health.project,
        health.version,
        build(about.and_then(|about| about.build.as_ref())),
        own.version,
        build(own.build.as_ref()),
    )
}

/// One line each: `  workerCount: 2 -> 3`.
fn listed(changes: &[Change]) -> String {
    let lines: Vec<String> = changes
        .iter()
        .map(|change| {
            let when = match change.applies {
                Applies::AtOnce => "",
                Applies::AtNextStart => "  (for each agent when it is started next)",
                Applies::Never => "  (not while agents run)",
            };
            let values = if change.from == change.to {
                "changed; its value is not shown".to_owned()
            } else {
                format!("{} -> {}", change.from, change.to)
            };
            format!("  {}: {values}{when}", change.key)
        })
        .collect();
    lines.join("\n")
}

/// A fleet of this project or of this config directory that works elsewhere would have its
/// containers taken away by a second supervisor.
fn refuse_a_second_place(context: &Context, settings: &Settings) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let config = &settings.loaded.config;
    let entries = context.registry().map(registry::list);
    let entries = entries.and_then(std::io::Result::ok).unwrap_or_default();
    let other = entries.into_iter().find(|entry| {
        let related =
            entry.project == config.project || real(&entry.config_directory) == config.directory;
        related && real(&entry.control_socket) != real(&settings.control_socket) && entry.is_alive()
    });
    let Some(other) = other else { return Ok(()) };
    let text = format!(
        "the supervisor of `{}` is running already, with its state in {}; this configuration \
         names `{}` and {}",
        other.project,
        other.state_directory.display(),
        config.project,
        config.state_directory.display(),
    );
    let hint = format!(
        "end it first: `orchestrator down --project {}`",
        other.project
    );
    Err(Error::new(Exit::AlreadyRunning, text).hint(hint))
}

/// The process of one that is too old to say it.
fn announced(context: &Context, client: &Client) -> Option<u32> {
    let entries = registry::list(context.registry()?).ok()?;
    let place = client.place();
    let entry = entries
        .into_iter()
        .find(|entry| entry.control_socket.display().to_string() == place)?;
    Some(entry.pid)
}

async fn until_gone(client: &Client, pid: Option<u32>) -> Result<()> {
    let began = Instant::now();
    let mut said = began;
    loop {
        let there = match pid {
            Some(pid) => registry::process_exists(pid),
            None => client.health().await.is_ok(),
        };
        if !there {
            return Ok(());
        }
        if began.elapsed() > GONE {
            let text = format!(
                "the earlier supervisor has not gone after {}",
                format::age(GONE)
            );
            return Err(Error::new(Exit::TimedOut, text)
                .hint("it was asked to; see `orchestrator logs supervisor`, and start again"));
        }
        if said.elapsed() >= PROGRESS {
            output::say("waiting for the earlier supervisor to end what it has begun");
            said = Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Predecessor {
    /// What to do when the new one did not come up.
    pub(super) fn say_what_is_left(&self, config: &Path) {
        output::say("the agents work on without a supervisor; nothing is lost meanwhile");
        let config = config.display();
        output::say(&format!(
            "  orchestrator up -d --config {config}     to try again"
        ));
        let earlier = self
            .program
            .as_deref()
            .filter(|program| Path::new(program).is_file());
        if let Some(program) = earlier {
            output::say(&format!(
                "  {program} up -d --config {config}     to start the earlier one"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn health(version: &str, phase: &str) -> Health {
        Health {
            status: "ok".into(),
            project: "demo".into(),
            version: version.into(),
            phase: phase.into(),
            generation: 1,
        }
    }

    fn own(build: Option<&str>) -> Own {
        Own {
            version: "1.2.0",
            build: build.map(str::to_owned),
        }
    }

    fn about(build: Option<&str>) -> About {
        About {
            project: "demo".into(),
            version: "1.2.0".into(),
            build: build.map(str::to_owned),
            program: "/bin/orchestrator".into(),
            pid: 7,
            started_at: Timestamp(0),
            salt: String::new(),
            settings: Vec::new(),
        }
    }

    fn change(key: &str, applies: Applies) -> Change {
        Change {
            key: key.into(),
            from: serde_json::json!(1),
            to: serde_json::json!(2),
            applies,
        }
    }

    /// `None`: its place is taken.
    fn said(theirs: Option<&str>, version: &str, changes: &[Change], wish: Wish) -> Option<String> {
        let about = theirs.map(|build| about(Some(build)));
        let own = own(Some("mine"));
        let decided = decide(
            &own,
            &health(version, "running"),
            about.as_ref(),
            changes,
            wish,
        );
        decided.err().map(|error| error.render())
    }

    #[test]
    fn the_same_build_goes_on_running_and_another_takes_over() {
        let same = said(Some("mine"), "1.2.0", &[], Wish::IfOther).unwrap();
        assert!(same.contains("is running already\nhint: see it"), "{same}");
        assert_eq!(said(Some("other"), "1.2.0", &[], Wish::IfOther), None);
        assert_eq!(said(Some("other"), "1.1.9", &[], Wish::IfOther), None);
        assert_eq!(
            said(None, "1.1.9", &[], Wish::IfOther),
            None,
            "too old to say"
        );
        assert_eq!(said(Some("mine"), "1.2.0", &[], Wish::Always), None);
        let unknown = decide(
            &own(None),
            &health("1.2.0", "running"),
            Some(&about(None)),
            &[],
            Wish::IfOther,
        );
        assert!(unknown.is_ok(), "two unknown builds are not the same");
    }

    #[test]
    fn going_back_takes_a_flag() {
        let older = said(Some("other"), "1.10.0", &[], Wish::IfOther).unwrap();
        for word in ["newer version: 1.10.0", "this is 1.2.0", "--take-over"] {
            assert!(older.contains(word), "{older}");
        }
        assert_eq!(said(Some("other"), "1.10.0", &[], Wish::Always), None);
    }

    #[test]
    fn another_configuration_is_named_and_applied_when_wanted() {
        let changes = [
            change("workerCount", Applies::AtOnce),
            change("image", Applies::AtNextStart),
        ];
        let told = said(Some("mine"), "1.2.0", &changes, Wish::IfOther).unwrap();
        for word in [
            "workerCount: 1 -> 2\n",
            "image: 1 -> 2  (for each",
            "--take-over",
        ] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(said(Some("mine"), "1.2.0", &changes, Wish::Always), None);
        assert_eq!(said(Some("other"), "1.2.0", &changes, Wish::IfOther), None);
        let no = said(Some("other"), "1.2.0", &changes, Wish::Never).unwrap();
        assert!(
            no.contains("build other") && no.contains("build mine"),
            "{no}"
        );
        let never = [change("repositoryUrl", Applies::Never)];
        for wish in [Wish::Always, Wish::IfOther] {
            let told = said(Some("other"), "1.2.0", &never, wish).unwrap();
            assert!(told.contains("`repositoryUrl` cannot change"), "{told}");
        }
    }

    #[test]
    fn an_ending_is_not_cut_short() {
        for phase in ["stopping", "draining"] {
            let ending = health("1.2.0", phase);
            let decided = decide(&own(None), &ending, None, &[], Wish::Always);
            let text = decided.unwrap_err().render();
            assert!(text.contains(&format!("and is {phase}")), "{text}");
        }
    }
}
