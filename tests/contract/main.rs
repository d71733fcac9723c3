//! Contract suites: the same tests on the fake and on the real thing.

/// Each case, a function that is given a `World`, on the fake runtime and on the real Docker.
macro_rules! fake_and_docker {
    ($($case:ident)*) => {
        mod on_fake {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::World::fake().await).await;
            })*
        }
        mod on_docker {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::World::docker().await).await;
            })*
        }
    };
}

mod gates;
mod git;
mod hooks;
mod panes;
mod runtime;
mod store;
