//! Contract suites: the same tests on the fake and on the real thing.

mod git;
mod hooks;
mod panes;
mod runtime;
mod store;
