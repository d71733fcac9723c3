//! The marks on our containers and networks: our own, so that a fleet finds its things again
//! after any crash, and Compose's, so that `docker compose ls`, `ps` and `logs` show them.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use sha2::{Digest, Sha256};

use crate::model::{AgentId, Incarnation, ProjectId};
use crate::ports::ContainerSpec;

pub const PROJECT: &str = "dev.orchestrator.project";
pub const AGENT: &str = "dev.orchestrator.agent";
pub const INCARNATION: &str = "dev.orchestrator.incarnation";
pub const SPEC_HASH: &str = "dev.orchestrator.spec-hash";
pub const SETTINGS_HASH: &str = "dev.orchestrator.settings-hash";
pub const SCHEMA: &str = "dev.orchestrator.schema";
pub const STATE_DIRECTORY: &str = "dev.orchestrator.state-directory";
/// On throwaway containers instead of [`AGENT`]: for whose checkout they work.
pub const ONCE: &str = "dev.orchestrator.once";

/// Version of this set of labels. A container with another one is not adopted.
pub const SCHEMA_VERSION: &str = "1";

/// The Compose version whose labels these are (seen to be shown by 2.26, facts B.6).
const COMPOSE_VERSION: &str = "2.26.1";

/// Name of the fleet in Compose and of its network: `orchestrator-PROJECT`.
pub fn fleet_name(project: &ProjectId) -> String {
    format!("orchestrator-{project}")
}

/// Labels of an agent's container.
pub fn agent_labels(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let hash = spec_hash(spec);
    let mut labels = our_labels(spec);
    labels.extend(pairs([
        (AGENT, spec.agent.to_string()),
        (INCARNATION, spec.incarnation.to_string()),
        (SPEC_HASH, hash.clone()),
        (SETTINGS_HASH, spec.settings_hash.clone()),
    ]));
    let directory = spec.state_directory.display().to_string();
    labels.extend(pairs([
        ("com.docker.compose.project", fleet_name(&spec.project)),
        ("com.docker.compose.service", spec.agent.to_string()),
        ("com.docker.compose.container-number", "1".to_owned()),
        ("com.docker.compose.oneoff", "False".to_owned()),
        ("com.docker.compose.version", COMPOSE_VERSION.to_owned()),
        ("com.docker.compose.config-hash", hash),
        ("com.docker.compose.project.working_dir", directory.clone()),
        (
            "com.docker.compose.project.config_files",
            format!("{directory}/compose.json"),
        ),
    ]));
    labels
}

/// Labels of a throwaway container: found by project, not taken for an agent.
pub fn once_labels(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut labels = our_labels(spec);
    labels.extend(pairs([(ONCE, spec.agent.to_string())]));
    labels
}

/// Labels of the fleet's network.
pub fn network_labels(project: &ProjectId) -> BTreeMap<String, String> {
    pairs([
        (PROJECT, project.to_string()),
        (SCHEMA, SCHEMA_VERSION.to_owned()),
        ("com.docker.compose.project", fleet_name(project)),
        ("com.docker.compose.network", "default".to_owned()),
        ("com.docker.compose.version", COMPOSE_VERSION.to_owned()),
    ])
    .collect()
}

/// What a container's labels say of it: whose it is, which life, and made from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub project: ProjectId,
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub spec_hash: String,
    pub settings_hash: String,
}

/// Reads the labels of an agent's container; `None` when it is not one of ours.
pub fn read_mark<S: BuildHasher>(labels: &HashMap<String, String, S>) -> Option<Mark> {
    if labels.get(SCHEMA).map(String::as_str) != Some(SCHEMA_VERSION) {
        return None;
    }
    Some(Mark {
        project: ProjectId::new(labels.get(PROJECT)?),
        agent: AgentId::new(labels.get(AGENT)?),
        incarnation: Incarnation(labels.get(INCARNATION)?.parse().ok()?),
        spec_hash: labels.get(SPEC_HASH).cloned().unwrap_or_default(),
        settings_hash: labels.get(SETTINGS_HASH).cloned().unwrap_or_default(),
    })
}

/// Sixteen hexadecimal digits over everything of the specification that the container is made
/// from; its name and labels, and so project, agent and incarnation, do not count.
pub fn spec_hash(spec: &ContainerSpec) -> String {
    let mut digest = Sha256::new();
    let mut field = |text: &str| {
        // With lengths, so that two neighbours cannot swap characters unnoticed.
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    field(SCHEMA_VERSION);
    field(&spec.image);
    field(&format!("{:?}", spec.command));
    field(&format!("{:?}", spec.environment));
    field(&format!("{:?}", spec.mounts));
    field(&spec.working_directory);
    field(&format!("{}:{}", spec.uid, spec.gid));
    field(&spec.network);
    field(&format!("{:?}", spec.memory_bytes));
    field(&format!("{:?}", spec.milli_cpus));
    field(&format!("{} {}", spec.pids, spec.tmp_bytes));
    hexadecimal(&digest.finalize(), 8)
}

/// The first `bytes` bytes of a digest in hexadecimal.
pub(crate) fn hexadecimal(digest: &[u8], bytes: usize) -> String {
    use std::fmt::Write as _;
    digest
        .iter()
        .take(bytes)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn our_labels(spec: &ContainerSpec) -> BTreeMap<String, String> {
    pairs([
        (PROJECT, spec.project.to_string()),
        (SCHEMA, SCHEMA_VERSION.to_owned()),
        (STATE_DIRECTORY, spec.state_directory.display().to_string()),
    ])
    .collect()
}

fn pairs<const N: usize>(
    labels: [(&str, String); N],
) -> impl Iterator<Item = (String, String)> + use<N> {
    labels
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::docker::spec::tests::example;

    #[test]
    fn a_mark_survives_the_labels() {
        let spec = example();
        let labels: HashMap<_, _> = agent_labels(&spec).into_iter().collect();
        let mark = read_mark(&labels).expect("it is ours");
        assert_eq!(mark.project, spec.project);
        assert_eq!(mark.agent, spec.agent);
        assert_eq!(mark.incarnation, spec.incarnation);
        assert_eq!(mark.spec_hash, spec_hash(&spec));
        assert_eq!(mark.settings_hash, spec.settings_hash);
    }

    #[test]
    fn a_throwaway_container_is_no_agent() {
        let labels: HashMap<_, _> = once_labels(&example()).into_iter().collect();
        assert_eq!(read_mark(&labels), None);
        assert_eq!(labels.get(PROJECT).map(String::as_str), Some("demo"));
    }

    #[test]
    fn labels_carry_no_environment() {
        let labels = agent_labels(&example());
        assert!(labels.values().all(|value| !value.contains("secret")));
    }

    #[test]
    fn the_hash_follows_the_content_and_not_the_life() {
        let spec = example();
        let mut next = spec.clone();
        next.incarnation = next.incarnation.next();
        assert_eq!(spec_hash(&spec), spec_hash(&next));
        next.pids += 1;
        assert_ne!(spec_hash(&spec), spec_hash(&next));
    }
}
