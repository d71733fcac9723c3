//! `attach NAME`: becomes a tmux client of the agent's pane.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::Args;

use super::context::{Context, agent};
use super::error::Result;
use super::{Error, Exit, output};

/// Watch an agent in its tmux session; leave with Ctrl-b d, which does not disturb it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  orchestrator attach worker-1

The same by hand: `orchestrator status` prints the tmux socket for
  tmux -L SOCKET attach -t =worker-1")]
pub struct AttachArgs {
    /// `manager` or `worker-N`
    name: String,
}

/// Where this process runs, as far as tmux goes.
#[derive(Debug, PartialEq, Eq)]
enum Inside {
    NoTmux,
    /// The fleet's own server.
    Fleet,
    AnotherServer,
}

pub(super) async fn run(context: &Context, args: &AttachArgs) -> Result<Exit> {
    let view = context.running()?.client.status().await?;
    let agent = agent(&view, &args.name)?;
    let inside = inside(std::env::var("TMUX").ok().as_deref(), &view.tmux_socket);
    let mut command = command(&view.tmux_socket, agent.id.as_str(), &inside);
    if inside == Inside::AnotherServer {
        output::say("hint: this is a tmux inside a tmux: press the prefix twice for the inner one");
    }
    // Replaces this process; comes back only when that fails.
    let error = command.exec();
    Err(Error::new(Exit::Prerequisite, "cannot run `tmux`")
        .because(&error)
        .hint("install tmux; `orchestrator doctor` checks what is needed"))
}

/// `$TMUX` is `SOCKET_PATH,PID,SESSION`; a socket given by name has that name as its file name.
fn inside(variable: Option<&str>, socket: &str) -> Inside {
    let Some(variable) = variable.filter(|text| !text.is_empty()) else {
        return Inside::NoTmux;
    };
    let path = variable.split(',').next().unwrap_or_default();
    let same = path == socket || path.rsplit('/').next() == Some(socket);
    if same {
        Inside::Fleet
    } else {
        Inside::AnotherServer
    }
}

fn command(socket: &str, session: &str, inside: &Inside) -> Command {
    let mut command = Command::new("tmux");
    // A path goes with -S, a name with -L.
    command.arg(if socket.contains('/') { "-S" } else { "-L" });
    command.arg(socket);
    command.arg(match inside {
        Inside::Fleet => "switch-client",
        Inside::NoTmux | Inside::AnotherServer => "attach",
    });
    // `=`: the whole name, so that `worker-1` is not `worker-10`.
    command.arg("-t").arg(format!("={session}"));
    if *inside == Inside::AnotherServer {
        command.env_remove("TMUX");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        let args = command.get_args();
        args.map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn outside_tmux_it_attaches_to_exactly_that_session() {
        let command = command("orchestrator-demo", "worker-1", &Inside::NoTmux);
        assert_eq!(
            words(&command),
            ["-L", "orchestrator-demo", "attach", "-t", "=worker-1"]
        );
    }

    #[test]
    fn inside_the_fleets_tmux_it_switches_and_inside_another_it_nests() {
        let fleet = inside(
            Some("/tmp/tmux-0/orchestrator-demo,77,0"),
            "orchestrator-demo",
        );
        assert_eq!(fleet, Inside::Fleet);
        let switch = command("orchestrator-demo", "worker-1", &fleet);
        assert_eq!(words(&switch)[2], "switch-client");
        let other = inside(Some("/tmp/tmux-0/default,77,0"), "orchestrator-demo");
        assert_eq!(other, Inside::AnotherServer);
        let nested = command("orchestrator-demo", "worker-1", &other);
        let removed = nested.get_envs().any(|env| env == ("TMUX".as_ref(), None));
        assert!(removed, "tmux refuses to nest while TMUX is set");
        assert_eq!(inside(Some(""), "x"), Inside::NoTmux);
        assert_eq!(inside(None, "x"), Inside::NoTmux);
    }

    #[test]
    fn a_socket_by_path_is_given_as_path() {
        let command = command("/run/x/tmux", "manager", &Inside::NoTmux);
        assert_eq!(words(&command)[..2], ["-S", "/run/x/tmux"]);
    }
}
