//! (room under construction)

pub mod tmux;
pub mod view;
