//! The features that `PROJECT_DIRECTION.md` asks for: who builds each, and how.

use include_dir::{Dir, File, include_dir};

/// How many workers the demo's direction is divided among.
pub const WORKERS: u32 = 3;

static WORK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/testing/sample/work");

/// One line of a worker's task list and the change that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Also the directory of its new files in `work`.
    pub name: &'static str,
    /// Counted from 1.
    pub worker: u32,
    /// The text of the line, without the check box: plain, so that no Markdown reader changes it.
    pub item: &'static str,
    pub commit_message: &'static str,
    pub edits: &'static [Edit],
    pub at_first: AtFirst,
}

/// How its worker goes about it before anybody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtFirst {
    /// It builds, tests and commits.
    Careful,
    /// It says that it is done, and has done nothing.
    OnlySaysSo,
    /// It commits its module with a mistake, without running the tests. Sent back, it puts `right` in
    /// the place of `wrong` in a commit of its own.
    Careless {
        right: &'static str,
        wrong: &'static str,
        mend_message: &'static str,
    },
}

/// Puts `new` in the place of `old`, which the file holds exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    pub path: &'static str,
    pub old: &'static str,
    pub new: &'static str,
}

/// In the order of the lists. The first tasks of worker 1 and worker 2 add their lines at the same
/// places of the report, so their branches conflict. The last tasks of worker 1 and worker 3 are not done
/// when they are said to be. A mistake is the last of a worker who is in no conflict: the tests fail on
/// everything that comes after it.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "sentences",
        worker: 1,
        item: "Count the sentences of a text in textstats/sentences.py and show the number in the report",
        commit_message: "Count sentences",
        edits: &[
            Edit {
                path: "textstats/report.py",
                old: "from textstats import words\n",
                new: "from textstats import words\nfrom textstats.sentences import count_sentences\n",
            },
            Edit {
                path: "textstats/report.py",
                old: "    (\"lines\", words.count_lines),\n",
                new: "    (\"lines\", words.count_lines),\n    (\"sentences\", count_sentences),\n",
            },
        ],
        at_first: AtFirst::Careful,
    },
    Feature {
        name: "frequent",
        worker: 1,
        item: "List the most frequent words in textstats/frequent.py",
        commit_message: "List the most frequent words",
        edits: &[],
        at_first: AtFirst::OnlySaysSo,
    },
    Feature {
        name: "distinct",
        worker: 2,
        item: "Count the distinct words of a text in textstats/distinct.py and show the number in the report",
        commit_message: "Count distinct words",
        edits: &[
            Edit {
                path: "textstats/report.py",
                old: "from textstats import words\n",
                new: "from textstats import words\nfrom textstats.distinct import count_distinct_words\n",
            },
            Edit {
                path: "textstats/report.py",
                old: "    (\"lines\", words.count_lines),\n",
                new: "    (\"lines\", words.count_lines),\n    (\"distinct words\", count_distinct_words),\n",
            },
        ],
        at_first: AtFirst::Careful,
    },
    Feature {
        name: "json_report",
        worker: 2,
        item: "Print the report as JSON on demand in textstats/json_report.py",
        commit_message: "Print the report as JSON",
        edits: &[
            Edit {
                path: "textstats/__main__.py",
                old: "from textstats import report\n",
                new: "from textstats import json_report, report\n",
            },
            Edit {
                path: "textstats/__main__.py",
                old: "    options = parser.parse_args(arguments)\n",
                new: "    parser.add_argument(\"--json\", action=\"store_true\", help=\"print JSON\")\n    options = parser.parse_args(arguments)\n",
            },
            Edit {
                path: "textstats/__main__.py",
                old: "    print(report.render(text))\n",
                new: "    print(json_report.render_json(text) if options.json else report.render(text))\n",
            },
        ],
        at_first: AtFirst::Careful,
    },
    Feature {
        name: "letters",
        worker: 3,
        item: "Count how often each letter occurs in textstats/letters.py",
        commit_message: "Count letters",
        edits: &[],
        at_first: AtFirst::Careful,
    },
    Feature {
        name: "reading_time",
        worker: 3,
        item: "Estimate the reading time in seconds at 200 words a minute in textstats/reading_time.py",
        commit_message: "Estimate the reading time",
        edits: &[],
        at_first: AtFirst::Careful,
    },
    Feature {
        name: "longest",
        worker: 3,
        item: "Find the longest word of a text in textstats/longest.py",
        commit_message: "Find the longest word",
        edits: &[],
        at_first: AtFirst::Careless {
            right: "max(words(text)",
            wrong: "min(words(text)",
            mend_message: "Take the longest word, not the shortest",
        },
    },
];

