//! A directory that stands for a path on a TFVC server, with doubles of that server and of Rally.

use std::fs;

use tfvc_double::{Double, TOKEN, World};

use super::{DELIVER_LATER, Ran, Server};

/// A directory that is polled, configured for the doubles. It is a [`Server`] without Git.
pub struct Tfvc {
    pub server: Server,
    pub double: Double,
}

impl Tfvc {
    /// Sets up a directory for `$/Payments/main`, which has one changeset by then, and marks that as seen.
    pub fn new() -> Self {
        let tfvc = Tfvc::without_install();
        tfvc.server.run(&["install"]).succeeds();
        tfvc
    }

    /// Sets up the directory only.
    pub fn without_install() -> Self {
        let mut server = Server::without_hook();
        server.git_dir = server.path().join("payments");
        fs::create_dir(&server.git_dir).expect("it is new");
        let tfvc = Tfvc { server, double: Double::start() };
        tfvc.server.write_private("api-key", "_full-access-key\n");
        tfvc.server.write_private("token", &format!("{TOKEN}\n"));
        tfvc.check_in("US1: before", &[("add", "$/Payments/main/old")]);
        tfvc.configure("", DELIVER_LATER);
        tfvc
    }

    /// Replaces the configuration: further keys of `[tfvc]`, or others for them, and other sections.
    pub fn configure(&self, keys: &str, sections: &str) {
        let default = [
            ("collection", self.double.collection()),
            ("project", "Payments".to_owned()),
            ("path", "$/Payments/main".to_owned()),
            ("token_file", "token".to_owned()),
        ];
        let is_set = |key: &str| keys.lines().any(|line| line.split(" = ").next() == Some(key));
        let default = default.iter().filter(|(key, _)| !is_set(key));
        let default: String = default.map(|(key, value)| format!("{key} = {value:?}\n")).collect();
        self.server.configure(&format!("{sections}\n[tfvc]\n{default}{keys}\n"));
    }

    /// Checks something in, and returns the changeset's number.
    pub fn check_in(&self, comment: &str, changes: &[(&str, &str)]) -> u32 {
        self.world(|world| world.check_in(comment, changes))
    }

    /// Checks a file below the path in.
    pub fn check_in_one(&self, comment: &str) -> u32 {
        self.check_in(comment, &[("edit", "$/Payments/main/a")])
    }

    /// Does so several times.
    pub fn check_in_some(&self, count: usize) {
        for _ in 0..count {
            self.check_in_one("US2");
        }
    }

    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        self.double.world(f)
    }

    pub fn catch_up(&self) -> Ran {
        self.server.run(&["catch-up"])
    }

    /// Polls once, delivers, and returns the revisions that Rally holds, in their order.
    pub fn posted(&self) -> Vec<String> {
        self.catch_up().succeeds();
        self.delivered()
    }

    /// Delivers, and returns the revisions that Rally holds.
    pub fn delivered(&self) -> Vec<String> {
        self.server.deliver_all();
        self.server.changesets().into_iter().map(|changeset| changeset.revision).collect()
    }
}
