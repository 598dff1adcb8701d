//! Histories in a clone with any bytes, dates and parents, made fast by `git fast-import`.

use std::fs;

use super::Clone;

/// The commits of a history, not written to a clone yet.
pub struct History {
    stream: Vec<u8>,
    commits: usize,
}

/// The number of a commit in a [`History`], to name it as a parent.
pub type Mark = usize;

impl History {
    /// Returns a history without commits.
    pub fn new() -> Self {
        History { stream: b"feature done\n".to_vec(), commits: 0 }
    }

    /// Adds a commit to a branch. Without parents it is a root; `None` for a file deletes it.
    pub fn commit(
        &mut self,
        branch: &str,
        time: i64,
        message: impl AsRef<[u8]>,
        parents: &[Mark],
        files: &[(&[u8], Option<&str>)],
    ) -> Mark {
        self.encoded_commit(branch, time, "", message.as_ref(), parents, files)
    }

    /// Adds a commit likewise, with an `encoding` header unless that is empty.
    pub fn encoded_commit(
        &mut self,
        branch: &str,
        time: i64,
        encoding: &str,
        message: &[u8],
        parents: &[Mark],
        files: &[(&[u8], Option<&str>)],
    ) -> Mark {
        self.commits += 1;
        let mark = self.commits;
        let header = if encoding.is_empty() { String::new() } else { format!("encoding {encoding}\n") };
        let who = format!("<jane.roe@acme.example> {time} +0100");
        // A branch that exists already would be the parent of a root.
        self.add(format!("reset refs/heads/{branch}\ncommit refs/heads/{branch}\nmark :{mark}\n"));
        self.add(format!("author Jane Roe {who}\ncommitter John Doe {who}\n{header}"));
        self.data(message);
        for (number, parent) in parents.iter().enumerate() {
            self.add(format!("{} :{parent}\n", if number == 0 { "from" } else { "merge" }));
        }
        for (path, text) in files {
            let quoted: String = path.iter().map(|byte| format!("\\{byte:03o}")).collect();
            match text {
                Some(text) => {
                    self.add(format!("M 100644 inline \"{quoted}\"\n"));
                    self.data(text.as_bytes());
                }
                None => self.add(format!("D \"{quoted}\"\n")),
            }
        }
        mark
    }

    fn add(&mut self, text: String) {
        self.stream.extend(text.into_bytes());
    }

    fn data(&mut self, bytes: &[u8]) {
        self.add(format!("data {}\n", bytes.len()));
        self.stream.extend(bytes);
        self.stream.push(b'\n');
    }

    /// Writes the commits and branches to a clone, and returns the revisions in the order of the commits.
    pub fn write_to(mut self, clone: &Clone) -> Vec<String> {
        self.add("done\n".into());
        clone.git_with(&["fast-import", "--quiet", "--force", "--export-marks=.git/marks"], &self.stream);
        let marks = fs::read_to_string(clone.path.join(".git/marks")).expect("fast-import wrote them");
        let mut revisions = vec![String::new(); self.commits];
        for line in marks.lines() {
            let (mark, revision) = line.split_once(' ').expect("a mark and a revision");
            let mark: Mark = mark.trim_start_matches(':').parse().expect("a number");
            revisions[mark - 1] = revision.to_owned();
        }
        revisions
    }
}
