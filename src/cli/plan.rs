//! `plan`: the manager plans now.

use super::context::Context;
use super::error::Result;
use super::{Exit, output};
use crate::client::Done;

pub(super) async fn run(context: &Context) -> Result<Exit> {
    match context.running()?.client.plan().await? {
        Done::Accepted => output::say("the manager is asked to plan; see `orchestrator status`"),
        Done::AlreadySo => output::say("the manager is planning already"),
    }
    Ok(Exit::Done)
}
