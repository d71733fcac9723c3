//! The shared work of all agents and nodes: tasks and the lists they come from.
//!
//! Called by `daemon` (the driver claims, completes and applies lists) and by the API's task
//! routes. Every change is one conditional append on the store, so any number of processes may run
//! this room. The rules ([`rules`], [`tasklist`], [`view`]) are pure functions; [`queue`] and
//! [`lists`] carry them out. Must never touch an agent, a file or a clock: time comes in.

pub mod lists;
pub mod queue;
pub mod rules;
pub mod tasklist;
pub mod view;
mod write;

pub use lists::{Applied, ListSource};
pub use queue::Queue;
pub use rules::{NewTask, Retry, TaskError};

#[cfg(test)]
mod tests {
    /// The rules decide; they must stay callable without a runtime, a disk or a clock.
    #[test]
    fn the_rules_are_pure() {
        let files = [
            ("rules.rs", include_str!("rules.rs")),
            ("tasklist.rs", include_str!("tasklist.rs")),
            ("view.rs", include_str!("view.rs")),
        ];
        let refused = [
            "tokio", "async ", ".await", "std::fs", "std::net", "std::process", "std::env",
            "std::thread", "HashMap", "HashSet", "rand::", "uuid", "Instant", "SystemTime",
        ];
        for (file, text) in files {
            let rules = text.split("#[cfg(test)]").next().unwrap_or(text);
            for word in refused {
                assert!(!rules.contains(word), "{file} names `{word}`");
            }
        }
    }
}
