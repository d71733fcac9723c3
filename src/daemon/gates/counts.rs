//! How often each gate ended how, and how it last did.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::log::replace;
use crate::config::{Gate, GatePlace};
use crate::model::Timestamp;
use crate::model::gate::{GateCounts, GateRecord, GateView};

pub(super) struct Counts {
    path: PathBuf,
    all: Mutex<BTreeMap<String, Book>>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Book {
    counts: GateCounts,
    last: Option<GateRecord>,
    last_at: Option<Timestamp>,
}

impl Counts {
    /// A file that is not there, or damaged, counts from zero: nothing is decided by it.
    pub(super) fn open(path: PathBuf) -> Self {
        let all = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            path,
            all: Mutex::new(all),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Book>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, record: &GateRecord, now: Timestamp) {
        let mut all = self.all();
        let book = all.entry(record.name.clone()).or_default();
        book.counts.count(record);
        book.last = Some(record.clone());
        book.last_at = Some(now);
        let written = serde_json::to_vec(&*all)
            .map_err(std::io::Error::from)
            .and_then(|bytes| replace(&self.path, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "the counts of gates were not written");
        }
    }

    pub(super) fn view(&self, gate: &Gate) -> GateView {
        let Book {
            counts,
            last,
            last_at,
        } = self.all().get(&gate.name).cloned().unwrap_or_default();
        GateView {
            name: gate.name.clone(),
            command: gate.command.shown(),
            image: match &gate.place {
                GatePlace::Agent => None,
                GatePlace::Image(image) => Some(image.clone()),
            },
            timeout_seconds: gate.timeout.as_secs(),
            network: gate.network,
            cache: gate.cache,
            counts,
            last,
            last_at,
        }
    }
}
