//! Is a task list something the supervisor can read tasks from?

use super::report::Check;

pub(super) fn check(name: &str, bytes: &[u8]) -> Check {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Check::fail(name, "is not UTF-8", "save the file as UTF-8");
    };
    let (open, ticked) = items(text);
    if open + ticked == 0 && !text.trim().is_empty() {
        return Check::warn(
            name,
            "has no checklist item, so it gives no work",
            "write each task as a line `- [ ] TEXT`",
        );
    }
    Check::ok(name, format!("{open} open, {ticked} done"))
}

/// Open and ticked items of GitHub's task lists: `- [ ] `, `* [x] `, `1. [X] `, at any depth.
fn items(text: &str) -> (usize, usize) {
    let mut open = 0;
    let mut ticked = 0;
    for line in text.lines() {
        let line = line.trim_start();
        let rest = line.strip_prefix(['-', '*', '+']).or_else(|| {
            line.trim_start_matches(|c: char| c.is_ascii_digit())
                .strip_prefix(['.', ')'])
        });
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(' ')) else {
            continue;
        };
        match rest.trim_start().get(..3) {
            Some("[ ]") => open += 1,
            Some("[x]" | "[X]") => ticked += 1,
            _ => {}
        }
    }
    (open, ticked)
}

#[cfg(test)]
mod tests {
    use super::super::report::Outcome;
    use super::*;

    #[test]
    fn items_are_counted_in_every_spelling() {
        let text = "# Tasks\n- [ ] a\n  * [x] b\n1. [X] c\n2) [ ] d\n- not one\n[ ] nor this\n";
        assert_eq!(items(text), (2, 2));
        assert_eq!(check("W", text.as_bytes()).detail, "2 open, 2 done");
    }

    #[test]
    fn other_encodings_and_plain_prose_are_told() {
        assert_eq!(check("W", b"- [ ] caf\xe9").outcome, Outcome::Fail);
        assert_eq!(check("W", b"do everything").outcome, Outcome::Warn);
        assert_eq!(check("W", b"\n").outcome, Outcome::Ok);
    }
}
