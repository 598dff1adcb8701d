//! Placeholders in values: `{name}` and `{dir}` stand for where the repository lies, `{revision}` and `{path}` for what a
//! link leads to.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Repository;
use crate::links;

/// The keys with placeholders, and those that each knows.
const KNOWN: [(&str, &[&str]); 4] = [
    ("repository.name", &["name", "dir"]),
    ("repository.web", &["name", "dir"]),
    ("repository.commit_link", &["revision", "name", "dir"]),
    ("repository.file_link", &["revision", "path", "name", "dir"]),
];
/// Those that are refused in all other keys, where people who know them elsewhere would take them for granted. Other
/// braces may belong to a name.
const ALL: [&str; 4] = ["name", "dir", "revision", "path"];

/// Returns the first key with a placeholder that it does not know, and what is wrong.
pub(super) fn unknown(table: &toml::Table) -> Option<(String, String)> {
    let sections = table.iter().filter_map(|(section, value)| Some((section, value.as_table()?)));
    let mut keys = sections.flat_map(|(section, keys)| keys.iter().map(move |(key, value)| (section, key, value)));
    keys.find_map(|(section, key, value)| {
        let key = format!("{section}.{key}");
        let texts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter();
        let problem = texts.filter_map(toml::Value::as_str).find_map(|text| problem(&key, text))?;
        Some((key, problem))
    })
}

fn problem(key: &str, text: &str) -> Option<String> {
    let mut names = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    match KNOWN.iter().find(|(known, _)| *known == key) {
        Some((_, known)) => {
            let unknown = names.find(|name| !known.contains(name))?;
            let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
            Some(format!("unknown placeholder {{{unknown}}}; known: {}", known.join(", ")))
        }
        None => {
            let name = names.find(|name| ALL.contains(name))?;
            let keys = KNOWN.map(|(key, _)| key).join(", ");
            Some(format!("unknown placeholder {{{name}}}; this key has none, only {keys} have"))
        }
    }
}

/// The values with placeholders as they are written, and what the name becomes by them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filled {
    pub(super) template: String,
    pub(super) name: String,
    addresses: [Option<String>; 3],
}

impl Repository {
    /// Fills in where the repository lies, or what its host calls it. In addresses this is percent-encoded, so no part of
    /// it can be taken for a placeholder of a link. May be called again when more is known.
    pub(super) fn fill(&mut self, repo_dir: &Path, host_path: Option<&str>) {
        let dir = host_path.map_or_else(|| self.dir(repo_dir), PathBuf::from);
        let name = dir.file_name().unwrap_or_default();
        let own_addresses = || [&self.web, &self.commit_link, &self.file_link].map(Clone::clone);
        let (template, templates) = match self.filled.take() {
            Some(filled) => (filled.template, filled.addresses),
            None => (self.name.clone(), own_addresses()),
        };
        let (plain_name, plain_dir) = (name.to_string_lossy(), dir.to_string_lossy());
        self.is_named = !["{name}", "{dir}"].iter().any(|placeholder| template.contains(placeholder));
        self.name = links::fill(&template, &[("name", &plain_name), ("dir", &plain_dir)]);
        let [escaped_name, escaped_dir] = [name, dir.as_os_str()].map(|path| links::escaped(path.as_bytes()));
        let values = [("name", escaped_name.as_str()), ("dir", escaped_dir.as_str())];
        let addresses = [&mut self.web, &mut self.commit_link, &mut self.file_link];
        for (address, template) in addresses.into_iter().zip(&templates) {
            *address = template.as_ref().map(|template| links::fill(template, &values));
        }
        self.filled = Some(Filled { template, name: self.name.clone(), addresses: templates });
    }

    /// Returns the path below the root, or else the name alone.
    fn dir(&self, repo_dir: &Path) -> PathBuf {
        let own = own_path(repo_dir);
        let name = || PathBuf::from(own.file_name().unwrap_or_default());
        self.root.as_deref().and_then(|root| below(root, &own)).unwrap_or_else(name)
    }
}

/// Returns the path that a repository is known by: without `.git` or `.hg`.
fn own_path(repo_dir: &Path) -> PathBuf {
    let name = repo_dir.file_name().unwrap_or_default();
    match name.as_bytes() {
        // A repository with a work tree is known by that.
        b".git" | b".hg" => repo_dir.parent().unwrap_or(repo_dir).to_owned(),
        bytes => repo_dir.with_file_name(std::ffi::OsStr::from_bytes(bytes.strip_suffix(b".git").unwrap_or(bytes))),
    }
}

