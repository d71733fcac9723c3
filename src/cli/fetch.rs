//! `fetch`: look at the remote now.

use super::context::Context;
use super::error::Result;
use super::{Exit, output};
use crate::client::Done;

pub(super) async fn run(context: &Context) -> Result<Exit> {
    match context.running()?.client.fetch().await? {
        Done::Accepted => output::say("fetching"),
        Done::AlreadySo => output::say("a fetch is running already"),
    }
    Ok(Exit::Done)
}
