//! An agent plants everything that was found to run code or lead astray. Whatever runs outside the
//! sandbox leaves a mark; nothing may.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Canary {
    world: World,
    program: PathBuf,
    mark: PathBuf,
}

impl Canary {
    fn new() -> Self {
        let world = World::new();
        let (program, mark) = (world.path().join("canary"), world.path().join("mark"));
        let script = format!(
            "#!/bin/sh\n[ -n \"${{IN_SANDBOX:-}}\" ] || echo \"$0 $*\" >> '{}'\ncat 2>/dev/null\nexit 0\n",
            mark.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            world,
            program,
            mark,
        }
    }

    /// Everything the host does while the agent's checkout is as it is.
    fn host_does_its_work(&self, agent: &str, bundle: &[u8], expected: &CommitId) {
        let world = &self.world;
        let spec = world.spec(agent);
        assert!(!world.store.ensure_checkout(&spec).unwrap().created);
        let id = AgentId::new(agent);
        world
            .store
            .import_bundle(&id, BundleSource::Bytes(bundle), expected, LIMIT)
            .unwrap();
        let outcome = world.store.merge(expected, "Merge", &[]).unwrap();
        assert!(matches!(outcome, MergeOutcome::Merged { .. }));
        world.store.fetch().unwrap();
        assert!(matches!(
            world.store.push().unwrap(),
            PushOutcome::Pushed { .. }
        ));
        let _ = read_beneath(&spec.directory, Path::new("WORKER_1_TASK_LIST.md"), 1000);
        assert!(open(world.path(), "main").is_ok());
        // What was committed is checked out for somebody else.
        world.checkout("worker-9");
        let said = std::fs::read_to_string(&self.mark).unwrap_or_default();
        assert_eq!(said, "", "something ran on the host");
    }
}

#[test]
fn the_canary_itself_sings() {
    let canary = Canary::new();
    Command::new(&canary.program)
        .stdin(std::process::Stdio::null())
        .env_remove("IN_SANDBOX")
        .status()
        .unwrap();
    assert!(canary.mark.exists());
}

#[test]
fn planted_hooks_filters_and_settings_do_not_run_on_the_host() {
    let canary = Canary::new();
    let tree = canary.world.checkout("worker-1");
    let program = canary.program.to_str().unwrap();
    for hook in [
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "pre-commit",
        "commit-msg",
        "post-commit",
        "post-merge",
        "pre-push",
        "post-rewrite",
        "update",
        "pre-receive",
    ] {
        std::fs::create_dir_all(tree.join(".git/hooks")).unwrap();
        std::fs::copy(&canary.program, tree.join(".git/hooks").join(hook)).unwrap();
    }
    write(
        &tree,
        ".gitattributes",
        "* filter=evil diff=evil merge=evil\n",
    );
    for (key, value) in [
        ("core.fsmonitor", program),
        ("core.sshCommand", program),
        ("core.pager", program),
        ("core.editor", program),
        ("filter.evil.clean", program),
        ("filter.evil.smudge", program),
        ("diff.external", program),
        ("diff.evil.textconv", program),
        ("merge.evil.driver", program),
        ("credential.helper", program),
        ("uploadpack.packObjectsHook", program),
        (
            "url.ext::evil.insteadOf",
            canary.world.remote().to_str().unwrap(),
        ),
        ("alias.status", &format!("!{program}")),
    ] {
        git(&tree, &["config", key, value]);
    }
    let new = commit(&tree, "work.txt", "w\n");
    let bundle = canary.world.export("worker-1");
    canary.host_does_its_work("worker-1", &bundle, &new);
    assert_eq!(canary.world.read("work.txt").as_deref(), Some("w\n"));
}

