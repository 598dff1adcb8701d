//! Every repository that Git can read: formats, object stores, shallow and damaged history.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::{Server, expected, git, is_new_format, name_of, skipped};

/// Pushes twice, delivers, and compares with what Git lists.
fn push_and_deliver(server: &Server) {
    let clone = server.new_clone();
    clone.push_commits(&["US1: one", "DE2: two"]);
    clone.git(&["checkout", "--quiet", "-b", "side", "HEAD~1"]);
    clone.commit("US3: side", &[("side", Some("3"))]);
    clone.git(&["merge", "--quiet", "--no-edit", "-m", "TA4: merge", "main"]);
    clone.push(&["origin", "side"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", "side"]));
    server.run(&["status"]).succeeds();
}

fn is_known_to_git(format: &[&str]) -> bool {
    let place = tempfile::tempdir().expect("a directory");
    let mut init = crate::support::hermetic("git");
    init.current_dir(place.path()).args(["init", "--quiet", "--bare"]).args(format);
    crate::support::ran(init).success
}

#[test]
fn commits_of_every_object_and_ref_format_are_posted() {
    let formats = [
        ["--object-format=sha256", "--ref-format=files"],
        ["--object-format=sha1", "--ref-format=reftable"],
        ["--object-format=sha256", "--ref-format=reftable"],
    ];
    for format in formats {
        if !is_known_to_git(&format) {
            skipped(&format!("this git does not know {}", format.join(" ")));
            continue;
        }
        let server = Server::with_repository(&format);
        server.run(&["install"]).succeeds();
        server.configure_later("");
        push_and_deliver(&server);
        assert!(!server.run(&["doctor"]).succeeds().stdout.contains("WRONG"), "{format:?}");
        let history = server.run(&["backfill", "--all", "--dry-run", "--json"]).succeeds().stdout;
        assert_eq!(history.lines().count(), 4, "{format:?}");
        server.assert_refs_behind(&[]);
    }
}

#[test]
fn extensions_that_git_accepts_are_no_obstacle() {
    let extensions = [
        ("extensions.partialClone", "origin"),
        ("extensions.noop-v1", "true"),
        ("extensions.refStorage", "files"),
        ("extensions.worktreeConfig", "true"),
        ("extensions.preciousObjects", "true"),
    ];
    for (key, value) in extensions.into_iter().filter(|(key, _)| !is_new_format() || *key != "extensions.refStorage") {
        let server = Server::delivering_later("");
        server.git(&["config", "core.repositoryFormatVersion", "1"]);
        server.git(&["config", key, value]);
        push_and_deliver(&server);
    }
}

#[test]
fn git_decides_which_extensions_are_known_and_its_message_is_told() {
    for (key, value) in [("fromTheFuture", "true"), ("relativeWorktrees", "true")] {
        let server = Server::delivering_later("");
        server.git(&["config", "core.repositoryFormatVersion", "1"]);
        server.git(&["config", &format!("extensions.{key}"), value]);
        let mut ask = crate::support::hermetic("git");
        ask.current_dir(&server.git_dir).args(["rev-parse", "--git-dir"]);
        let git_says = crate::support::ran(ask);
        if git_says.success {
            // Git 2.48 knows relativeWorktrees.
            push_and_deliver(&server);
            continue;
        }
        let reason = git_says.stderr.lines().last().expect("a reason").trim();
        let ran = server.run(&["catch-up"]).fails_with(1);
        assert!(ran.stderr.contains("git says: ") && ran.stderr.contains(reason), "{reason}: {ran:?}");
        assert!(server.run(&["doctor"]).fails_with(1).stdout.contains(reason), "{reason}");
    }
}

/// Pushes a first commit, moves its objects to this pool, and writes the given alternates.
fn borrow(server: &Server, pool: &Path, alternates: &str) {
    server.new_clone().push_commits(&["US1: borrowed"]);
    server.git(&["repack", "-adq"]);
    fs::create_dir_all(pool.join("info")).expect("a directory");
    fs::rename(server.git_dir.join("objects/pack"), pool.join("pack")).expect("it can be moved");
    fs::create_dir(server.git_dir.join("objects/pack")).expect("a directory");
    fs::write(server.git_dir.join("objects/info/alternates"), alternates).expect("a file");
}

fn push_onto_borrowed(server: &Server) {
    server.git(&["fsck"]);
    // A clone by path copies the alternates, and does not read quotes then.
    let url = format!("file://{}", server.git_dir.display());
    git(server.path(), &["clone", "--quiet", &url, "by-url"]);
    let clone = server.path().join("by-url");
    fs::write(clone.join("a"), "changed").expect("a file");
    git(&clone, &["commit", "--quiet", "--all", "-m", "US2: built on a borrowed one"]);
    git(&clone, &["push", "--quiet", "origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn alternates_may_be_quoted_relative_and_nested() {
    let odd = "a \"pool\"";
    let cases = [
        (odd, "\"PLACE/a\\040\\\"pool\\\"\"\n".to_owned()),
        ("pool", "# comment\n\"PLACE/pool\"\n".to_owned()),
        ("pool", "../../pool\n".to_owned()),
    ];
    for (name, alternates) in cases {
        let server = Server::delivering_later("");
        let place = server.path().canonicalize().expect("it exists");
        borrow(&server, &place.join(name), &alternates.replace("PLACE", &place.display().to_string()));
        push_onto_borrowed(&server);
    }
    // A directory's name that is not UTF-8, quoted as Git quotes it.
    let server = Server::delivering_later("");
    let place = server.path().canonicalize().expect("it exists");
    let pool = place.join(OsStr::from_bytes(b"caf\xe9"));
    borrow(&server, &pool, &format!("\"{}/caf\\351\"\n", place.display()));
    push_onto_borrowed(&server);
    let server = Server::delivering_later("");
    let (far, near) = (server.path().join("far"), server.path().join("near"));
    fs::create_dir_all(near.join("info")).expect("a directory");
    fs::write(near.join("info/alternates"), "../far\n").expect("a file");
    borrow(&server, &far, "../../near\n");
    push_onto_borrowed(&server);
}

#[test]
fn object_directories_of_the_environment_count_in_the_hook() {
    let server = Server::delivering_later("");
    let pool = server.path().join("pool");
    borrow(&server, &pool, "");
    let clone_objects = {
        let clone = server.path().join("clone9");
        let mut command = crate::support::hermetic("git");
        command.current_dir(server.path()).env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &pool);
        crate::support::ran({
            command.args(["clone", "--quiet", "payments.git", "clone9"]);
            command
        })
        .succeeds();
        clone
    };
    let old = server.tip("refs/heads/main").expect("it is there");
    let mut commit = crate::support::hermetic("git");
    commit.current_dir(&clone_objects).env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &pool);
    commit.args(["commit", "--quiet", "--allow-empty", "-m", "US2: in the hook's own directory"]);
    crate::support::ran(commit).succeeds();
    let new = git(&clone_objects, &["rev-parse", "HEAD"]);
    let mut hook = server.hook_command();
    hook.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", format!("\"{}\"", pool.display()));
    hook.env("GIT_OBJECT_DIRECTORY", clone_objects.join(".git/objects"));
    let input = format!("{old} {new} refs/heads/main\n");
    let seen = crate::support::output_of(hook, input.as_bytes());
    assert!(seen.contains("1 commit queued for US2"), "{seen}");
}

