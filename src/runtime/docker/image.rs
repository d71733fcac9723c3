//! Makes sure the image is there: finds it, pulls it, or builds it, with every line shown.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;

use super::base;
use super::context;
use super::error::{classify, is_status, too_late};
use super::host::HostSetup;
use crate::ports::runtime::ImageBuild;
use crate::ports::{ErrorKind, ImageSpec, PortError, PortResult, ProgressLine};

/// A build that takes longer is stuck: from nothing it took about a minute and a half here.
const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// A large image over a slow line.
const PULL_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// A pull that says nothing for this long has no registry at the other end.
const PULL_SILENCE: Duration = Duration::from_secs(45);
/// Lines of build output that go into the error.
const TAIL_LINES: usize = 20;
/// Longest line kept for the error, in characters.
const TAIL_LINE_CHARACTERS: usize = 400;

/// The tag of the bundled agent image, for example `orchestrator-agent:2.1.197-u1000-1a2b3c4d`:
/// another version, another user or another recipe is another image.
pub fn bundled_tag(version: &str, uid: u32, context_hash: &str) -> String {
    // What a tag may hold, by the distribution specification: [A-Za-z0-9_][A-Za-z0-9._-]{0,127}.
    let version: String = version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    format!("orchestrator-agent:{version}-u{uid}-{context_hash}")
}

/// The bundled agent image with this Claude Code version for this user, as this binary builds it.
pub fn bundled_image(version: &str, uid: u32) -> ImageSpec {
    ImageSpec {
        tag: bundled_tag(version, uid, &context::bundled_hash()),
        build: ImageBuild::Bundled {
            claude_version: version.to_owned(),
            uid,
        },
    }
}

/// `Runtime::ensure_image`.
pub(super) async fn ensure(
    docker: &Docker,
    image: &ImageSpec,
    progress: ProgressLine<'_>,
) -> PortResult<String> {
    let patient = docker.clone().with_timeout(BUILD_DEADLINE);
    match &image.build {
        ImageBuild::Named => match id_of(docker, &image.tag).await? {
            Some(id) => return Ok(id),
            None => pull_named(&patient, &image.tag, progress).await?,
        },
        ImageBuild::Bundled {
            claude_version,
            uid,
        } => {
            if let Some(id) = id_of(docker, &image.tag).await? {
                return Ok(id);
            }
            let host = HostSetup::read();
            base::ensure(&patient, &host, progress).await?;
            let archive = context::bundled(&host.certificates)?;
            let context = (archive, "Dockerfile".to_owned());
            let options = build_options(&image.tag, &host, claude_version, *uid);
            build(&patient, &image.tag, options, context, progress).await?;
        }
        // Always built: the engine's cache makes it cheap, and the file may have changed.
        ImageBuild::Dockerfile {
            path,
            claude_version,
            uid,
        } => {
            let context = read_context(path).await?;
            let options = build_options(&image.tag, &HostSetup::read(), claude_version, *uid);
            build(&patient, &image.tag, options, context, progress).await?;
        }
    }
    id_of(docker, &image.tag).await?.ok_or_else(|| {
        PortError::new(
            ErrorKind::Broken,
            format!("the image {} is not there after it was made", image.tag),
        )
    })
}

/// The image's id, or `None` when the engine has no such image.
pub(super) async fn id_of(docker: &Docker, tag: &str) -> PortResult<Option<String>> {
    match docker.inspect_image(tag).await {
        Ok(image) => Ok(Some(image.id.unwrap_or_else(|| tag.to_owned()))),
        Err(error) if is_status(&error, 404) => Ok(None),
        Err(error) => Err(classify(&format!("looking for the image {tag}"), error)),
    }
}

/// Pulls `name:tag`, showing what the registry says.
pub(super) async fn pull(
    docker: &Docker,
    image: &str,
    progress: ProgressLine<'_>,
) -> PortResult<()> {
    let attempt = format!("pulling the image {image}");
    progress(&attempt);
    // Without a tag the engine would pull all of them.
    let (name, tag) = split_tag(image);
    let options = CreateImageOptionsBuilder::new()
        .from_image(name)
        .tag(tag)
        .build();
    let mut stream = std::pin::pin!(docker.create_image(Some(options), None, None));
    let all = async {
        loop {
            let next = tokio::time::timeout(PULL_SILENCE, stream.next()).await;
            let Ok(next) = next else {
                return Err(too_late(&attempt, PULL_SILENCE.as_secs()));
            };
            match next {
                None => return Ok(()),
                Some(Err(error)) => return Err(classify(&attempt, error)),
                // Moving bars carry details; the steps between them do not.
                Some(Ok(info)) => {
                    let quiet = info
                        .progress_detail
                        .is_some_and(|detail| detail.current.is_some());
                    if let Some(status) = info.status.filter(|_| !quiet) {
                        progress(status.trim_end());
                    }
                }
            }
        }
    };
    match tokio::time::timeout(PULL_DEADLINE, all).await {
        Ok(result) => result,
        Err(_) => Err(too_late(&attempt, PULL_DEADLINE.as_secs())),
    }
}

