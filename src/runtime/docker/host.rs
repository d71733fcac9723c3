//! What this host needs to reach the network, so that an image build inside the engine reaches it
//! too: proxies, mirrors, certificates. The only place of this room that reads the environment:
//!
//! | read | becomes |
//! |---|---|
//! | `http_proxy`, `https_proxy`, `no_proxy`, also in capitals | the build arguments of that name |
//! | `NPM_CONFIG_REGISTRY`, `npm_config_registry`, else `registry=` in `~/.npmrc` | `NPM_REGISTRY` |
//! | apt sources of a Debian host that name a mirror | `APT_MIRROR`, `APT_SECURITY_MIRROR` |
//! | `/usr/local/share/ca-certificates`, and the bundle that `SSL_CERT_FILE`, `NODE_EXTRA_CA_CERTS` or `CURL_CA_BUNDLE` names, less what the distribution ships | files in `ca/` |
//!
//! On a machine with nothing special all of it is empty, and the build asks the public servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// More certificates than any bundle seen; a limit against a file that is none.
const MAX_CERTIFICATES: usize = 600;
/// Largest file read here, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Directories below a certificate directory that are entered.
const MAX_DEPTH: usize = 4;

/// What an image build is given from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSetup {
    /// Build arguments by name.
    pub arguments: BTreeMap<String, String>,
    /// PEM blocks, one certificate each.
    pub certificates: Vec<String>,
}

impl HostSetup {
    /// Reads the environment and the host's files. Unreadable files count as absent: the build
    /// itself tells what it could not reach.
    pub fn read() -> Self {
        Self::from_parts(&|name| std::env::var(name).ok(), Path::new("/"))
    }

    /// A proxy or mirror on this host's loopback is out of reach for a build with a network of its
    /// own.
    pub fn needs_host_network(&self) -> bool {
        let loopback = ["://localhost", "://127.", "://[::1]"];
        self.arguments
            .iter()
            .filter(|(name, _)| *name != "no_proxy")
            .any(|(_, value)| loopback.iter().any(|start| value.contains(start)))
    }

    /// As [`HostSetup::read`], with the environment and the root of the file system handed in.
    fn from_parts(variable: &dyn Fn(&str) -> Option<String>, root: &Path) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let mut arguments = BTreeMap::new();
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = variable(name).or_else(|| variable(&name.to_ascii_uppercase())) {
                arguments.insert(name.to_owned(), value);
            }
        }
        let home = variable("HOME").map(|home| below(root, Path::new(&home)));
        let registry = variable("NPM_CONFIG_REGISTRY")
            .or_else(|| variable("npm_config_registry"))
            .or_else(|| npmrc_registry(&read_text(&home?.join(".npmrc"))?));
        if let Some(registry) = registry.filter(|url| !has_login(url)) {
            arguments.insert("NPM_REGISTRY".to_owned(), registry);
        }
        arguments.extend(apt_mirrors(root));
        let named = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"]
            .iter()
            .filter_map(|name| variable(name))
            .map(PathBuf::from);
        Self {
            arguments,
            certificates: certificates(root, named),
        }
    }
}

fn npmrc_registry(npmrc: &str) -> Option<String> {
    npmrc.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "registry").then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Build arguments show in the image's history, so a URL with a login in it is not passed on.
fn has_login(url: &str) -> bool {
    url.split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .is_some_and(|host| host.contains('@'))
}

/// Mirrors of a Debian host. Ubuntu's sources are of no use to a Debian image.
fn apt_mirrors(root: &Path) -> BTreeMap<String, String> {
    let mut mirrors = BTreeMap::new();
    let release = read_text(&root.join("etc/os-release")).unwrap_or_default();
    if !release.lines().any(|line| line.trim() == "ID=debian") {
        return mirrors;
    }
    let mut files = vec![root.join("etc/apt/sources.list")];
    files.extend(files_below(&root.join("etc/apt/sources.list.d"), 1));
    for text in files.iter().filter_map(|file| read_text(file)) {
        for url in text.lines().flat_map(source_urls) {
            let url = url.trim_end_matches('/');
            let name = if url.ends_with("/debian") {
                "APT_MIRROR"
            } else if url.ends_with("/debian-security") {
                "APT_SECURITY_MIRROR"
            } else {
                continue;
            };
            let official = ["//deb.debian.org/", "//security.debian.org/"];
            if !official.iter().any(|host| url.contains(host)) && !has_login(url) {
                mirrors
                    .entry(name.to_owned())
                    .or_insert_with(|| url.to_owned());
            }
        }
    }
    mirrors
}

