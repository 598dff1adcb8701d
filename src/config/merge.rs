//! Lays what configuration files say over each other: a later file or block wins key by key. Credentials stay bound to
//! where they go.

use std::path::PathBuf;

use super::Rally;
use super::layer::Layer;

/// Keys that identify the user to a service, and those that decide where they go.
pub(super) struct Binding {
    pub section: &'static str,
    /// A file or block that has any of them replaces all those before: a repository may use a password where the system's
    /// file names a key.
    pub credentials: &'static [&'static str],
    /// A second file that changes one has to bring its own credentials. A block need not: it belongs to the file in which it
    /// stands, and whoever writes that decides where its credentials go.
    destination: &'static [&'static str],
}

pub(super) const RALLY: Binding = Binding {
    section: "rally",
    credentials: &["api_key", "api_key_file", "username", "password", "password_file"],
    destination: &["server", "proxy", "ca_file"],
};
pub(super) const TFVC: Binding =
    Binding { section: "tfvc", credentials: &["token_file"], destination: &["collection", "ca_file"] };

/// Tells that credentials are not used, because a file that was read after them changes where they would go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Withheld {
    pub by: PathBuf,
    pub key: &'static str,
}

/// What the files say together.
pub(super) struct Merged {
    pub table: toml::Table,
    /// Whether Rally's credentials that stand in none of them, or in an earlier one than the destination, are withheld.
    pub withheld: Option<Withheld>,
    /// The same for the token of a TFVC server.
    pub withheld_token: Option<Withheld>,
}

/// Lays the files over each other, the first one first.
pub(super) fn merged(layers: &[Layer]) -> Merged {
    let mut merged = Merged { table: toml::Table::new(), withheld: None, withheld_token: None };
    for layer in layers {
        let may_withhold = layer.path != layers[0].path;
        RALLY.apply(layer, may_withhold, &mut merged.table, &mut merged.withheld);
        TFVC.apply(layer, may_withhold, &mut merged.table, &mut merged.withheld_token);
        lay_over(&mut merged.table, &layer.table);
    }
    merged
}

impl Binding {
    /// Drops the credentials below a layer that has its own, or leads elsewhere.
    fn apply(&self, layer: &Layer, may_withhold: bool, below: &mut toml::Table, withheld: &mut Option<Withheld>) {
        let Layer { path, table, .. } = layer;
        let own = |key: &str| table.get(self.section)?.get(key);
        // The first file changes nothing. Nor does one that repeats what stands there, or holds by default.
        let default = toml::Value::from(Rally::default().server);
        let standing = |key: &str| {
            below.get(self.section).and_then(|keys| keys.get(key)).or((key == "server").then_some(&default))
        };
        let changed = |key: &&str| own(key).is_some_and(|value| Some(value) != standing(key));
        if let Some(key) = self.destination.iter().copied().find(changed).filter(|_| may_withhold) {
            *withheld = Some(Withheld { by: path.clone(), key });
        }
        let is_changed = withheld.as_ref().is_some_and(|withheld| withheld.by == *path);
        if (is_changed || self.credentials.iter().any(|key| own(key).is_some()))
            && let Some(toml::Value::Table(keys)) = below.get_mut(self.section)
        {
            self.credentials.iter().for_each(|key| drop(keys.remove(*key)));
        }
    }
}

