//! A `ContainerSpec` as the Engine API wants it. Every value here was tried against API 1.41
//! (facts B.1). `compose.rs` renders the same specification for Compose: change both.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountType,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::ports::{ContainerSpec, Mount};
use crate::runtime::labels;

/// Open files of each of an agent's processes. An engine that itself runs in a sandbox cannot give
/// more than it has (20,000 was seen), and then starts nothing at all.
pub(super) const OPEN_FILES: i64 = 16_384;
/// The engine's own log of the terminal is bounded to 3 files of 10 MB.
pub(super) const LOG_MAX_SIZE: &str = "10m";
pub(super) const LOG_MAX_FILES: &str = "3";
/// Writable `/run`, in bytes; `/tmp` is the specification's.
const RUN_BYTES: i64 = 8 * 1024 * 1024;
/// What `docker stop` by hand grants; ours passes its own grace.
pub(super) const STOP_SECONDS: i64 = 10;

/// The body of `POST /containers/create` for an agent: its terminal is the main process's.
pub fn engine_body(spec: &ContainerSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        tty: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(false),
        cmd: Some(spec.command.clone()),
        labels: Some(labels::agent_labels(spec).into_iter().collect()),
        hostname: Some(spec.agent.to_string()),
        host_config: Some(host_config(spec, &spec.network)),
        ..common_body(spec)
    }
}

/// The body for a throwaway container: the same mounts, user and hardening, no terminal, so that its
/// two outputs stay apart. `network`: as the engine names it, or `none`.
pub(super) fn once_body(
    spec: &ContainerSpec,
    command: &[String],
    stdin: bool,
    network: &str,
) -> ContainerCreateBody {
    ContainerCreateBody {
        tty: Some(false),
        open_stdin: Some(stdin),
        stdin_once: Some(stdin),
        attach_stdin: Some(stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        labels: Some(labels::once_labels(spec).into_iter().collect()),
        host_config: Some(host_config(spec, network)),
        ..common_body(spec)
    }
}

fn common_body(spec: &ContainerSpec) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        // An image of a user's own may have an entry point; the command is the whole command.
        entrypoint: Some(Vec::new()),
        user: Some(user(spec)),
        env: Some(
            spec.environment
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        ),
        working_dir: Some(spec.working_directory.clone()),
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(STOP_SECONDS),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &ContainerSpec, network: &str) -> HostConfig {
    HostConfig {
        init: Some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        network_mode: Some(network.to_owned()),
        mounts: Some(spec.mounts.iter().map(engine_mount).collect()),
        readonly_rootfs: Some(true),
        tmpfs: Some(
            tmpfs(spec)
                .into_iter()
                .map(|(at, how)| (at.to_owned(), how))
                .collect(),
        ),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        pids_limit: Some(spec.pids),
        memory: spec.memory_bytes,
        // Equal: no swap. More would only make a runaway slower to die.
        memory_swap: spec.memory_bytes,
        nano_cpus: spec.milli_cpus.map(|milli| milli.saturating_mul(1_000_000)),
        ulimits: Some(vec![ulimit("nofile", OPEN_FILES), ulimit("core", 0)]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_MAX_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_MAX_FILES.to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

pub(super) fn user(spec: &ContainerSpec) -> String {
    format!("{}:{}", spec.uid, spec.gid)
}

/// Writable places outside the mounts. `exec` is said for `/tmp` because the engine's default
/// is `noexec`, and test runners run what they built there.
pub(super) fn tmpfs(spec: &ContainerSpec) -> [(&'static str, String); 2] {
    [
        (
            "/tmp",
            format!("rw,exec,nosuid,nodev,size={},mode=1777", spec.tmp_bytes),
        ),
        (
            "/run",
            format!("rw,noexec,nosuid,nodev,size={RUN_BYTES},mode=1777"),
        ),
    ]
}

/// `mounts`, not `binds`: a missing source is an error instead of a new directory of root's.
fn engine_mount(mount: &Mount) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host.display().to_string()),
        target: Some(mount.container.clone()),
        read_only: Some(mount.read_only),
        ..EngineMount::default()
    }
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(limit),
        hard: Some(limit),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{AgentId, Incarnation, ProjectId};
    use crate::ports::NO_NETWORK;

    pub(crate) fn example() -> ContainerSpec {
        ContainerSpec {
            project: ProjectId::new("demo"),
            agent: AgentId::worker(1),
            incarnation: Incarnation(3),
            image: "orchestrator-agent:1".to_owned(),
            command: vec!["claude".to_owned(), "--model".to_owned(), "m$1".to_owned()],
            environment: BTreeMap::from([("TOKEN".to_owned(), "secret".to_owned())]),
            mounts: vec![Mount {
                host: "/state/worker-1".into(),
                container: "/workspace".to_owned(),
                read_only: false,
            }],
            working_directory: "/workspace".to_owned(),
            uid: 1000,
            gid: 1000,
            network: "orchestrator-demo".to_owned(),
            memory_bytes: Some(1 << 30),
            milli_cpus: Some(1500),
            pids: 256,
            tmp_bytes: 64 << 20,
            state_directory: "/state".into(),
            settings_hash: "0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn an_agent_is_locked_in() {
        let body = engine_body(&example());
        let host = body.host_config.expect("host config");
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(
            host.security_opt,
            Some(vec!["no-new-privileges:true".to_owned()])
        );
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.init, Some(true));
        assert_eq!(host.memory, host.memory_swap);
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.privileged, None);
        assert_eq!(body.user.as_deref(), Some("1000:1000"));
        assert_eq!(
            (body.tty, body.open_stdin, body.stdin_once),
            (Some(true), Some(true), Some(false))
        );
    }

    #[test]
    fn a_throwaway_has_no_network_and_the_same_hardening() {
        let spec = example();
        let agent = engine_body(&spec).host_config.expect("host config");
        let body = once_body(&spec, &["git".to_owned()], true, NO_NETWORK);
        let once = body.host_config.expect("host config");
        assert_eq!(once.network_mode.as_deref(), Some("none"));
        assert_eq!(body.cmd, Some(vec!["git".to_owned()]));
        assert_eq!(
            HostConfig {
                network_mode: None,
                ..once
            },
            HostConfig {
                network_mode: None,
                ..agent
            }
        );
    }
}
