//! Commits that reach the server's repository without a clone and without a push.

use super::{Ran, Server, hermetic, name_of, output_text, ran};

impl Server {
    /// Commits to main and runs the hook for these commits, as a push does; returns what the hook printed.
    pub fn receive(&self, messages: &[&str]) -> Ran {
        let update = self.import("refs/heads/main", messages);
        self.run_hook(update.as_bytes())
    }

    /// Commits to a ref, each time changing two files; returns the line that the hook gets for it.
    pub fn import(&self, name: &str, messages: &[&str]) -> String {
        let old = self.tip(name);
        let mut stream = String::new();
        for (number, message) in messages.iter().enumerate() {
            let from = if number == 0 && old.is_some() { format!("from {name}^0\n") } else { String::new() };
            let text = format!("{message} {number} {}", old.as_deref().unwrap_or_default());
            let data = |text: &str| format!("data {}\n{text}\n", text.len());
            let time = 1_700_000_000 + self.next_number() * 60;
            stream += &format!("commit {name}\ncommitter John Doe <john.doe@acme.example> {time} +0100\n");
            stream += &format!("{}{from}", data(message));
            stream += &format!("M 100644 inline a\n{0}M 100644 inline dir/b\n{0}", data(&text));
        }
        let mut command = hermetic("git");
        command.current_dir(&self.git_dir).args(["fast-import", "--quiet"]);
        output_text(command, stream.as_bytes());
        let none = || name_of('0');
        format!("{} {} {name}\n", old.unwrap_or_else(none), self.tip(name).unwrap_or_else(none))
    }

    /// Returns the revision that a ref of the server leads to.
    pub fn tip(&self, name: &str) -> Option<String> {
        let mut command = hermetic("git");
        command.current_dir(&self.git_dir).args(["rev-parse", "--quiet", "--verify", name]);
        let found = ran(command).stdout;
        (!found.is_empty()).then(|| found.trim().to_owned())
    }
}
