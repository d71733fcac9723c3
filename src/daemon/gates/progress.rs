//! What runs is shown in the snapshots.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::daemon::handle::{DriverHandle, Input};
use crate::daemon::house::House;

pub(in crate::daemon) async fn follow(
    house: Arc<House>,
    driver: DriverHandle,
    end: CancellationToken,
) {
    let mut progress = house.gates.progress();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = progress.changed() => if changed.is_err() { return },
        }
        let now = progress.borrow_and_update().clone();
        driver.put(Input::Gate(now)).await;
    }
}
