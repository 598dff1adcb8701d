//! Which Rally user a commit's author is.
//!
//! An author is text that anybody can forge; it is looked up to be shown, never to grant anything.

use std::collections::HashMap;

use crate::changeset::Changeset;
use crate::config::{self, MatchBy};

/// A field of User and a value to find a user by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub field: &'static str,
    pub value: String,
}

/// Finds out whom to look for.
#[derive(Debug)]
pub(super) struct Authors {
    map: HashMap<String, String>,
    config: config::Authors,
}

impl Authors {
    /// Reads the map file, if one is configured.
    pub(super) fn new(config: &config::Authors) -> Result<Self, config::Error> {
        Ok(Authors { map: config.map()?, config: config.clone() })
    }

    /// Returns whom to look for, the best first.
    pub(super) fn candidates(&self, commit: &Changeset) -> Vec<Candidate> {
        let (name, email) = (&commit.author_name, &commit.author_email);
        // Subversion and TFVC have user names, the latter with a domain before it. Git's authors have addresses.
        let account = if email.is_empty() { name.rsplit('\\').next().unwrap_or(name) } else { email };
        let mapped = [format!("{name} <{email}>"), email.clone(), format!("<{email}>"), name.clone()];
        let mapped = mapped.iter().find_map(|author| self.map.get(&author.to_lowercase()));
        let mut candidates: Vec<(&'static str, String)> = Vec::new();
        candidates.extend(mapped.map(|user| ("UserName", user.clone())));
        for field in &self.config.match_by {
            match field {
                MatchBy::Email => candidates.extend(spellings(email).map(|email| ("EmailAddress", email))),
                MatchBy::Username => candidates.extend(spellings(account).map(|account| ("UserName", account))),
                MatchBy::DisplayName => candidates.push(("DisplayName", name.clone())),
            }
        }
        if let Some(domain) = &self.config.domain {
            let local = account.split('@').next().unwrap_or_default();
            candidates.push(("UserName", format!("{local}@{domain}")));
        }
        candidates.extend(self.config.default.clone().map(|user| ("UserName", user)));
        candidates.retain(|(_, value)| !value.is_empty() && !value.starts_with('@'));
        candidates.into_iter().map(|(field, value)| Candidate { field, value }).collect()
    }
}

/// Returns an address as it is written and, if that differs, in lower case: whether Rally's comparison heeds case is
/// not known, and addresses in Git's history are written either way.
fn spellings(email: &str) -> impl Iterator<Item = String> {
    let lower = Some(email.to_lowercase()).filter(|lower| lower != email);
    std::iter::once(email.to_owned()).chain(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::CommitTime;
    use std::fs;

    fn commit() -> Changeset {
        Changeset {
            revision: String::new(),
            committed_at: CommitTime::from_seconds(0),
            author_name: "Jane Roe".into(),
            author_email: "Jane@laptop".into(),
            branch: None,
            message: String::new(),
            artifacts: Vec::new(),
            more_artifacts: 0,
            changes: Vec::new(),
            omitted: 0,
        }
    }

    #[test]
    fn candidates_come_in_the_configured_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let map_file = dir.path().join("authors.toml");
        fs::write(&map_file, "\"jane@laptop\" = \"by.address@acme\"\n\"Jane Roe <JANE@laptop>\" = \"by.both@acme\"\n")
            .expect("a file");
        let config = config::Authors {
            map_file: Some(map_file),
            match_by: vec![MatchBy::DisplayName, MatchBy::Email],
            domain: Some("acme".into()),
            default: Some("connector@acme".into()),
            ..config::Authors::default()
        };
        let candidates = Authors::new(&config).expect("a map").candidates(&commit());
        let expected = [
            ("UserName", "by.both@acme"),
            ("DisplayName", "Jane Roe"),
            ("EmailAddress", "Jane@laptop"),
            ("EmailAddress", "jane@laptop"),
            ("UserName", "Jane@acme"),
            ("UserName", "connector@acme"),
        ];
        assert_eq!(candidates, expected.map(|(field, value)| Candidate { field, value: value.to_owned() }));
    }

    #[test]
    fn an_empty_name_is_nobodys() {
        let authors = Authors::new(&config::Authors::default()).expect("no map");
        let nobody = Changeset { author_name: String::new(), author_email: String::new(), ..commit() };
        assert!(authors.candidates(&nobody).is_empty());
    }

    #[test]
    fn an_author_without_an_address_is_a_user_name() {
        let config = config::Authors { domain: Some("acme.example".into()), ..config::Authors::default() };
        let authors = Authors::new(&config).expect("no map");
        for name in ["jane", r"ACME\jane"] {
            let commit = Changeset { author_name: name.into(), author_email: String::new(), ..commit() };
            let users: Vec<String> = authors
                .candidates(&commit)
                .into_iter()
                .filter(|candidate| candidate.field == "UserName")
                .map(|candidate| candidate.value)
                .collect();
            assert_eq!(users, ["jane", "jane@acme.example"], "{name}");
        }
    }
}
