//! Time and randomness, which the deciding rooms are handed.

use crate::model::Timestamp;

/// Wall-clock time that never goes back during a run.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// Random identifiers and jitter.
pub trait Entropy: Send + Sync {
    /// A fresh UUID in its usual text form.
    fn uuid(&self) -> String;
    /// Uniform in `0..1`.
    fn fraction(&self) -> f64;
}
