//! The image a gate runs in, found or fetched.

use super::House;
use crate::config::{Gate, GatePlace};
use crate::daemon::prepare::image_spec;
use crate::ports::runtime::ImageBuild;
use crate::ports::{ImageSpec, PortResult};

/// The id of the gate's image: what is run is what the outcome is remembered for.
///
/// # Errors
/// Those of [`crate::ports::Runtime::ensure_image`], when it is not there and cannot be had.
pub(super) async fn id(house: &House, gate: &Gate) -> PortResult<String> {
    let image = match &gate.place {
        GatePlace::Agent => image_spec(&house.setup.config),
        GatePlace::Image(tag) => ImageSpec {
            tag: tag.clone(),
            build: ImageBuild::Named,
        },
    };
    // Looked for first: an image from a Dockerfile would be built anew each time.
    let runtime = &house.setup.runtime;
    if let Some(id) = runtime.image_id(&image.tag).await? {
        return Ok(id);
    }
    let say = |line: &str| tracing::info!(gate = gate.name, image = image.tag, "{line}");
    runtime.ensure_image(&image, &say).await
}
