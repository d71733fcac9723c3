use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::Barrier;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode};

use super::*;

const LIST: &str = "WORKER_1_TASK_LIST.md";

struct Place {
    _directory: tempfile::TempDir,
    root: PathBuf,
    scratch: PathBuf,
}

impl Place {
    fn new(content: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, scratch) = (
            directory.path().join("checkout"),
            directory.path().join("scratch"),
        );
        fs::create_dir(&root).unwrap();
        fs::write(root.join(LIST), content).unwrap();
        Self {
            _directory: directory,
            root,
            scratch,
        }
    }

    fn file(&self) -> PathBuf {
        self.root.join(LIST)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn tick(&self, item: &str) -> Ticked {
        self.tick_with(&|text| plan(text, item))
    }

    fn tick_with(&self, plan: &dyn Fn(&str) -> Option<String>) -> Ticked {
        tick_file(&self.root, Path::new(LIST), &self.scratch, "key", plan).unwrap()
    }

    fn settle(&self) -> Vec<Settled> {
        let settlement = settle(&self.scratch, Duration::ZERO).unwrap();
        settlement
            .mended
            .into_iter()
            .map(|mended| mended.outcome)
            .collect()
    }

    /// As the daemon does it: tick and settle until both have nothing to do.
    fn quiesce(&self, item: &str) {
        for _ in 0..50 {
            let ticked = self.tick(item);
            let settlement = settle(&self.scratch, Duration::ZERO).unwrap();
            for mended in &settlement.mended {
                assert!(!matches!(mended.outcome, Settled::Kept(_)), "{mended:?}");
            }
            if ticked == Ticked::AlreadyDone && settlement == Settlement::default() {
                return;
            }
        }
        panic!("never came to rest: {}", self.text());
    }
}

fn plan(text: &str, item: &str) -> Option<String> {
    let (open, done) = (format!("- [ ] {item}\n"), format!("- [x] {item}\n"));
    if text.contains(&done) {
        return Some(text.to_owned());
    }
    text.contains(&open).then(|| text.replace(&open, &done))
}

#[test]
fn ticks_and_says_what_it_found() {
    let place = Place::new("- [ ] a\n- [ ] b\n");
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    assert_eq!(place.text(), "- [x] a\n- [ ] b\n");
    assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(place.tick("a"), Ticked::AlreadyDone);
    assert_eq!(place.tick("c"), Ticked::NotFound);
    assert_eq!(
        settle(&place.scratch, HOLD).unwrap().pending,
        1,
        "held for a while"
    );
    assert_eq!(place.settle(), []);
    assert_eq!(
        fs::read_dir(&place.scratch).unwrap().count(),
        0,
        "nothing is left behind"
    );
    fs::remove_file(place.file()).unwrap();
    assert_eq!(place.tick("b"), Ticked::NotFound);
    assert!(!place.file().exists(), "a deleted file does not come back");
}

#[test]
fn keeps_the_owner() {
    let place = Place::new("- [ ] a\n");
    // Giving a file away needs privileges; without them the test keeps the owner it has.
    let privileged = rustix::process::geteuid().is_root();
    let owner = if privileged {
        (12_345, 23_456)
    } else {
        ids(&place.file())
    };
    std::os::unix::fs::chown(place.file(), Some(owner.0), Some(owner.1)).unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    assert_eq!(ids(&place.file()), owner);
}

