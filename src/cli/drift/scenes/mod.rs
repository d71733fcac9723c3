//! The scenes: each starts real instances and says what it saw.

pub(super) mod dialogs;
pub(super) mod failures;
pub(super) mod limits;
pub(super) mod resume;
pub(super) mod session;