#[test]
fn a_repository_below_a_path_that_is_not_utf8_is_served() {
    let server = Server::delivering_later("");
    let place = server.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&place).expect("a directory");
    let moved = place.join(OsStr::from_bytes(b"pay\xe9.git"));
    fs::rename(&server.git_dir, &moved).expect("it can be moved");
    // The tests, and clones, go on to use the name that is text.
    symlink(&moved, &server.git_dir).expect("a link");
    push_and_deliver(&server);
    server.git(&["repack", "-adq"]);
    let history = server.run(&["backfill", "--all", "--dry-run", "--json"]).succeeds().stdout;
    assert_eq!(history.lines().count(), 4);
    assert!(!server.run(&["doctor"]).succeeds().stdout.contains("WRONG"));
}

/// Returns the file of a loose object.
fn loose(server: &Server, revision: &str) -> PathBuf {
    server.git_dir.join("objects").join(&revision[..2]).join(&revision[2..])
}

/// What is done with the place of an object's file, and what the file held.
type Damage = fn(&Path, &[u8]);

/// Pushes three commits that stay loose, with the middle one's file removed, emptied or cut before the hook sees it.
fn push_with_damage(server: &Server, damage: Damage) -> (Vec<String>, Vec<u8>) {
    server.disable_hook();
    let clone = server.new_clone();
    let revisions: Vec<String> =
        ["US1: a", "US2: b", "US3: c"].map(|message| clone.commit(message, &[("file", Some(message))])).to_vec();
    clone.push(&["origin", "main"]);
    server.enable_hook();
    let file = loose(server, &revisions[1]);
    let whole = fs::read(&file).expect("it is loose");
    fs::remove_file(&file).expect("it is there");
    damage(&file, &whole);
    let input = format!("{} {} refs/heads/main\n", name_of('0'), revisions[2]);
    server.run_hook(input.as_bytes()).succeeds();
    (revisions, whole)
}