fn ids(path: &Path) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn follows_no_link_and_reads_no_pipe() {
    let place = Place::new("- [ ] a\n");
    let outside = place.root.join("../outside.md");
    fs::write(&outside, "- [ ] a\n").unwrap();
    fs::remove_file(place.file()).unwrap();
    symlink(&outside, place.file()).unwrap();
    let plan = |text: &str| plan(text, "a");
    let tick =
        |relative: &str| tick_file(&place.root, Path::new(relative), &place.scratch, "k", &plan);
    assert!(tick(LIST).is_err());
    assert!(tick("../outside.md").is_err());
    symlink("..", place.root.join("up")).unwrap();
    assert!(tick("up/outside.md").is_err());
    rustix::fs::mknodat(
        CWD,
        place.root.join("pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(tick("pipe").is_err());
    assert_eq!(fs::read_to_string(outside).unwrap(), "- [ ] a\n");
}

#[test]
fn not_utf8_names_the_byte() {
    let place = Place::new("");
    fs::write(place.file(), b"- [ ] a\n\xff").unwrap();
    let error = tick_file(&place.root, Path::new(LIST), &place.scratch, "k", &|_| None);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("byte 8"), "{error}");
}

/// The plan runs between our read and our swap: the place for a save in between.
#[test]
fn a_save_in_between_wins_and_the_tick_follows() {
    type Save = fn(&Path);
    let saves: [(&str, Save); 4] = [
        ("in place", |file| {
            fs::write(file, "- [ ] a\n- [ ] mine\n").unwrap();
        }),
        ("rename", |file| {
            let other = file.with_extension("tmp");
            fs::write(&other, "- [ ] a\n- [ ] mine\n").unwrap();
            fs::rename(other, file).unwrap();
        }),
        ("append", |file| append(file, "- [ ] mine\n")),
        ("truncated", |file| fs::write(file, "").unwrap()),
    ];
    for (what, save) in saves {
        let place = Place::new("- [ ] a\n");
        let raced = place.tick_with(&|text| {
            save(&place.file());
            plan(text, "a")
        });
        assert_eq!(raced, Ticked::Raced, "{what}");
        if what == "truncated" {
            assert_eq!(place.text(), "");
            fs::write(place.file(), "- [ ] a\n- [ ] mine\n").unwrap();
        }
        assert_eq!(place.text(), "- [ ] a\n- [ ] mine\n", "{what}");
        place.quiesce("a");
        assert_eq!(place.text(), "- [x] a\n- [ ] mine\n", "{what}");
    }
}

fn append(file: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_file_deleted_in_between_stays_deleted() {
    let place = Place::new("- [ ] a\n");
    let ticked = place.tick_with(&|text| {
        fs::remove_file(place.file()).unwrap();
        plan(text, "a")
    });
    assert_eq!(ticked, Ticked::NotFound);
    assert!(!place.file().exists());
}

#[test]
fn what_an_editor_writes_into_the_old_inode_comes_back() {
    let place = Place::new("- [ ] a\n");
    let mut editor = fs::OpenOptions::new()
        .write(true)
        .open(place.file())
        .unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    editor.set_len(0).unwrap();
    editor.write_all(b"# Title\n- [ ] a\n- [ ] half").unwrap();
    assert_eq!(place.settle(), [Settled::PutBack]);
    // Its inode is in place again: what it goes on writing is not lost either.
    editor.write_all(b" and half\n").unwrap();
    assert_eq!(place.text(), "# Title\n- [ ] a\n- [ ] half and half\n");
    place.quiesce("a");
    assert_eq!(place.text(), "# Title\n- [x] a\n- [ ] half and half\n");
}

#[test]
fn what_is_appended_to_the_old_inode_is_appended_once() {
    let place = Place::new("- [ ] a\n");
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(place.file())
        .unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    log.write_all(b"- [ ] one\n").unwrap();
    assert_eq!(place.settle(), [Settled::Appended]);
    log.write_all(b"- [ ] two\n").unwrap();
    assert_eq!(place.settle(), [Settled::Appended]);
    place.quiesce("a");
    assert_eq!(place.text(), "- [x] a\n- [ ] one\n- [ ] two\n");
}

#[test]
fn an_old_inode_written_after_two_ticks_comes_back() {
    let place = Place::new("- [ ] a\n- [ ] b\n");
    let editor = fs::OpenOptions::new()
        .write(true)
        .open(place.file())
        .unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    assert_eq!(place.tick("b"), Ticked::Done);
    editor.set_len(0).unwrap();
    (&editor).write_all(b"- [ ] c\n- [ ] a\n- [ ] b\n").unwrap();
    assert_eq!(place.settle(), [Settled::PutBack]);
    place.quiesce("a");
    place.quiesce("b");
    assert_eq!(place.text(), "- [ ] c\n- [x] a\n- [x] b\n");
}

#[test]
fn of_two_crossing_saves_the_newer_is_in_place_and_the_older_is_kept() {
    let place = Place::new("- [ ] a\n");
    let editor = fs::OpenOptions::new()
        .write(true)
        .open(place.file())
        .unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    editor.set_len(0).unwrap();
    (&editor).write_all(b"from the old editor\n").unwrap();
    let now = SystemTime::now();
    editor.set_modified(now).unwrap();
    fs::write(place.file(), "- [x] a\nfrom another\n").unwrap();
    let file = File::options().write(true).open(place.file()).unwrap();
    file.set_modified(now + Duration::from_secs(5)).unwrap();
    let [Settled::Kept(kept)] = &place.settle()[..] else {
        panic!("one file must be kept");
    };
    assert_eq!(place.text(), "- [x] a\nfrom another\n");
    assert_eq!(fs::read_to_string(kept).unwrap(), "from the old editor\n");
    assert_eq!(place.settle(), [], "and nothing touches it again");
    assert!(kept.exists());
}

#[test]
fn a_crash_before_the_swap_leaves_nothing() {
    let place = Place::new("- [ ] a\n");
    let before = read(File::open(place.file()).unwrap()).unwrap();
    let list = Path::new(LIST);
    Held::create(
        &place.scratch,
        &place.root,
        list,
        "k",
        &before,
        b"- [x] a\n",
    )
    .unwrap();
    assert_eq!(place.settle(), []);
    assert_eq!(fs::read_dir(&place.scratch).unwrap().count(), 0);
    assert_eq!(place.text(), "- [ ] a\n");
}

#[test]
fn an_edit_whose_file_is_gone_is_kept() {
    let place = Place::new("- [ ] a\n");
    let editor = fs::OpenOptions::new()
        .append(true)
        .open(place.file())
        .unwrap();
    assert_eq!(place.tick("a"), Ticked::Done);
    (&editor).write_all(b"late\n").unwrap();
    fs::remove_file(place.file()).unwrap();
    symlink("/etc/hostname", place.file()).unwrap();
    let [Settled::Kept(kept)] = &place.settle()[..] else {
        panic!("one file must be kept");
    };
    assert_eq!(fs::read_to_string(kept).unwrap(), "- [ ] a\nlate\n");
    assert_eq!(place.settle(), []);
}

/// One edit races with one tick, many times, in every way editors save.
#[test]
fn no_edit_is_ever_lost() {
    type Edit = fn(&Path, &str, &Barrier);
    let edits: [(&str, Edit); 4] = [
        ("in place", |file, line, start| {
            start.wait();
            let text = fs::read_to_string(file).unwrap() + line;
            fs::write(file, text).unwrap();
        }),
        ("rename", |file, line, start| {
            start.wait();
            let text = fs::read_to_string(file).unwrap() + line;
            let other = file.with_extension("tmp");
            fs::write(&other, text).unwrap();
            fs::rename(other, file).unwrap();
        }),
        ("append", |file, line, start| {
            start.wait();
            append(file, line);
        }),
        ("opened before", |file, line, start| {
            let text = fs::read_to_string(file).unwrap() + line;
            let mut open = fs::OpenOptions::new().write(true).open(file).unwrap();
            start.wait();
            open.set_len(0).unwrap();
            open.write_all(text.as_bytes()).unwrap();
        }),
    ];
    let place = Place::new("");
    let mut expected = String::new();
    for round in 0..160 {
        let (what, edit) = edits[round % edits.len()];
        let item = format!("item {round}");
        append(&place.file(), &format!("- [ ] {item}\n"));
        let (line, start) = (format!("{what} {round}\n"), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| edit(&place.file(), &line, &start));
            start.wait();
            place.tick(&item);
        });
        place.quiesce(&item);
        expected.push_str(&["- [x] ", &item, "\n", &line].concat());
        assert_eq!(place.text(), expected, "{what}");
    }
}
