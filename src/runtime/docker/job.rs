//! Jobs: a command with a throwaway container of its own, followed to its end however long it takes.

use bollard::Docker;
use futures_util::StreamExt;

use super::REQUEST_DEADLINE;
use super::container::inspect_any;
use super::error::classify;
use super::once::{self, Guard, exit_code};
use super::spec::once_body;
use crate::ports::{Job, JobEnd, JobOutput, PortResult};

/// `Runtime::run_job`.
pub(super) async fn run(docker: &Docker, job: &Job, output: JobOutput<'_>) -> PortResult<JobEnd> {
    let name = once::name(&job.spec);
    let attempt = format!("running {} in container {name}", job.spec.agent);
    // From here on: a create with an unknown outcome may have made it.
    let guard = Guard::new(docker, &name);
    let result = tokio::select! {
        result = create_and_follow(docker, job, output, &name, &attempt) => result,
        () = job.stop.cancelled() => Ok(JobEnd::Stopped),
    };
    guard.remove().await;
    result
}

async fn create_and_follow(
    docker: &Docker,
    job: &Job,
    output: JobOutput<'_>,
    name: &str,
    attempt: &str,
) -> PortResult<JobEnd> {
    let failed = |error| classify(attempt, error);
    let spec = &job.spec;
    let body = once_body(spec, &spec.command, false, &spec.network);
    let attached = once::start_attached(docker, name, body, attempt).await?;
    // Waiting is one request, which is answered when it has ended.
    let patient = docker
        .clone()
        .with_timeout(job.deadline.saturating_add(REQUEST_DEADLINE));
    let ends = async {
        // It may close its outputs and go on, so their end is not its own.
        let mut printed = attached.output;
        while let Some(chunk) = printed.next().await {
            output(chunk.map_err(failed)?.as_ref());
        }
        exit_code(&patient, name, attempt).await
    };
    let Ok(ended) = tokio::time::timeout(job.deadline, ends).await else {
        return Ok(JobEnd::TimedOut);
    };
    let exit_code = ended?;
    let seen = inspect_any(docker, name).await?;
    let state = seen.and_then(|seen| seen.state);
    Ok(JobEnd::Exited {
        exit_code,
        out_of_memory: state.and_then(|state| state.oom_killed).unwrap_or(false),
    })
}
