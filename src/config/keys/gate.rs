//! The keys of one gate.

use std::time::Duration;

use super::DefaultValue::{Required, Text};
use super::{DAY, Entries, Key, Kind, duration, is_project, key, text};

/// More than this is another tool's work.
const MOST: usize = 32;

pub(super) static GATES: Entries = Entries {
    one: "gate",
    unique: "name",
    most: MOST,
    keys: &[
        key(
            "name",
            text(
                "1 to 40 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit",
                is_project,
            ),
            Required,
            "test",
            "What people, logs and agents call it; no two gates have the same.",
        ),
        key(
            "command",
            Kind::Command,
            Required,
            "make test",
            "What runs at the root of the tree. It passes if it ends with status 0.",
        ),
        key(
            "timeout",
            duration(Duration::from_secs(1), DAY),
            Text("10m"),
            "20m",
            "How long one run may take before it is killed.",
        ),
        key(
            "where",
            Kind::Place,
            Text("agent"),
            r#"{"image":"rust:1.90"}"#,
            "The image it runs in: the one that agents run in, or another.",
        ),
        key(
            "network",
            Kind::Boolean,
            Text("false"),
            "true",
            "Whether it reaches the network. What it runs was written by agents.",
        ),
        key(
            "cache",
            Kind::Boolean,
            Text("false"),
            "true",
            "Whether it has a directory `/cache` that is kept between its runs. What it runs can put anything there, and so decide what a later run finds.",
        ),
        Key {
            sensitive: true,
            ..key(
                "environment",
                Kind::Map,
                Text("{}"),
                "{\"CARGO_HOME\":\"/cache/cargo\"}",
                "Its environment variables. What it runs can read them.",
            )
        },
    ],
};
