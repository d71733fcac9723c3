//! What a supervisor says of itself: which program it is, and what it was told.

use serde::{Deserialize, Serialize};

use super::{ProjectId, Timestamp};

/// Asked for by the next `up`, which may be another program or have another configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub project: ProjectId,
    pub version: String,
    /// Of the program's file: two builds of one version differ. `None` where it cannot be read.
    pub build: Option<String>,
    /// Where that file was when it was started.
    pub program: String,
    pub pid: u32,
    pub started_at: Timestamp,
    /// Goes into the digests below, so that they say nothing outside a comparison.
    pub salt: String,
    pub settings: Vec<Setting>,
}

/// One key of the configuration in effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub key: String,
    /// As `config show` shows it: what may be secret is hidden.
    pub value: serde_json::Value,
    /// Also follows what is hidden.
    pub digest: String,
}

/// Whether version `one` (`MAJOR.MINOR.PATCH`) is older than `other`. What is no such version is
/// not older than anything.
pub fn is_older(one: &str, other: &str) -> bool {
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => one < other,
        _ => false,
    }
}

fn numbers(version: &str) -> Option<[u64; 3]> {
    let plain = version.split(['-', '+']).next()?;
    let mut parts = plain.split('.').map(|part| part.parse().ok());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_older("0.9.0", "0.10.0"));
        assert!(is_older("0.9.9", "1.0.0-rc.1"));
        assert!(!is_older("0.10.0", "0.10.0"));
        assert!(!is_older("1.0.0", "0.99.99"));
        assert!(!is_older("", "1.0.0"));
        assert!(!is_older("0.1", "1.0.0"), "not a version of ours");
    }
}
