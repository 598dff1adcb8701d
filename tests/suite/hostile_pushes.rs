//! Pushes that are made to hold up the hook, fill memory or disk, or stop what comes after them. Each is a few
//! kilobytes. The hook ends with little memory, whatever cannot be read or kept is named, and the next push is delivered.

use std::process::Stdio;

use crate::support::process::limit_memory;
use crate::support::{Clone, Ran, Server, name_of, ran};

/// What the hook may use, in bytes.
const MEMORY: u64 = 200 * 1024 * 1024;

struct Scene {
    server: Server,
    clone: Clone,
}

impl Scene {
    fn new() -> Self {
        let server = Server::delivering_later("[repository]\nweb = \"https://git.example/r\"\n");
        let clone = server.new_clone();
        clone.push_commits(&["US1: before"]);
        server.deliver_all();
        Scene { server, clone }
    }

    /// Writes an object without Git's checks. Returns its name.
    fn object(&self, kind: &str, data: &[u8]) -> String {
        self.clone.git_with(&["hash-object", "-t", kind, "-w", "--literally", "--stdin"], data)
    }

    fn blob(&self) -> String {
        self.object("blob", b"x")
    }

    /// Writes a tree with these entries: mode, name and object.
    fn tree(&self, entries: &[(&str, Vec<u8>, &str)]) -> String {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend(format!("{mode} ").as_bytes());
            data.extend(name);
            data.push(0);
            data.extend(
                (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hexadecimal")),
            );
        }
        self.object("tree", &data)
    }

    fn commit(&self, tree: &str, parents: &[&str], author: &str, message: &[u8]) -> String {
        let mut data = format!("tree {tree}\n");
        parents.iter().for_each(|parent| data += &format!("parent {parent}\n"));
        data += &format!("author {author} <a@x> 1700000000 +0000\ncommitter C <c@x> 1700000000 +0000\n\n");
        self.object("commit", &[data.as_bytes(), message].concat())
    }

    /// Puts a commit into the server's repository as a branch and runs the hook for it with a limit on its memory.
    fn push(&self, commit: &str) -> Ran {
        self.clone.git(&[
            "-c",
            "push.default=nothing",
            "push",
            "--quiet",
            "--receive-pack=git -c core.hooksPath=/nonexistent receive-pack",
            "origin",
            &format!("+{commit}:refs/heads/hostile"),
        ]);
        let mut hook = self.server.hook_command();
        limit_memory(&mut hook, MEMORY);
        let update = format!("{} {commit} refs/heads/hostile\n", name_of('0'));
        self.server.write_private("updates", &update);
        hook.stdin(Stdio::from(std::fs::File::open(self.server.git_dir.join("updates")).expect("it is there")));
        let mut hook = hook;
        Ran::from(hook.output().expect("the program can be run"))
    }

    /// Asserts that what is pushed next is recorded and delivered, by processes with little memory.
    fn assert_next_push_is_delivered(&self) {
        let next = self.clone.commit("US2: after", &[("after", Some("1"))]);
        let seen = self.clone.push(&["origin", "HEAD:refs/heads/main"]);
        assert!(!seen.contains("bug"), "{seen}");
        let mut deliver = self.server.command(&["deliver", "--wait"]);
        limit_memory(&mut deliver, 2 * MEMORY);
        let deliver = ran(deliver);
        assert!(!deliver.stderr.contains("bug"), "{deliver:?}");
        assert_eq!(self.server.changeset(&next).artifacts, ["US2"]);
        let state = self.server.git_dir.join("rally-hook");
        let size: u64 = std::fs::read_dir(state)
            .expect("it is there")
            .map(|file| file.expect("readable").metadata().expect("readable").len())
            .sum();
        assert!(size < 20_000_000, "the state has {size} bytes");
    }

    fn assert_posted(&self, commit: &str) {
        self.server.deliver_all();
        assert_eq!(self.server.changeset(commit).artifacts, ["US1"]);
    }
}

fn assert_fine(hook: &Ran) {
    assert!(hook.success && hook.stderr.lines().count() <= 1 && !hook.stderr.contains("bug"), "{hook:?}");
}

