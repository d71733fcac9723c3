//! Contract suites: the same tests on the fake and on the real thing.

mod gates;
mod git;
mod hooks;
mod panes;
mod runtime;
mod store;
