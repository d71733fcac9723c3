//! `.claude.json`: what Claude Code must believe to come up without a question. The CLI rewrites
//! the file, so ours is merged into what is there.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Error;

const WHAT: &str = ".claude.json";
/// The CLI keeps histories in it; far more than any seen.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// What the CLI compares of a key: its last 20 characters.
const SUFFIX_CHARACTERS: usize = 20;

/// What to put into the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// From [`approval_suffix`], one for each API key of the pool: a key that is swapped in later
    /// must already be here, or the session counts as not logged in.
    pub approved_keys: Vec<String>,
    /// How long after a turn the `idle_prompt` notification comes. The CLI's own default is 60 s.
    pub idle_notification: Duration,
}

impl Default for Seed {
    fn default() -> Self {
        Self {
            approved_keys: Vec::new(),
            idle_notification: Duration::from_secs(5),
        }
    }
}

/// What `customApiKeyResponses` keeps of a key. Too short to be the secret, long enough to know it.
pub fn approval_suffix(key: &str) -> String {
    let skip = key.chars().count().saturating_sub(SUFFIX_CHARACTERS);
    key.chars().skip(skip).collect()
}

/// Whether this `.claude.json` lets the key that ends in `suffix` be used.
pub fn is_approved(text: &str, suffix: &str) -> bool {
    let Ok(root) = parse(text) else {
        return false;
    };
    root.get("customApiKeyResponses")
        .and_then(|responses| responses.get("approved")?.as_array())
        .is_some_and(|approved| approved.iter().any(|known| known == suffix))
}

impl Seed {
    /// The file's new content. `existing`: what is there now, `None` for a new instance. An
    /// unreadable file is an error, for the caller to move aside: it is never replaced unseen.
    pub fn merge(&self, existing: Option<&str>) -> Result<String, Error> {
        let mut root = match existing.map(str::trim) {
            None | Some("") => Map::new(),
            Some(text) => parse(text)?,
        };
        root.insert("hasCompletedOnboarding".to_owned(), json!(true));
        root.insert("hasAcknowledgedCostThreshold".to_owned(), json!(true));
        let millis = u64::try_from(self.idle_notification.as_millis()).unwrap_or(u64::MAX);
        root.insert("messageIdleNotifThresholdMs".to_owned(), json!(millis));
        trust_everything(&mut root)?;
        self.approve(&mut root)?;
        Ok(Value::Object(root).to_string())
    }

    fn approve(&self, root: &mut Map<String, Value>) -> Result<(), Error> {
        let responses = object(root, "customApiKeyResponses")?;
        let approved = array(responses, "approved")?;
        for suffix in &self.approved_keys {
            if !approved.iter().any(|v| v == suffix) {
                approved.push(json!(suffix));
            }
        }
        array(responses, "rejected")?
            .retain(|v| !self.approved_keys.iter().any(|suffix| v == suffix));
        Ok(())
    }
}

/// Trust in `/` covers every directory below it.
fn trust_everything(root: &mut Map<String, Value>) -> Result<(), Error> {
    let projects = object(root, "projects")?;
    object(projects, "/")?.insert("hasTrustDialogAccepted".to_owned(), json!(true));
    Ok(())
}

fn parse(text: &str) -> Result<Map<String, Value>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge {
            what: WHAT,
            limit: MAX_BYTES,
        });
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong("(top level)", "an object")),
        Err(error) => Err(Error::NotJson {
            what: WHAT,
            problem: error.to_string(),
        }),
    }
}

fn object<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>, Error> {
    map.entry(key)
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| wrong(key, "an object"))
}

fn array<'a>(map: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, Error> {
    map.entry(key)
        .or_insert_with(|| json!([]))
        .as_array_mut()
        .ok_or_else(|| wrong(key, "a list"))
}

fn wrong(key: &str, wanted: &'static str) -> Error {
    Error::WrongType {
        what: WHAT,
        key: key.to_owned(),
        wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed {
            approved_keys: vec!["abc".to_owned()],
            idle_notification: Duration::from_millis(1500),
        }
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_new_file_removes_every_dialog() {
        let file = value(&seed().merge(None).unwrap());
        assert_eq!(file["hasCompletedOnboarding"], true);
        assert_eq!(file["projects"]["/"]["hasTrustDialogAccepted"], true);
        assert_eq!(file["customApiKeyResponses"]["approved"], json!(["abc"]));
        assert_eq!(file["messageIdleNotifThresholdMs"], 1500);
    }

    #[test]
    fn what_the_cli_wrote_stays() {
        let existing = r#"{"numStartups": 3,
            "projects": {"/workspace": {"history": [1]}, "/": {"x": 1}},
            "customApiKeyResponses": {"approved": ["old"], "rejected": ["abc", "other"]}}"#;
        let file = value(&seed().merge(Some(existing)).unwrap());
        assert_eq!(file["numStartups"], 3);
        assert_eq!(file["projects"]["/workspace"]["history"], json!([1]));
        assert_eq!(file["projects"]["/"]["x"], 1);
        assert_eq!(
            file["customApiKeyResponses"],
            json!({"approved": ["old", "abc"], "rejected": ["other"]})
        );
    }

    #[test]
    fn an_approved_key_is_found() {
        let file = seed().merge(None).unwrap();
        assert!(is_approved(&file, "abc"));
        assert!(!is_approved(&file, "abd"));
        assert!(!is_approved("{", "abc"));
        assert!(!is_approved(r#"{"customApiKeyResponses": 3}"#, "abc"));
    }

    #[test]
    fn merging_twice_changes_nothing() {
        let once = seed().merge(Some("{}")).unwrap();
        assert_eq!(seed().merge(Some(&once)).unwrap(), once);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_names_the_key() {
        assert!(matches!(
            seed().merge(Some("{")),
            Err(Error::NotJson { .. })
        ));
        let error = seed().merge(Some(r#"{"projects": []}"#)).unwrap_err();
        assert_eq!(
            error.to_string(),
            ".claude.json: key `projects` is not an object"
        );
    }

    #[test]
    fn a_suffix_is_twenty_characters() {
        assert_eq!(
            approval_suffix("sk-ant-api03-xx0123456789abcdefghij"),
            "0123456789abcdefghij"
        );
        assert_eq!(approval_suffix("short"), "short");
    }
}