#[test]
fn a_parent_that_is_listed_many_times() {
    let scene = Scene::new();
    let blob = scene.blob();
    let wide = |name: char| {
        let entries: Vec<_> =
            (0..20_000).map(|n| ("100644", format!("{n:06}{name}").into_bytes(), blob.as_str())).collect();
        scene.tree(&entries)
    };
    let parent = scene.commit(&wide('a'), &[], "A", b"a parent");
    let commit = scene.commit(&wide('b'), &vec![parent.as_str(); 30_000], "A", b"US1: many parents");
    assert_fine(&scene.push(&commit));
    scene.assert_posted(&commit);
    scene.assert_next_push_is_delivered();
}

#[test]
fn many_parents_with_wide_trees() {
    let scene = Scene::new();
    let blob = scene.blob();
    let entries: Vec<_> = (0..5_000).map(|n| ("100644", format!("{n:06}").into_bytes(), blob.as_str())).collect();
    let shared = scene.tree(&entries);
    // Each parent's tree differs in one entry, and shares the rest.
    let parents: Vec<String> = (0..150)
        .map(|n| {
            let tree =
                scene.tree(&[("40000", b"dir".to_vec(), &shared), ("100644", format!("z{n}").into_bytes(), &blob)]);
            scene.commit(&tree, &[], "A", format!("parent {n}").as_bytes())
        })
        .collect();
    let other: Vec<_> = (0..5_000).map(|n| ("100644", format!("{n:06}b").into_bytes(), blob.as_str())).collect();
    let tree = scene.tree(&[("40000", b"dir".to_vec(), &scene.tree(&other))]);
    let commit =
        scene.commit(&tree, &parents.iter().map(String::as_str).collect::<Vec<_>>(), "A", b"US1: many parents");
    assert_fine(&scene.push(&commit));
    scene.assert_posted(&commit);
    scene.assert_next_push_is_delivered();
}

#[test]
fn paths_of_gigabytes() {
    let scene = Scene::new();
    let blob = scene.blob();
    for length in [5_000, 100_000] {
        let files: Vec<_> = (0..1_000).map(|n| ("100644", format!("{n}").into_bytes(), blob.as_str())).collect();
        let mut tree = scene.tree(&files);
        for _ in 0..100 {
            tree = scene.tree(&[("40000", vec![b'd'; length], &tree)]);
        }
        let commit = scene.commit(&tree, &[], "A", format!("US1: names of {length} bytes").as_bytes());
        assert_fine(&scene.push(&commit));
        scene.assert_posted(&commit);
    }
    scene.assert_next_push_is_delivered();
}

#[test]
fn messages_of_control_bytes() {
    let scene = Scene::new();
    let tree = scene.tree(&[]);
    for size in [1_000_000, 10_000_000] {
        let message = [b"US1 ".as_slice(), &vec![1; size]].concat();
        let commit = scene.commit(&tree, &[], "A", &message);
        assert_fine(&scene.push(&commit));
        scene.assert_posted(&commit);
    }
    scene.assert_next_push_is_delivered();
}

#[test]
fn a_commit_that_is_too_large_to_read() {
    let scene = Scene::new();
    let message = [b"US1 ".as_slice(), &vec![1; 180_000_000]].concat();
    let commit = scene.commit(&scene.tree(&[]), &[], "A", &message);
    let hook = scene.push(&commit);
    assert!(hook.success && !hook.stderr.contains("bug"), "{hook:?}");
    let status = scene.server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains(&commit[..10]) && status.stdout.contains("too large: 180"), "{status:?}");
    scene.assert_next_push_is_delivered();
}

#[test]
fn a_tree_that_is_too_large_to_read() {
    let scene = Scene::new();
    let blob = scene.blob();
    let entries: Vec<_> = (0..500_000).map(|n| ("100644", format!("{n:07}").into_bytes(), blob.as_str())).collect();
    let commit = scene.commit(&scene.tree(&entries), &[], "A", b"US1: a wide tree");
    let hook = scene.push(&commit);
    assert!(hook.success && !hook.stderr.contains("bug"), "{hook:?}");
    let status = scene.server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains("too large"), "{status:?}");
    scene.assert_next_push_is_delivered();
}