/// URLs of a `deb` line or of a deb822 `URIs:` field.
fn source_urls(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim();
    let wanted = line.starts_with("deb ") || line.starts_with("URIs:");
    line.split_whitespace()
        .filter(move |word| wanted && word.starts_with("http"))
}

fn certificates(root: &Path, named: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let mut seen: BTreeSet<String> =
        files_below(&root.join("usr/share/ca-certificates"), MAX_DEPTH)
            .iter()
            .filter_map(|file| read_text(file))
            .flat_map(|text| pem_blocks(&text))
            .collect();
    files_below(&root.join("usr/local/share/ca-certificates"), MAX_DEPTH)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "crt"))
        .chain(named.map(|file| below(root, &file)))
        .filter_map(|file| read_text(&file))
        .flat_map(|text| pem_blocks(&text))
        .filter(|block| seen.insert(block.clone()))
        .take(MAX_CERTIFICATES)
        .collect()
}

/// The certificates in a PEM text, each with its markers and a final newline.
fn pem_blocks(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        rest = &rest[start..];
        let Some(end) = rest.find(END).map(|at| at + END.len()) else {
            break;
        };
        blocks.push(rest[..end].replace('\r', "") + "\n");
        rest = &rest[end..];
    }
    blocks
}

fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn read_text(path: &Path) -> Option<String> {
    let size = fs::metadata(path).ok()?.len();
    if size > MAX_FILE_BYTES {
        return None;
    }
    fs::read_to_string(path).ok()
}

/// Files of a directory and of those in it, sorted, so that a build is the same twice.
fn files_below(directory: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| {
            if !path.is_dir() {
                vec![path]
            } else if depth > 1 {
                files_below(&path, depth - 1)
            } else {
                Vec::new()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const B: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_plain_host_gives_nothing() {
        let root = host(&[
            ("etc/os-release", "ID=debian\n"),
            (
                "etc/apt/sources.list",
                "deb http://deb.debian.org/debian bookworm main\n",
            ),
        ]);
        assert_eq!(
            HostSetup::from_parts(&|_| None, root.path()),
            HostSetup::default()
        );
    }

    #[test]
    fn proxies_and_mirrors_become_arguments() {
        let root = host(&[
            ("etc/os-release", "ID=debian\n"),
            (
                "etc/apt/sources.list.d/debian.sources",
                "URIs: http://mirror.example/debian/\nSuites: bookworm\n\nURIs: http://mirror.example/debian-security\n",
            ),
            (
                "home/me/.npmrc",
                "audit=false\nregistry=https://npm.example/\n",
            ),
        ]);
        let environment = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://proxy:3128".to_owned()),
            "HOME" => Some("/home/me".to_owned()),
            _ => None,
        };
        let setup = HostSetup::from_parts(&environment, root.path());
        let expected = [
            ("APT_MIRROR", "http://mirror.example/debian"),
            (
                "APT_SECURITY_MIRROR",
                "http://mirror.example/debian-security",
            ),
            ("NPM_REGISTRY", "https://npm.example/"),
            ("https_proxy", "http://proxy:3128"),
        ];
        assert_eq!(
            setup.arguments,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
    }

    #[test]
    fn a_proxy_on_loopback_needs_the_hosts_network() {
        let with = |name: &str, value: &str| HostSetup {
            arguments: [(name.to_owned(), value.to_owned())].into(),
            ..HostSetup::default()
        };
        assert!(with("http_proxy", "http://127.0.0.1:3128").needs_host_network());
        assert!(!with("http_proxy", "http://proxy:3128").needs_host_network());
        assert!(!with("no_proxy", "http://localhost").needs_host_network());
    }

    #[test]
    fn a_registry_with_a_login_is_not_passed_on() {
        let environment = |name: &str| {
            (name == "NPM_CONFIG_REGISTRY").then(|| "https://me:pw@npm.example/".to_owned())
        };
        let root = host(&[]);
        assert!(
            HostSetup::from_parts(&environment, root.path())
                .arguments
                .is_empty()
        );
    }

    #[test]
    fn only_the_hosts_own_certificates_are_taken_each_once() {
        let root = host(&[
            ("usr/share/ca-certificates/mozilla/a.crt", A),
            ("usr/local/share/ca-certificates/b.crt", B),
            ("etc/ssl/bundle.pem", &format!("{A}{B}")),
        ]);
        let environment =
            |name: &str| (name == "SSL_CERT_FILE").then(|| "/etc/ssl/bundle.pem".to_owned());
        let setup = HostSetup::from_parts(&environment, root.path());
        assert_eq!(setup.certificates, vec![B.to_owned()]);
    }
}