/// Returns a path below a directory, which may be named by a link.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let real = root.canonicalize();
    let mut roots = [Some(root), real.as_deref().ok()].into_iter().flatten();
    let dir = roots.find_map(|root| path.strip_prefix(root).ok())?;
    (dir != Path::new("")).then(|| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(root: Option<&str>, repo_dir: &str) -> Repository {
        let mut repository = Repository {
            root: root.map(PathBuf::from),
            name: "{dir} is {name}".into(),
            web: Some("https://h/{dir}".into()),
            commit_link: Some("https://h/{name}/{revision}".into()),
            ..Repository::default()
        };
        repository.fill(Path::new(repo_dir), None);
        repository
    }

    #[test]
    fn a_repository_is_named_after_its_directory() {
        for (dir, name) in
            [("/srv/git/payments.git", "payments"), ("/srv/git/payments", "payments"), ("/home/a/work/.git", "work")]
        {
            let mut repository = Repository::default();
            repository.fill(Path::new(dir), None);
            assert_eq!(repository.name, name);
        }
    }

    #[test]
    fn a_directory_is_told_below_the_root() {
        for (root, repo_dir, expected) in [
            (Some("/srv/git"), "/srv/git/team-a/api.git", "team-a/api is api"),
            (Some("/srv/git/"), "/srv/git/api.git", "api is api"),
            (Some("/srv/git"), "/srv/git/team-a/work/.git", "team-a/work is work"),
            (Some("/srv/git"), "/srv/other/api.git", "api is api"),
            (Some("/srv/git/api"), "/srv/git/api.git", "api is api"),
            (None, "/srv/git/team-a/api.git", "api is api"),
        ] {
            assert_eq!(filled(root, repo_dir).name, expected, "{root:?} {repo_dir}");
        }
    }

    #[test]
    fn what_the_host_says_counts_in_place_of_the_directory() {
        let mut repository = filled(Some("/srv/git"), "/srv/git/@hashed/ab/cd/abcd.git");
        repository.fill(Path::new("/srv/git/@hashed/ab/cd/abcd.git"), Some("team a/api"));
        assert_eq!(repository.name, "team a/api is api");
        assert_eq!(repository.web.as_deref(), Some("https://h/team%20a/api"));
        assert_eq!(repository.commit_link.as_deref(), Some("https://h/api/{revision}"));
    }

    #[test]
    fn a_directory_is_percent_encoded_in_addresses_only() {
        let repository = filled(Some("/srv/git"), "/srv/git/a team/{revision}.git");
        assert_eq!(repository.name, "a team/{revision} is {revision}");
        assert_eq!(repository.web.as_deref(), Some("https://h/a%20team/%7Brevision%7D"));
        assert_eq!(repository.commit_link.as_deref(), Some("https://h/%7Brevision%7D/{revision}"));
    }

    #[test]
    fn a_placeholder_that_a_key_does_not_know_is_refused() {
        let cases = [
            ("repository.name = \"{dir}-{name}\"", None),
            ("repository.name = \"{path}\"", Some("unknown placeholder {path}; known: {name}, {dir}")),
            ("repository.web = \"https://h/{repo}\"", Some("unknown placeholder {repo}; known: {name}, {dir}")),
            (
                "repository.commit_link = \"https://h/{rev}\"",
                Some("unknown placeholder {rev}; known: {revision}, {name}, {dir}"),
            ),
            ("repository.file_link = \"https://h/{dir}/{revision}/{path}\"", None),
            ("repository.projects = [\"Team\", \"{name}\"]", Some("unknown placeholder {name}; this key has none")),
            ("log.file = \"/var/log/{dir}.log\"", Some("unknown placeholder {dir}; this key has none")),
            ("rally.workspace = \"Team {A}\"", None),
        ];
        for (text, expected) in cases {
            let found = unknown(&text.parse().expect("TOML")).map(|(_, problem)| problem);
            let is_expected = match (&found, expected) {
                (Some(found), Some(expected)) => found.starts_with(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{text}: {found:?}");
        }
    }
}
