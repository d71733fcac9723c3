//! What a captured pane shows.
//!
//! Weak evidence, used before something is pasted and when hooks are silent. The prompt is a box
//! between the last two rules; a dialog replaces the box and has one rule above it; a running turn
//! shows a line that ends in `…` right above the box. Text further up is the conversation and
//! proves nothing, because an agent may print anything.

use super::cut;
use crate::model::Screen;

/// Shorter runs of `─` are somebody's table.
const RULE_CHARACTERS: usize = 10;
const MAX_TAIL_LINES: usize = 6;
const MAX_LINE_BYTES: usize = 200;
/// The spinner's frames, `●` with reduced motion.
const SPINNER: &[char] = &['·', '✢', '✳', '✶', '✻', '✽', '*', '●'];

/// Dialogs by a text that only they show, the more special first.
const DIALOGS: &[(&str, &str)] = &[
    ("Is this a project you created or one you trust", "trust"),
    ("Yes, I trust this folder", "trust"),
    ("Detected a custom API key", "api-key"),
    ("running in Bypass Permissions mode", "bypass-warning"),
    ("MCP server found in this project", "mcp-approval"),
    ("MCP servers found in this project", "mcp-approval"),
    ("Stop and wait for limit to reset", "rate-limit-options"),
    ("Restore the code and/or conversation", "rewind"),
    ("Select login method", "login"),
    ("Choose the text style that looks best", "theme"),
    ("Unable to connect to Anthropic services", "onboarding"),
    ("Chat about this", "question"),
    ("Do you want to ", "permission"),
];
/// How dialogs of any kind end.
const DIALOG_FOOTERS: &[&str] = &[
    "Esc to cancel",
    "Enter to confirm",
    "Enter to continue",
    "Enter to select",
];

/// Reads the visible screen of an agent's pane.
pub fn classify(text: &str) -> Screen {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    if lines.iter().all(|line| line.is_empty()) {
        return Screen::Blank;
    }
    let rules: Vec<usize> = (0..lines.len()).filter(|n| is_rule(lines[*n])).collect();
    if let [.., top, bottom] = rules.as_slice()
        && let Some(prompt) = Prompt::read(&lines, *top, *bottom)
    {
        return prompt.screen(&lines);
    }
    let below = rules.last().map_or(0, |rule| rule + 1);
    if let Some(name) =
        dialog(&lines[below..]).or_else(|| rules.is_empty().then(|| dialog(&lines)).flatten())
    {
        return Screen::Dialog {
            name: name.to_owned(),
        };
    }
    // A question draws a rule of its own above its last line.
    if let [.., top, _] = rules.as_slice()
        && let Some(name) = dialog(&lines[top + 1..])
    {
        return Screen::Dialog {
            name: name.to_owned(),
        };
    }
    unrecognised(&lines)
}

/// The box for input: its place and what is in it.
struct Prompt {
    top: usize,
    bottom: usize,
    /// `!`: what is typed goes to a shell.
    shell: bool,
    content: String,
}

impl Prompt {
    fn read(lines: &[&str], top: usize, bottom: usize) -> Option<Self> {
        let inside = &lines[top + 1..bottom];
        let first = inside.first()?;
        let shell = first.starts_with('!');
        if !shell && !first.starts_with('❯') {
            return None;
        }
        let content = inside
            .iter()
            .map(|line| line.trim_start_matches(['❯', '!']).trim())
            .collect::<Vec<_>>()
            .join("\n");
        Some(Self {
            top,
            bottom,
            shell,
            content: content.trim().to_owned(),
        })
    }

    fn screen(&self, lines: &[&str]) -> Screen {
        let footer = &lines[self.bottom + 1..];
        if footer
            .iter()
            .any(|l| l.starts_with("Resume this session with"))
        {
            // The box stays on the screen when the process has ended.
            return unrecognised(lines);
        }
        let says = |text: &str| footer.iter().any(|line| line.contains(text));
        if is_working(&lines[..self.top])
            || self.content == "Press up to edit queued messages"
            || says("esc to interrupt")
        {
            Screen::Busy
        } else if self.shell || !(self.content.is_empty() || is_suggestion(&self.content)) {
            Screen::Draft
        } else if says("Not logged in") {
            Screen::NotLoggedIn
        } else {
            Screen::Ready
        }
    }
}

/// The greyed example of an empty prompt, `Try "..."` (public documentation; not recorded).
fn is_suggestion(content: &str) -> bool {
    content.starts_with("Try \"") && content.ends_with('"') && !content.contains('\n')
}

fn is_rule(line: &str) -> bool {
    line.starts_with("───")
        && line.ends_with('─')
        && line.chars().filter(|c| *c == '─').count() >= RULE_CHARACTERS
}