fn lay_over(below: &mut toml::Table, above: &toml::Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::layer::Source;
    use super::*;

    /// Merges these files for the repository /srv/git/team-a/api.git.
    fn merged_with(texts: &[&str]) -> (toml::Table, Option<Withheld>) {
        let layers = |(number, text): (usize, &&str)| {
            let source = Source::parse(Path::new(&format!("{number}.toml")), text).expect("TOML");
            source.layers_for(Some(Path::new("/srv/git/team-a/api.git"))).collect::<Vec<_>>()
        };
        let merged = merged(&texts.iter().enumerate().flat_map(layers).collect::<Vec<_>>());
        (merged.table, merged.withheld)
    }

    fn merged_texts(texts: &[&str]) -> toml::Table {
        merged_with(texts).0
    }

    #[test]
    fn a_later_file_wins_key_by_key() {
        let texts =
            ["[rally]\nworkspace = \"A\"\nbatch = \"off\"", "[rally]\nworkspace = \"B\"\n[commits]\nmax_changes = 1"];
        let expected = "[rally]\nworkspace = \"B\"\nbatch = \"off\"\n[commits]\nmax_changes = 1";
        assert_eq!(merged_texts(&texts), expected.parse().expect("TOML"));
    }

    #[test]
    fn blocks_that_match_win_over_the_files_own_keys_in_their_order_and_a_later_file_over_them() {
        let system = "[[match]]\npath = \"/srv/**\"\nrally.workspace = \"B\"\nlog.push = \"quiet\"\nlog.level = \"warn\"\n\
                      [[match]]\npath = \"/srv/git/team-a/*\"\n[match.log]\nlevel = \"debug\"\n\
                      [[match]]\npath = \"/srv/git/team-b/*\"\nrally.workspace = \"C\"\n\
                      [rally]\nworkspace = \"A\"\nbatch = \"off\"\n";
        let expected = "[rally]\nworkspace = \"B\"\nbatch = \"auto\"\n[log]\npush = \"quiet\"\nlevel = \"debug\"";
        assert_eq!(merged_texts(&[system, "rally.batch = \"auto\""]), expected.parse().expect("TOML"));
    }

    #[test]
    fn a_block_may_send_the_credentials_of_its_file_elsewhere() {
        let system = "rally.api_key = \"_a\"\n[[match]]\npath = \"/srv/**\"\nrally.server = \"https://other.example\"";
        let (table, withheld) = merged_with(&[system]);
        assert_eq!((table["rally"]["api_key"].as_str(), withheld), (Some("_a"), None));
    }

    #[test]
    fn credentials_of_a_block_replace_all_of_its_file() {
        let system = "rally.api_key = \"_a\"\n[[match]]\npath = \"/srv/**\"\nrally.username = \"u\"";
        assert_eq!(merged_texts(&[system]), "rally.username = \"u\"".parse().expect("TOML"));
    }

    #[test]
    fn a_later_file_does_not_get_the_credentials_of_a_block() {
        let system = "[[match]]\npath = \"/srv/**\"\nrally.api_key = \"_a\"";
        let (table, withheld) = merged_with(&[system, "rally.server = \"https://elsewhere.example\""]);
        assert_eq!((table["rally"].get("api_key"), withheld.is_some()), (None, true));
    }

    #[test]
    fn credentials_of_a_later_file_replace_all_of_those_before() {
        let texts = ["[rally]\napi_key = \"_a\"", "[rally]\nusername = \"u\"\npassword = \"p\""];
        assert_eq!(merged_texts(&texts), texts[1].parse().expect("TOML"));
    }

    #[test]
    fn credentials_do_not_go_where_a_later_file_leads() {
        let system = "[rally]\napi_key = \"_a\"\nserver = \"https://rally.example\"";
        for &key in RALLY.destination {
            let (table, withheld) = merged_with(&[system, &format!("[rally]\n{key} = \"https://elsewhere.example\"")]);
            assert_eq!(table["rally"].get("api_key"), None, "{key}");
            assert_eq!(withheld, Some(Withheld { by: "1.toml".into(), key }));
        }
    }

    #[test]
    fn a_file_that_changes_the_destination_brings_its_own_credentials() {
        let above = "[rally]\napi_key = \"_b\"\nserver = \"https://elsewhere.example\"";
        let (table, withheld) = merged_with(&["[rally]\nusername = \"u\"\npassword = \"p\"", above]);
        assert_eq!(table, above.parse().expect("TOML"));
        // What the environment holds is not the file's own.
        assert!(withheld.is_some());
    }

    #[test]
    fn a_file_that_repeats_the_destination_or_leaves_it_keeps_the_credentials() {
        let system = "[rally]\napi_key = \"_a\"\nserver = \"https://rally.example\"";
        for above in [system, "[rally]\nserver = \"https://rally.example\"", "[rally]\nworkspace = \"A\""] {
            let (table, withheld) = merged_with(&[system, above]);
            assert_eq!((table["rally"]["api_key"].as_str(), withheld), (Some("_a"), None));
        }
    }

    #[test]
    fn a_token_goes_only_to_the_collection_of_its_own_file_or_an_earlier_one() {
        let merged = |texts: &[&str]| {
            let layer = |(number, text): (usize, &&str)| {
                Source::parse(Path::new(&format!("{number}.toml")), text).expect("TOML").own
            };
            let merged = merged(&texts.iter().enumerate().map(layer).collect::<Vec<_>>());
            let token = merged.table["tfvc"].get("token_file").and_then(toml::Value::as_str).map(str::to_owned);
            (token, merged.withheld_token.map(|withheld| withheld.key), merged.withheld)
        };
        let system = "tfvc.token_file = \"/etc/token\"\ntfvc.collection = \"https://tfs.example/A\"";
        let kept = (Some("/etc/token".to_owned()), None, None);
        assert_eq!(merged(&[system, "tfvc.path = \"$/P\""]), kept);
        assert_eq!(merged(&[system, "tfvc.collection = \"https://tfs.example/A\""]), kept);
        assert_eq!(merged(&[system, "tfvc.collection = \"https://else.example\""]), (None, Some("collection"), None));
        let own = "tfvc.collection = \"https://else.example\"\ntfvc.token_file = \"token\"";
        assert_eq!(merged(&[system, own]).0.as_deref(), Some("token"));
    }
}
