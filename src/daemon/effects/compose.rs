//! `STATE/compose.json`: the fleet's containers as a Compose file, for people and their tools. The
//! containers' labels name it. Nothing here reads it back but to replace one agent's part.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::daemon::house::House;
use crate::daemon::start::write_private;
use crate::ports::ContainerSpec;
use crate::runtime::docker::compose::compose_json;

/// One writer at a time: agents are launched side by side.
#[derive(Clone, Debug, Default)]
pub(super) struct ComposeFile {
    turn: Arc<Mutex<()>>,
}

impl ComposeFile {
    /// Puts the newest life of one agent in.
    pub(super) fn put(&self, house: &House, spec: &ContainerSpec) -> io::Result<()> {
        // The guarded value is nothing, so a panic elsewhere left nothing half changed.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = house.paths.compose_file();
        let mut file = compose_json(std::slice::from_ref(spec));
        let there = fs::read_to_string(&path).unwrap_or_default();
        let there: Value = serde_json::from_str(&there).unwrap_or_default();
        for part in ["services", "networks"] {
            if let (Some(old), Some(new)) = (there[part].as_object(), file[part].as_object_mut()) {
                for (name, value) in old {
                    new.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        write_private(&path, &format!("{file:#}\n"))
    }
}
