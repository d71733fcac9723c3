//! The same specifications as a Compose file in JSON (which is YAML), for people and their tools.
//! Compose 2.20 or newer. `spec.rs` renders for the Engine: change both.

use serde_json::{Map, Value, json};

use super::spec;
use crate::ports::ContainerSpec;
use crate::runtime::labels;

/// One Compose file for all `specs` of a fleet; `{"services": {}}` for none.
///
/// Compose does not make these containers: it would recreate those the supervisor made, because
/// it hashes differently. The file is for `docker compose ls`, `ps`, `logs`, `top` and for reading.
pub fn compose_json(specs: &[ContainerSpec]) -> Value {
    let mut services = Map::new();
    let mut networks = Map::new();
    for spec in specs {
        services.insert(spec.agent.to_string(), service(spec));
        networks.insert(
            spec.network.clone(),
            json!({ "name": spec.network, "external": true }),
        );
    }
    let mut file = Map::new();
    if let Some(first) = specs.first() {
        file.insert("name".to_owned(), labels::fleet_name(&first.project).into());
    }
    file.insert("services".to_owned(), services.into());
    if !networks.is_empty() {
        file.insert("networks".to_owned(), networks.into());
    }
    file.into()
}

fn service(container: &ContainerSpec) -> Value {
    let mut service = json!({
        "image": escape(&container.image),
        "container_name": container.name(),
        "hostname": container.agent.as_str(),
        "entrypoint": [],
        "command": container.command.iter().map(|word| escape(word)).collect::<Vec<_>>(),
        "environment": escaped_map(container.environment.iter()),
        "working_dir": escape(&container.working_directory),
        "user": spec::user(container),
        "tty": true,
        "stdin_open": true,
        "init": true,
        "restart": "no",
        "stop_signal": "SIGTERM",
        "stop_grace_period": format!("{}s", spec::STOP_SECONDS),
        "read_only": true,
        "tmpfs": spec::tmpfs(container).map(|(at, how)| format!("{at}:{how}")),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": container.pids,
        "ulimits": {
            "nofile": { "soft": spec::OPEN_FILES, "hard": spec::OPEN_FILES },
            "core": { "soft": 0, "hard": 0 },
        },
        "logging": {
            "driver": "json-file",
            "options": { "max-size": spec::LOG_MAX_SIZE, "max-file": spec::LOG_MAX_FILES },
        },
        "networks": [container.network],
        "volumes": container.mounts.iter().map(|mount| json!({
            "type": "bind",
            "source": escape(&mount.host.display().to_string()),
            "target": escape(&mount.container),
            "read_only": mount.read_only,
            "bind": { "create_host_path": false },
        })).collect::<Vec<_>>(),
        // Compose sets those of its own itself.
        "labels": escaped_map(
            labels::agent_labels(container).iter().filter(|(key, _)| !key.starts_with("com.docker.")),
        ),
    });
    if let Some(memory) = container.memory_bytes {
        service["mem_limit"] = memory.into();
        service["memswap_limit"] = memory.into();
    }
    if let Some(milli) = container.milli_cpus {
        service["cpus"] = (milli as f64 / 1000.0).into();
    }
    service
}

/// Compose replaces `$NAME` in every value; `$$` stands for itself.
fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

fn escaped_map<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    entries
        .map(|(key, value)| (key.clone(), Value::from(escape(value))))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::docker::spec::tests::example;

    #[test]
    fn both_renderers_say_the_same() {
        let spec = example();
        let file = compose_json(std::slice::from_ref(&spec));
        let service = &file["services"]["worker-1"];
        let body = spec::engine_body(&spec);
        let host = body.host_config.expect("host config");
        assert_eq!(file["name"], "orchestrator-demo");
        assert_eq!(service["user"], body.user.expect("user"));
        assert_eq!(service["mem_limit"], host.memory.expect("memory"));
        assert_eq!(service["pids_limit"], host.pids_limit.expect("pids"));
        assert_eq!(service["cap_drop"], json!(host.cap_drop));
        assert_eq!(service["security_opt"], json!(host.security_opt));
        assert_eq!(service["read_only"], json!(host.readonly_rootfs));
        assert_eq!(service["cpus"], 1.5);
        let tmpfs = host.tmpfs.expect("tmpfs");
        assert_eq!(service["tmpfs"][0], format!("/tmp:{}", tmpfs["/tmp"]));
    }

    /// `compose/compose.yaml` is written for people; its values are these.
    #[test]
    fn the_file_for_people_says_the_same() {
        let file = include_str!("../../../compose/compose.yaml");
        let rendered = compose_json(&[example()]);
        let service = &rendered["services"]["worker-1"];
        let run = service["tmpfs"][1].as_str().expect("text").to_owned();
        let tmp = service["tmpfs"][0].as_str().expect("text");
        let (before, after) = tmp
            .split_once(&example().tmp_bytes.to_string())
            .expect("size");
        let grace = service["stop_grace_period"].as_str().expect("text");
        let files = &service["ulimits"]["nofile"]["soft"];
        let log = &service["logging"]["options"];
        let lines = [
            format!("- {run}"),
            format!("stop_grace_period: {grace}"),
            format!("nofile: {{ soft: {files}, hard: {files} }}"),
            format!(
                "options: {{ max-size: {}, max-file: {} }}",
                spec::LOG_MAX_SIZE,
                log["max-file"]
            ),
            "core: { soft: 0, hard: 0 }".to_owned(),
            "cap_drop: [ALL]".to_owned(),
            format!("security_opt: {}", service["security_opt"]),
            "read_only: true".to_owned(),
            "init: true".to_owned(),
            "tty: true".to_owned(),
            "stdin_open: true".to_owned(),
            format!("restart: {}", service["restart"]),
        ];
        let has = |wanted: &dyn Fn(&str) -> bool| file.lines().any(|line| wanted(line.trim()));
        for wanted in lines {
            assert!(has(&|line| line == wanted), "compose.yaml lacks `{wanted}`");
        }
        let tmp_line =
            |line: &str| line.starts_with(&format!("- {before}")) && line.ends_with(after);
        assert!(has(&tmp_line), "compose.yaml lacks `- {tmp}`");
    }

    #[test]
    fn dollars_are_not_taken_for_variables() {
        let file = compose_json(&[example()]);
        assert_eq!(file["services"]["worker-1"]["command"][2], "m$$1");
    }
}
