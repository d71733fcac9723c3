//! (room under construction)
pub mod exchange;