async fn pull_named(docker: &Docker, image: &str, progress: ProgressLine<'_>) -> PortResult<()> {
    pull(docker, image, progress).await.map_err(|error| {
        PortError::new(
            ErrorKind::NotFound,
            format!("the image {image} is neither on this machine nor to be pulled"),
        )
        .hint("build it under this name, or leave the image out of the configuration to use the bundled one")
        .because(error)
    })
}

/// Splits `registry:5000/name:tag`; a digest stays with the name.
fn split_tag(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !image.contains('@') => (name, tag),
        _ if image.contains('@') => (image, ""),
        _ => (image, "latest"),
    }
}

async fn read_context(path: &Path) -> PortResult<(Bytes, String)> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || context::of_dockerfile(&path))
        .await
        .map_err(|error| {
            PortError::new(ErrorKind::Broken, "reading the build context").because(error)
        })?
}

fn build_options(tag: &str, host: &HostSetup, version: &str, uid: u32) -> BuildImageOptionsBuilder {
    let mut arguments: HashMap<String, String> = host.arguments.clone().into_iter().collect();
    arguments.insert("CLAUDE_VERSION".to_owned(), version.to_owned());
    arguments.insert("AGENT_UID".to_owned(), uid.to_string());
    let options = BuildImageOptionsBuilder::new()
        .t(tag)
        .rm(true)
        .forcerm(true)
        .buildargs(&arguments);
    if host.needs_host_network() {
        options.networkmode("host")
    } else {
        options
    }
}

/// `context`: the archive, and the name of the Dockerfile in it.
async fn build(
    docker: &Docker,
    tag: &str,
    options: BuildImageOptionsBuilder,
    context: (Bytes, String),
    progress: ProgressLine<'_>,
) -> PortResult<()> {
    let attempt = format!("building the image {tag}");
    progress(&attempt);
    let (archive, dockerfile) = context;
    let options = options.dockerfile(&dockerfile).build();
    let mut stream =
        std::pin::pin!(docker.build_image(options, None, Some(bollard::body_full(archive))));
    let mut tail = Tail::default();
    let all = async {
        while let Some(next) = stream.next().await {
            match next {
                Ok(info) => tail.show(&info, progress),
                Err(error) => return Err(tail.explain(classify(&attempt, error))),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(BUILD_DEADLINE, all).await {
        Ok(result) => result,
        Err(_) => Err(too_late(&attempt, BUILD_DEADLINE.as_secs())),
    }
}

/// The last lines of a build, which usually say why it failed.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    fn show(&mut self, info: &BuildInfo, progress: ProgressLine<'_>) {
        let text = info
            .stream
            .as_deref()
            .or(info.status.as_deref())
            .unwrap_or_default();
        for line in text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
        {
            progress(line);
            if self.lines.len() == TAIL_LINES {
                self.lines.pop_front();
            }
            self.lines
                .push_back(line.chars().take(TAIL_LINE_CHARACTERS).collect());
        }
    }

    fn explain(&self, mut error: PortError) -> PortError {
        if !self.lines.is_empty() {
            let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
            error.message = format!(
                "{}\nlast lines of the build:\n{}",
                error.message,
                lines.join("\n")
            );
        }
        if error.hint.is_none() {
            error.hint = Some(
                "if the build cannot reach the network, set http_proxy/https_proxy, NPM_CONFIG_REGISTRY or \
                 put certificates in /usr/local/share/ca-certificates: they are passed on to the build"
                    .to_owned(),
            );
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_names_version_user_and_recipe() {
        assert_eq!(
            bundled_tag("2.1.197", 1000, "1a2b3c4d"),
            "orchestrator-agent:2.1.197-u1000-1a2b3c4d"
        );
        assert_eq!(
            bundled_tag("a b/c", 0, "x"),
            "orchestrator-agent:a_b_c-u0-x"
        );
    }

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(
            split_tag("debian:bookworm-slim"),
            ("debian", "bookworm-slim")
        );
        assert_eq!(split_tag("host:5000/name"), ("host:5000/name", "latest"));
        assert_eq!(split_tag("name@sha256:ab"), ("name@sha256:ab", ""));
    }

    #[test]
    fn a_failed_build_tells_its_last_lines() {
        let mut tail = Tail::default();
        for number in 0..30 {
            let info = BuildInfo {
                stream: Some(format!("line {number}\n")),
                ..BuildInfo::default()
            };
            tail.show(&info, &|_| {});
        }
        let error = tail.explain(PortError::new(ErrorKind::Refused, "building x: exit 1"));
        assert!(error.message.contains("line 29") && error.message.contains("line 10"));
        assert!(!error.message.contains("line 9\n"));
        assert!(error.hint.is_some());
    }
}
