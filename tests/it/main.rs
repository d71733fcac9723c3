//! The daemon in this process, with a fake engine and fake panes, real git and the real store, and
//! agents played over their real hook sockets.

mod gates;
mod harness;
mod lifecycle;