#[test]
fn a_missing_damaged_or_cut_commit_is_a_dead_letter_and_holds_up_nothing_else() {
    let damages: [(&str, Damage); 3] = [
        ("missing", |_, _| {}),
        ("empty", |file, _| fs::write(file, "").expect("a file")),
        ("cut", |file, whole| fs::write(file, &whole[..whole.len() / 2]).expect("a file")),
    ];
    for (case, damage) in damages {
        let server = Server::delivering_later("");
        let (revisions, whole) = push_with_damage(&server, damage);
        let clone_dir = server.path().join("clone0");
        server.run(&["deliver"]);
        let status = server.run(&["status"]).fails_with(1).stdout;
        assert!(status.contains(&revisions[1]), "{case}: {status}");
        assert!(status.contains("behind     refs/heads/main"), "{case}: {status}");
        let backfill = server.run(&["backfill", "--all", "--dry-run"]).fails_with(1);
        assert!(backfill.stderr.contains(&revisions[1]), "{case}: {backfill:?}");
        // Git itself takes no push where it finds a file cut off.
        if case != "cut" {
            assert_later_pushes_are_posted(&server, &clone_dir);
        }
        // Mended, all is posted.
        let file = loose(&server, &revisions[1]);
        let _ = fs::remove_file(&file);
        fs::write(&file, whole).expect("a file");
        server.run(&["retry", "--all"]).succeeds();
        server.run(&["catch-up"]).succeeds();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["--branches"]));
        server.run(&["status"]).succeeds();
    }
}

/// Pushes another branch and a later commit, which the damage does not hold up.
fn assert_later_pushes_are_posted(server: &Server, clone: &Path) {
    git(clone, &["checkout", "--quiet", "--orphan", "other"]);
    git(clone, &["commit", "--quiet", "-m", "DE4: other"]);
    git(clone, &["push", "--quiet", "origin", "other"]);
    git(clone, &["checkout", "--quiet", "main"]);
    git(clone, &["commit", "--quiet", "--allow-empty", "-m", "DE5: later"]);
    git(clone, &["push", "--quiet", "origin", "main"]);
    server.run(&["deliver"]);
    let posted: Vec<String> = server.changesets().into_iter().map(|held| held.message).collect();
    for message in ["DE4", "DE5"] {
        assert!(posted.iter().any(|text| text.starts_with(message)), "{posted:?}");
    }
}

#[test]
fn commits_are_found_however_they_are_packed() {
    let layouts: [&[&str]; 4] = [
        &["repack", "-adbq", "--write-midx"],
        &["-c", "pack.indexVersion=1", "repack", "-adfq"],
        &["gc", "--quiet", "--cruft", "--prune=never"],
        &["multi-pack-index", "write"],
    ];
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: a", "US2: b"]);
    let tip = clone.head();
    // Nothing reaches the second one, so it gets into a pack for what may go away.
    server.git(&["update-ref", "refs/heads/main", "main~1"]);
    for layout in layouts {
        server.git(layout);
        let history = server.run(&["backfill", &tip, "--dry-run", "--json"]).succeeds().stdout;
        assert_eq!(history.lines().count(), 2, "{layout:?}");
    }
}

#[test]
fn a_commit_whose_file_is_damaged_is_read_from_the_pack_that_holds_it_too() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: a", "US2: b", "US3: c"]);
    server.git(&["repack", "-aq"]);
    let file = loose(&server, &clone.git(&["rev-parse", "HEAD~1"]));
    fs::remove_file(&file).expect("it is loose");
    fs::write(&file, "").expect("a file");
    let history = server.run(&["backfill", "--all", "--dry-run", "--json"]).succeeds().stdout;
    assert_eq!(history.lines().count(), 3);
}

#[test]
fn a_damaged_commit_below_a_delivered_tip_holds_up_no_later_push() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let revisions: Vec<String> =
        ["US1: a", "US2: b", "US3: c"].map(|message| clone.commit(message, &[("file", Some(message))])).to_vec();
    clone.push(&["origin", "main"]);
    server.deliver_all();
    for below in &revisions[..2] {
        let file = loose(&server, below);
        fs::remove_file(&file).expect("it is loose");
        fs::write(&file, "").expect("a file");
    }
    clone.push_commits(&["DE4: later"]);
    server.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(server.changesets().len(), 4);
}

#[test]
fn only_the_shallow_file_ends_history() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: a", "US2: b", "US3: c"]);
    let url = format!("file://{}", server.git_dir.display());
    git(server.path(), &["clone", "--quiet", "--bare", "--depth=1", &url, "shallow.git"]);
    let shallow = server.path().join("shallow.git");
    let dry_run = server.run(&["backfill", "--all", "--dry-run", "--json", "--repo", &shallow.display().to_string()]);
    let printed = dry_run.succeeds().stdout;
    assert_eq!(printed.lines().count(), 1, "{printed}");
    fs::remove_file(shallow.join("shallow")).expect("it is there");
    let missing = server.run(&["backfill", "--all", "--dry-run", "--repo", &shallow.display().to_string()]);
    assert!(missing.fails_with(1).stderr.contains("cannot read object"));
}
