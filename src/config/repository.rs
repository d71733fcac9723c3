//! What kinds of repository addresses there are, and what of them may be shown.

use std::path::{Path, PathBuf};

/// Schemes git speaks without running a helper named by the address.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// What `repositoryUrl` may be. Addresses of the form `helper::...` run programs; a leading `-`
/// would be read as an option.
pub(super) fn is_acceptable(text: &str) -> bool {
    let clean = !text.is_empty()
        && text.len() <= 2048
        && text.trim() == text
        && !text.starts_with('-')
        && !text.chars().any(char::is_control)
        && !text.contains("::");
    if !clean {
        return false;
    }
    match text.split_once("://") {
        Some((scheme, rest)) => {
            SCHEMES.contains(&scheme) && !rest.is_empty() && !rest.starts_with('-')
        }
        None => scp_like(text).is_none_or(|(host, path)| {
            let host = host.rsplit('@').next().unwrap_or(host);
            !host.is_empty() && !host.starts_with('-') && !path.is_empty()
        }),
    }
}

/// `user@host:path`: a colon before any slash, as git decides it.
fn scp_like(text: &str) -> Option<(&str, &str)> {
    let (host, path) = text.split_once(':')?;
    (!host.contains('/')).then_some((host, path))
}

/// The path of a repository on this machine as it is written; `None`: it is elsewhere.
pub(super) fn local_path(url: &str) -> Option<&str> {
    if let Some(path) = url.strip_prefix("file://") {
        return Some(path.strip_prefix("localhost").unwrap_or(path));
    }
    (!url.contains("://") && scp_like(url).is_none()).then_some(url)
}

/// The repository's own name: the last part of the address, without `.git`.
pub(super) fn name(url: &str) -> &str {
    let trimmed = url.trim_end_matches('/');
    let trimmed = trimmed.strip_suffix("/.git").unwrap_or(trimmed);
    let last = trimmed.rsplit(['/', ':']).next().unwrap_or(trimmed);
    last.strip_suffix(".git").unwrap_or(last)
}

/// `host/path` in one form, so that `https://host/a/b.git` and `git@host:a/b` are seen to be the
/// same. `None` for paths.
fn identity(url: &str) -> Option<String> {
    let (authority, path) = match url.split_once("://") {
        Some(("file", _)) => return None,
        Some((_, rest)) => rest.split_once('/')?,
        None => scp_like(url)?,
    };
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = host.split(':').next().unwrap_or(host).to_lowercase();
    let path = path.trim_matches('/');
    Some(format!(
        "{host}/{}",
        path.strip_suffix(".git").unwrap_or(path)
    ))
}

/// Whether two addresses, or paths, mean one repository.
pub(super) fn same(one: &str, other: &str) -> bool {
    match (local_path(one), local_path(other)) {
        (Some(one), Some(other)) => without_git(Path::new(one)) == without_git(Path::new(other)),
        _ => identity(one).is_some_and(|one| identity(other) == Some(one)),
    }
}

/// `/x/.git` names the same repository as `/x`.
fn without_git(path: &Path) -> PathBuf {
    let real = super::paths::real(path);
    match (real.file_name(), real.parent()) {
        (Some(name), Some(parent)) if name == ".git" => parent.to_owned(),
        _ => real,
    }
}

/// The address without what may be a password or token: user parts of http addresses, any user
/// part with a colon, and queries.
pub fn redact(url: &str) -> String {
    let (url, query) = match url.split_once('?') {
        Some((url, _)) => (url, "?(hidden)"),
        None => (url, ""),
    };
    let Some((before, host)) = url.rsplit_once('@') else {
        return format!("{url}{query}");
    };
    let (scheme, user) = match before.find("://") {
        Some(at) => before.split_at(at + 3),
        None => ("", before),
    };
    if user.contains(':') || scheme.starts_with("http") {
        format!("{scheme}(hidden)@{host}{query}")
    } else {
        format!("{url}{query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_run_programs_or_look_like_options_are_refused() {
        for good in [
            "https://github.com/org/repo.git",
            "git@github.com:org/repo.git",
            "ssh://git@host:2222/x",
            "/srv/repo",
            "../repo",
            "repo.git",
            "file:///srv/repo",
        ] {
            assert!(is_acceptable(good), "{good}");
        }
        for bad in [
            "",
            " https://x/y",
            "--upload-pack=sh",
            "ext::sh -c id",
            "ftp://x/y",
            "ssh://-oProxyCommand=id/x",
            "-x:y",
            "a\nb",
            "https://",
        ] {
            assert!(!is_acceptable(bad), "{bad}");
        }
    }

    #[test]
    fn one_repository_is_known_by_its_several_addresses() {
        assert!(same(
            "https://me:pw@GitHub.com/org/repo.git",
            "git@github.com:org/repo"
        ));
        assert!(same("ssh://git@host:22/a/b/", "https://host/a/b"));
        assert!(same("/nowhere/x/.git", "file:///nowhere/x"));
        assert!(!same("https://host/a/b", "https://host/a/c"));
        assert!(!same("https://host/a", "/a"));
    }

    #[test]
    fn names_come_from_the_last_part() {
        for (url, expected) in [
            ("https://h/org/Repo.git", "Repo"),
            ("git@h:tool", "tool"),
            ("/srv/x/.git", "x"),
            ("/srv/x/", "x"),
        ] {
            assert_eq!(name(url), expected);
        }
    }

    #[test]
    fn tokens_and_passwords_are_hidden() {
        for url in [
            "https://hush@h/x",
            "https://me:hush@h/x",
            "ssh://me:hush@h/x",
            "me:hush@h",
            "https://h/x?token=hush",
        ] {
            assert!(!redact(url).contains("hush"), "{url}");
        }
        for url in ["git@h:x", "ssh://git@h/x", "https://h/x", "/a/b"] {
            assert_eq!(redact(url), url);
        }
    }
}
