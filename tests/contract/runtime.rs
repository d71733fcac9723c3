//! (under construction)
use orchestrator::ports::Runtime as _;
use orchestrator::runtime::docker::{DockerRuntime, image};

#[tokio::test]
async fn the_bundled_image_builds() {
    let runtime = DockerRuntime::connect(None).await.unwrap();
    let start = std::time::Instant::now();
    let spec = image::bundled_image("2.1.197", 1000);
    let id = runtime
        .ensure_image(&spec, &|line| println!("{line}"))
        .await
        .unwrap_or_else(|error| panic!("{} (hint: {:?})", error.chain(), error.hint));
    println!("{} {id} {:?}", spec.tag, start.elapsed());
}