/// The feature of a line of a task list.
pub fn item(text: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| text.contains(feature.item))
}

impl Feature {
    /// The new files: path in the repository and text, module first.
    pub(super) fn files(&self) -> Vec<(&'static str, &'static str)> {
        let mut files = Vec::new();
        if let Some(dir) = WORK.get_dir(self.name) {
            collect(dir, self.name, &mut files);
        }
        // `textstats/` sorts after `tests/`; people write the module first.
        files.sort_by_key(|(path, _)| (path.starts_with("tests/"), *path));
        files
    }

    /// Lines the edits bring, with the file they belong to.
    pub(super) fn new_lines(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.edits.iter().flat_map(|edit| {
            edit.new
                .lines()
                .filter(|line| !edit.old.lines().any(|old| old == *line))
                .map(|line| (edit.path, line))
        })
    }
}

fn collect(dir: &'static Dir<'static>, root: &str, files: &mut Vec<(&'static str, &'static str)>) {
    files.extend(dir.files().filter_map(|file: &File<'static>| {
        let path = file.path().strip_prefix(root).ok()?.to_str()?;
        Some((path, file.contents_utf8()?))
    }));
    for inner in dir.dirs() {
        collect(inner, root, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_has_its_module_and_its_tests() {
        for feature in FEATURES {
            let paths: Vec<&str> = feature.files().iter().map(|(path, _)| *path).collect();
            let module = format!("textstats/{}.py", feature.name);
            let tests = format!("tests/test_{}.py", feature.name);
            assert_eq!(paths, [module.as_str(), tests.as_str()]);
        }
    }

    #[test]
    fn no_item_is_part_of_another_and_every_worker_has_two() {
        for feature in FEATURES {
            assert_eq!(item(feature.item), Some(feature));
            assert!(!feature.item.contains(['`', '*', '-']), "{}", feature.item);
            let holders = FEATURES
                .iter()
                .filter(|other| other.item.contains(feature.item));
            assert_eq!(holders.count(), 1, "{}", feature.item);
        }
        for worker in 1..=WORKERS {
            let tasks = FEATURES.iter().filter(|feature| feature.worker == worker);
            assert!(tasks.count() >= 2, "worker {worker}");
        }
    }

    #[test]
    fn a_mistake_is_in_the_module_once_and_one_that_only_says_so_is_told_whole_when_it_is_sent_back()
     {
        for feature in FEATURES {
            let (_, module) = feature.files()[0];
            if let AtFirst::Careless { right, wrong, .. } = feature.at_first {
                assert_eq!(module.matches(right).count(), 1);
                assert_eq!(module.matches(wrong).count(), 0);
            }
            // A title is cut after 72 characters.
            assert!(feature.at_first == AtFirst::Careful || feature.item.len() <= 72);
        }
        let count = |wanted: fn(&AtFirst) -> bool| {
            let all = FEATURES.iter().map(|feature| &feature.at_first);
            all.filter(|at_first| wanted(at_first)).count()
        };
        assert_eq!(count(|at_first| *at_first == AtFirst::OnlySaysSo), 1);
        assert_eq!(
            count(|at_first| matches!(at_first, AtFirst::Careless { .. })),
            1
        );
    }

    #[test]
    fn each_edit_finds_its_place_once() {
        for edit in FEATURES.iter().flat_map(|feature| feature.edits) {
            let file = super::super::REPO.get_file(edit.path).unwrap();
            let text = file.contents_utf8().unwrap();
            assert_eq!(text.matches(edit.old).count(), 1, "{}", edit.old);
        }
    }
}
