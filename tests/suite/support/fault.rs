//! Faults of the simulated Rally, in the words of the tests.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rally_simulator::{Action, Fault, Match};

use super::{Clone, Ran, Server, git_output, hermetic, ran};

/// Delivery only where the test asks for it, so that nothing else talks to Rally.
pub const LATER: &str = "[queue]\ndeliver = \"later\"\nretry_delay = \"20ms\"\n";

impl Server {
    /// Replaces the configuration: these lines in `[rally]`, such as a short `timeout`, and more after it.
    pub fn configure_rally(&self, lines: &str, more: &str) {
        let key = self.write_private("api-key", "_full-access-key\n");
        let rally = format!("server = \"{}\"\nworkspace = \"Acme\"\n", self.rally.url());
        self.configure_all(&format!("[rally]\n{rally}api_key_file = \"{}\"\n{lines}\n{more}", key.display()));
    }

    /// Plants a fault for every request to this path (and all below it).
    pub fn every(&self, method: &'static str, path: &'static str, action: Action) {
        let on = Match { method: Some(method), path: Some(path), ..Match::default() };
        self.rally.fault(Fault { on, times: usize::MAX, action });
    }

    /// Plants a fault for the next request to this path.
    pub fn once(&self, method: &'static str, path: &'static str, action: Action) {
        let on = Match { method: Some(method), path: Some(path), ..Match::default() };
        self.rally.fault(Fault { on, times: 1, action });
    }

    /// Plants a fault for everything that is asked of Rally.
    pub fn always(&self, action: Action) {
        self.rally.fault(Fault { on: Match::default(), times: usize::MAX, action });
    }

    pub fn was_asked(&self, method: &str, path: &str) -> bool {
        self.rally.requests().iter().any(|request| request.method == method && request.path.starts_with(path))
    }

    /// Makes commits on the branch main and runs the hook for them, as a push would. Returns what the hook said.
    pub fn take_in(&self, messages: &[&str]) -> Ran {
        let update = self.import("refs/heads/main", messages);
        self.run_hook(update.as_bytes())
    }

    /// Makes commits, each changing two files, and moves the ref; returns the line that the hook gets.
    pub fn import(&self, name: &str, messages: &[&str]) -> String {
        let tip = |or: &str| {
            let mut command = hermetic("git");
            command.current_dir(&self.git_dir).args(["rev-parse", "--quiet", "--verify", name]);
            let found = ran(command).stdout;
            if found.is_empty() { or.to_owned() } else { found.trim().to_owned() }
        };
        let old = tip("");
        let mut stream = String::new();
        for (number, message) in messages.iter().enumerate() {
            let from = if number == 0 && !old.is_empty() { format!("from {name}^0\n") } else { String::new() };
            let text = format!("{message} {number} {old}");
            let data = |text: &str| format!("data {}\n{text}\n", text.len());
            let time = 1_700_000_000 + self.clones.replace(self.clones.get() + 1) * 60;
            stream += &format!("commit {name}\ncommitter John Doe <john.doe@acme.example> {time} +0100\n");
            stream += &format!("{}{from}", data(message));
            stream += &format!("M 100644 inline a\n{0}M 100644 inline dir/b\n{0}", data(&text));
        }
        let mut command = hermetic("git");
        command.current_dir(&self.git_dir).args(["fast-import", "--quiet"]);
        git_output(command, stream.as_bytes());
        let zero = "0".repeat(40);
        format!("{} {} {name}\n", if old.is_empty() { &zero } else { &old }, tip(&zero))
    }

    /// Makes everything that waits for its next attempt due.
    pub fn let_time_pass(&self) {
        self.change_queue("UPDATE changeset SET next_attempt = 0 WHERE dead = 0");
    }

    /// Changes the queue behind the program's back.
    pub fn change_queue(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.git_dir.join("rally-hook/queue.db")).expect("a database");
        database.busy_timeout(Duration::from_secs(30)).expect("it can wait");
        database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs the program with reads that are taken to lag that long behind writes.
    pub fn run_with_lag(&self, arguments: &[&str], millis: u64) -> Ran {
        let mut command = self.command(arguments);
        command.env("RALLY_HOOK_TEST_LAG_MS", millis.to_string());
        ran(command)
    }

    /// Makes sure that delivery stands still, for this reason, until a person acts.
    pub fn assert_stopped(&self, reason: &str) {
        let status = self.status();
        assert_eq!(status["paused"]["needs_person"], true, "{status}");
        let said = status["paused"]["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{reason:?} in {status}");
        self.run(&["status"]).fails_with(1);
    }
}

impl Clone {
    /// Commits to two files for each of these messages and pushes the branch.
    pub fn push_commits(&self, messages: &[&str]) -> String {
        for (number, message) in messages.iter().enumerate() {
            let text = format!("{message} {number}");
            self.commit(message, &[("a", Some(&text)), ("dir/b", Some(&text))]);
        }
        self.push(&["origin", "HEAD"])
    }
}

pub fn status(code: u16) -> Action {
    Action::Status { code, headers: Vec::new(), body: "<html><body>no</body></html>".into() }
}

pub fn retry_after(code: u16, seconds: u32) -> Action {
    let headers = vec![("Retry-After".to_owned(), seconds.to_string())];
    Action::Status { code, headers, body: String::new() }
}

pub fn errors(text: &str) -> Action {
    Action::Errors(vec![text.to_owned()])
}

/// Starts a program that nobody listens to.
pub fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program can be run")
}

/// Kills a process as `kill -9` does; it may have ended already.
pub fn kill(mut child: Child) {
    let _ = child.kill();
    child.wait().expect("it was ours");
}

/// Sends a signal to the group that a process leads, if it leads one.
pub fn signal_group(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so that its number is still its own.
    unsafe { libc::kill(-(child.id() as libc::pid_t), signal) };
}

/// Kills a process with the group if it leads one.
pub fn kill_group(child: Child) {
    signal_group(&child, libc::SIGKILL);
    kill(child);
}