/// Does the last line at the margin above the box say that a turn runs? Indented lines are its tip
/// or queued prompts.
fn is_working(above: &[&str]) -> bool {
    let Some(line) = above
        .iter()
        .rev()
        .find(|line| !line.is_empty() && !line.starts_with(char::is_whitespace))
    else {
        return false;
    };
    let mut characters = line.chars();
    let Some(frame) = characters.next().filter(|c| SPINNER.contains(c)) else {
        return false;
    };
    let Some(said) = characters.as_str().strip_prefix(' ') else {
        return false;
    };
    match said.split_once('…') {
        // `●` also begins what the agent says: only one word then, or a timer behind it.
        Some((verb, rest)) => {
            let timer = rest.trim().starts_with('(') && rest.trim().ends_with(')');
            timer || (rest.trim().is_empty() && (frame != '●' || !verb.contains(' ')))
        }
        None => false,
    }
}

fn dialog(lines: &[&str]) -> Option<&'static str> {
    let known = DIALOGS
        .iter()
        .find(|(text, _)| lines.iter().any(|line| line.contains(text)));
    if let Some((_, name)) = known {
        return Some(name);
    }
    lines
        .iter()
        .rev()
        .filter(|line| !line.is_empty())
        .take(3)
        .any(|line| DIALOG_FOOTERS.iter().any(|footer| line.contains(footer)))
        .then_some("unknown")
}

fn unrecognised(lines: &[&str]) -> Screen {
    let full = || lines.iter().copied().filter(|line| !line.is_empty());
    let skip = full().count().saturating_sub(MAX_TAIL_LINES);
    let tail: Vec<&str> = full()
        .skip(skip)
        .map(|line| cut(line, MAX_LINE_BYTES))
        .collect();
    Screen::Unrecognised {
        tail: tail.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    macro_rules! recorded {
        ($name:literal) => {
            (
                $name,
                classify(include_str!(concat!("samples/screens/", $name, ".txt"))),
            )
        };
    }

    #[test]
    fn free_prompts() {
        for (name, screen) in [
            recorded!("ready"),
            recorded!("ready-40x10"),
            recorded!("ready-oauth"),
            recorded!("ready-default-mode"),
            recorded!("ready-after-clear"),
            recorded!("ready-after-turn"),
            recorded!("ready-after-subagent"),
            recorded!("ready-after-limit"),
            recorded!("ready-after-compact"),
            recorded!("ready-after-interrupt"),
        ] {
            assert_eq!(screen, Screen::Ready, "{name}");
        }
    }

    #[test]
    fn prompts_with_text_in_them() {
        for (name, screen) in [
            recorded!("draft"),
            recorded!("draft-lines"),
            recorded!("draft-slash-menu"),
            recorded!("shell-mode"),
        ] {
            assert_eq!(screen, Screen::Draft, "{name}");
        }
    }

    #[test]
    fn running_turns() {
        for (name, screen) in [
            recorded!("busy"),
            recorded!("busy-40x10"),
            recorded!("busy-queued"),
            recorded!("busy-stop-hook"),
            recorded!("busy-tool-reduced-motion"),
        ] {
            assert_eq!(screen, Screen::Busy, "{name}");
        }
    }

    #[test]
    fn dialogs_have_names() {
        for ((name, screen), dialog) in [
            (recorded!("trust"), "trust"),
            (recorded!("api-key"), "api-key"),
            (recorded!("bypass-warning"), "bypass-warning"),
            (recorded!("mcp-approval"), "mcp-approval"),
            (recorded!("rate-limit-options"), "rate-limit-options"),
            (recorded!("rewind"), "rewind"),
            (recorded!("login"), "login"),
            (recorded!("theme"), "theme"),
            (recorded!("permission"), "permission"),
            (recorded!("ask-question"), "question"),
            (recorded!("connection-failed"), "onboarding"),
        ] {
            let wanted = Screen::Dialog {
                name: dialog.to_owned(),
            };
            assert_eq!(screen, wanted, "{name}");
        }
    }

    #[test]
    fn no_login_shows_in_the_footer_only() {
        for (name, screen) in [
            recorded!("not-logged-in"),
            recorded!("not-logged-in-after-prompt"),
        ] {
            assert_eq!(screen, Screen::NotLoggedIn, "{name}");
        }
        let healed = include_str!("samples/screens/not-logged-in-after-prompt.txt")
            .replace("Not logged in · Run /login", "");
        assert_eq!(classify(&healed), Screen::Ready);
    }

    #[test]
    fn a_shell_a_dead_process_and_nothing_at_all() {
        assert_eq!(classify(""), Screen::Blank);
        assert_eq!(classify("\n  \n"), Screen::Blank);
        assert_eq!(
            classify("one\n\ntwo\n$ "),
            Screen::Unrecognised {
                tail: "one\ntwo\n$".to_owned()
            }
        );
        let ended = format!(
            "{}\nResume this session with:\nclaude --resume 0\n",
            include_str!("samples/screens/ready.txt").trim_end()
        );
        assert!(matches!(classify(&ended), Screen::Unrecognised { .. }));
    }

    #[test]
    fn what_an_agent_prints_is_not_taken_for_a_dialog_or_a_turn() {
        let rule = "─".repeat(40);
        let screen = format!(
            "● Do you want to know? Detected a custom API key… it said.\n\n{rule}\n❯ \n{rule}\n  footer"
        );
        assert_eq!(classify(&screen), Screen::Ready);
    }

    proptest! {
        #[test]
        fn any_text_is_something(text in "[─❯! ●…(a\n]{0,300}") {
            classify(&text);
        }
    }
}