#[test]
fn a_moved_working_tree_and_a_replaced_git_directory_lead_nowhere() {
    let canary = Canary::new();
    let tree = canary.world.checkout("worker-1");
    let new = commit(&tree, "work.txt", "w\n");
    let bundle = canary.world.export("worker-1");
    let victim = canary.world.path().join("victim");
    write(&victim, "file", "precious\n");
    git(
        &tree,
        &["config", "core.worktree", victim.to_str().unwrap()],
    );
    git(&tree, &["config", "include.path", "/etc/shadow"]);
    // Another repository, full of hooks, in place of the git directory.
    let evil = canary.world.path().join("evil.git");
    git(
        canary.world.path(),
        &["init", "--quiet", "--bare", "evil.git"],
    );
    std::fs::create_dir_all(evil.join("hooks")).unwrap();
    std::fs::copy(&canary.program, evil.join("hooks/post-checkout")).unwrap();
    std::fs::rename(tree.join(".git"), tree.join("old-git")).unwrap();
    write(&tree, ".git", &format!("gitdir: {}\n", evil.display()));
    canary.host_does_its_work("worker-1", &bundle, &new);
    assert_eq!(text(&victim, "file"), "precious\n");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1);
}

#[test]
fn a_checkout_replaced_by_a_link_is_left_alone() {
    let canary = Canary::new();
    let tree = canary.world.checkout("worker-1");
    let new = commit(&tree, "work.txt", "w\n");
    let bundle = canary.world.export("worker-1");
    std::fs::rename(&tree, canary.world.path().join("moved")).unwrap();
    symlink("/nowhere/at/all", &tree).unwrap();
    canary.host_does_its_work("worker-1", &bundle, &new);
    assert!(tree.symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_task_list_that_is_a_link_is_not_followed() {
    let canary = Canary::new();
    let tree = canary.world.checkout("worker-1");
    std::fs::write(canary.world.path().join("secret"), "TOPSECRET").unwrap();
    symlink(
        canary.world.path().join("secret"),
        tree.join("WORKER_1_TASK_LIST.md"),
    )
    .unwrap();
    assert!(read_beneath(&tree, Path::new("WORKER_1_TASK_LIST.md"), 1000).is_err());
    git(&tree, &["add", "--all"]);
    git(&tree, &["commit", "--quiet", "-m", "a link"]);
    let new = head(&tree);
    let bundle = canary.world.export("worker-1");
    canary.host_does_its_work("worker-1", &bundle, &new);
    assert_eq!(canary.world.read("WORKER_1_TASK_LIST.md"), None);
    // Ticking the list replaces the link and does not write through it.
    let edit = FileEdit::replace("WORKER_1_TASK_LIST.md", b"- [x] one\n".to_vec());
    canary.world.store.merge(&new, "Tick", &[edit]).unwrap();
    assert_eq!(text(canary.world.path(), "secret"), "TOPSECRET");
}

#[test]
fn objects_of_another_repository_do_not_come_in_through_alternates() {
    let canary = Canary::new();
    let other = canary.world.path().join("other");
    git(canary.world.path(), &["init", "--quiet", "other"]);
    let secret = commit(&other, "s", "TOPSECRET\n");
    let tree = canary.world.checkout("worker-1");
    let alternates = tree.join(".git/objects/info/alternates");
    let own = std::fs::read_to_string(&alternates).unwrap();
    let evil = format!("{own}{}\n", other.join(".git/objects").display());
    std::fs::write(&alternates, evil).unwrap();
    // In its container the agent cannot see the other repository: it can only name the commit.
    let claim = format!("# v2 git bundle\n-{secret} x\n{secret} refs/heads/worker-1\n\n");
    let own_work = commit(&tree, "work.txt", "w\n");
    let real = canary.world.export("worker-1");
    let pack = real.windows(4).position(|w| w == b"PACK").unwrap();
    let bundle = [claim.as_bytes(), &real[pack..]].concat();
    let id = AgentId::new("worker-1");
    let result =
        canary
            .world
            .store
            .import_bundle(&id, BundleSource::Bytes(&bundle), &secret, LIMIT);
    assert_eq!(result.unwrap_err().kind, ErrorKind::Broken);
    assert!(!canary.world.store.contains(&secret).unwrap());
    canary.host_does_its_work("worker-1", &real, &own_work);
}
