//! Names for credentials: what is remembered of one (its reset time) is kept by its id, so ids
//! depend on the paths alone, neither on their order nor on which files are readable.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::model::CredentialId;

/// One distinct id per path, in the same order. The shortest of stem, stem with directory, stem
/// with a hash of the path that nobody else claims.
pub(super) fn ids<P: AsRef<Path>>(paths: &[P]) -> Vec<CredentialId> {
    let forms: Vec<[String; 3]> = paths.iter().map(|path| forms(path.as_ref())).collect();
    let mut claims: BTreeMap<&str, usize> = BTreeMap::new();
    for form in forms.iter().flatten() {
        *claims.entry(form).or_default() += 1;
    }
    forms
        .iter()
        .map(|forms| {
            let free = forms.iter().find(|form| claims[form.as_str()] == 1);
            CredentialId::new(free.unwrap_or(&forms[2]).clone())
        })
        .collect()
}

fn forms(path: &Path) -> [String; 3] {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_start_matches('.');
    let stem = plain(name.strip_suffix(".json").unwrap_or(name));
    let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
    let directory = plain(directory.to_string_lossy().trim_start_matches('.'));
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    [
        stem.clone(),
        format!("{stem}-{directory}"),
        format!("{stem}-{hash:08x}"),
    ]
}

/// Ids stand in tables, file names and addresses.
fn plain(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text: String = text
        .chars()
        .map(|c| if keep(c) { c } else { '-' })
        .take(64)
        .collect();
    if text.is_empty() {
        "credential".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(paths: &[&str]) -> Vec<String> {
        ids(paths).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stem_alone_is_the_id() {
        assert_eq!(
            named(&["/c/work.json", "/c/my key.json"]),
            ["work", "my-key"]
        );
        assert_eq!(named(&["/home/.claude/.credentials.json"]), ["credentials"]);
    }

    #[test]
    fn equal_stems_get_distinct_ids_in_any_order() {
        let (a, b) = ("/a/x.json", "/b/x.json");
        assert_eq!(named(&[a, b]), ["x-a", "x-b"]);
        assert_eq!(named(&[b, a]), ["x-b", "x-a"]);
    }

    #[test]
    fn ids_stay_distinct_when_the_longer_form_is_taken_too() {
        let paths = [
            "/a/x.json",
            "/b/x.json",
            "/c/x-a.json",
            "/q/a/x.json",
            "/c/a b.json",
            "/c/a-b.json",
        ];
        let mut ids = named(&paths);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), paths.len(), "{ids:?}");
    }
}
