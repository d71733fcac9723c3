//! Warns before the disk of the state directory is full.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::handle::{DriverHandle, Input};
use super::house::House;
use crate::model::view::DiskView;
use crate::supervisor::Event;

/// A build may write some hundred MB in this time.
const LOOK: Duration = Duration::from_secs(10);
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// What is published is rounded, so that not every look is a change.
const STEP: u64 = 16 * MIB;

/// Below this there is little room: a twentieth, but no more than 10 GiB and no less than 1.
fn little(total: u64) -> u64 {
    (total / 20).clamp(GIB, 10 * GIB)
}

/// `None` while there is room.
fn verdict(free: u64, total: u64) -> Option<DiskView> {
    (free < little(total)).then_some(DiskView {
        free_bytes: free - free % STEP,
        total_bytes: total,
    })
}

pub(super) async fn watch_disk(house: Arc<House>, driver: DriverHandle, end: CancellationToken) {
    let mut told = None;
    loop {
        let now = match rustix::fs::statvfs(house.paths.root()) {
            Ok(disk) => verdict(
                disk.f_bavail.saturating_mul(disk.f_frsize),
                disk.f_blocks.saturating_mul(disk.f_frsize),
            ),
            Err(error) => {
                tracing::debug!(%error, "the disk of the state directory cannot be measured");
                told.clone()
            }
        };
        if now != told {
            if let (None, Some(disk)) = (&told, &now) {
                driver.tell(notice(disk)).await;
            }
            driver.put(Input::Disk(now.clone())).await;
            told = now;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn notice(disk: &DiskView) -> Event {
    Event::Noticed {
        agent: None,
        text: format!(
            "little room on the disk of the state directory: {} MiB of {} MiB are free",
            disk.free_bytes / MIB,
            disk.total_bytes / MIB
        ),
        hint: Some(
            "make room: agents cannot commit, and nothing is taken, merged or stored on a full disk"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_a_twentieth_within_bounds() {
        for (free, total, low) in [
            (GIB / 2, 8 * GIB, true),
            (GIB + MIB, 8 * GIB, false),
            (2 * GIB, 100 * GIB, true),
            (6 * GIB, 100 * GIB, false),
            (11 * GIB, 10_000 * GIB, false),
            (9 * GIB, 10_000 * GIB, true),
        ] {
            assert_eq!(verdict(free, total).is_some(), low, "{free} of {total}");
        }
        assert_eq!(verdict(STEP + 5, GIB), verdict(STEP + 9, GIB));
    }
}