#[test]
fn names_of_megabytes() {
    let scene = Scene::new();
    let commit = scene.commit(&scene.tree(&[]), &[], &"n".repeat(3_000_000), b"US1: a long name");
    assert_fine(&scene.push(&commit));
    scene.assert_posted(&commit);
    scene.assert_next_push_is_delivered();
}

#[test]
fn a_million_ids() {
    let scene = Scene::new();
    let ids: String = (1..=1_000_000).map(|n| format!("US{n} ")).collect();
    let commit = scene.commit(&scene.tree(&[]), &[], "A", ids.as_bytes());
    assert_fine(&scene.push(&commit));
    scene.server.deliver_all();
    assert_eq!(scene.server.changeset(&commit).artifacts.len(), 9, "Rally has nine of the first hundred");
    let log = scene.server.log();
    assert!(log.contains("names too many artifacts") && log.contains("999900 further mentions"), "{}", log.len());
    assert!(log.lines().all(|line| line.len() < 5_000));
    scene.assert_next_push_is_delivered();
}

#[test]
fn unknown_ids_fill_no_log() {
    let scene = Scene::new();
    let ids: String = (100_000..700_000).map(|n| format!("DE{n} ")).collect();
    let commit = scene.commit(&scene.tree(&[]), &[], "A", ids.as_bytes());
    assert_fine(&scene.push(&commit));
    scene.server.deliver_all();
    assert!(scene.server.log().len() < 10_000, "{} bytes", scene.server.log().len());
    scene.assert_next_push_is_delivered();
}

#[test]
fn tags_that_lead_through_each_other() {
    let scene = Scene::new();
    let mut target = scene.clone.head();
    let mut kind = "commit";
    let mut refs = String::new();
    for n in 0..500 {
        let data = format!("object {target}\ntype {kind}\ntag t{n}\ntagger T <t@x> 1700000000 +0000\n\nx\n");
        target = scene.object("tag", data.as_bytes());
        kind = "tag";
        refs += &format!("create refs/tags/t{n} {target}\n");
    }
    scene.clone.git_with(&["update-ref", "--stdin"], refs.as_bytes());
    let seen = scene.clone.push(&["origin", "--tags"]);
    assert!(!seen.contains("bug"), "{seen}");
    let mut status = scene.server.command(&["status"]);
    limit_memory(&mut status, MEMORY);
    ran(status);
    scene.assert_next_push_is_delivered();
}

#[test]
fn tree_entries_that_lead_out_of_the_tree() {
    let scene = Scene::new();
    let blob = scene.blob();
    let inner = scene.tree(&[("100644", b"../../x".to_vec(), &blob)]);
    let tree = scene.tree(&[
        ("100644", b"..".to_vec(), &blob),
        ("100644", b"../x".to_vec(), &blob),
        ("40000", b"..a".to_vec(), &inner),
    ]);
    let commit = scene.commit(&tree, &[], "A", b"US1: leads elsewhere");
    assert_fine(&scene.push(&commit));
    scene.assert_posted(&commit);
    for request in scene.server.rally.requests() {
        assert!(!request.body.contains("/blob/") || !request.body.contains(".."), "{}", request.body);
    }
    scene.assert_next_push_is_delivered();
}

#[test]
fn many_state_words() {
    let server = Server::delivering_later("[state]\nupdate = true\nrefs = [\"main\", \"hostile\"]\n");
    let clone = server.new_clone();
    let scene = Scene { server, clone };
    let ids: String = (1..=80_000).map(|n| format!("DE{n}, ")).collect();
    let runs = "x-DE1-".repeat(100_000);
    let commit = scene.commit(&scene.tree(&[]), &[], "A", format!("US1\nFixed {ids}\n{runs}").as_bytes());
    assert_fine(&scene.push(&commit));
    let mut deliver = scene.server.command(&["deliver", "--wait"]);
    limit_memory(&mut deliver, 2 * MEMORY);
    ran(deliver).succeeds();
    assert_eq!(scene.server.changesets().len(), 1);
}
