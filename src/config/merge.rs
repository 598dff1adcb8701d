//! Lays what configuration files say over each other: a later file or block wins key by key. Credentials stay bound to
//! where they go.

use std::path::PathBuf;

use super::Rally;
use super::layer::Layer;

/// The keys that identify the user to Rally. A file or block that has any of them replaces all those before: a repository
/// may use a password where the system's file names a key.
pub(super) const CREDENTIALS: [&str; 5] = ["api_key", "api_key_file", "username", "password", "password_file"];

/// The keys that decide where the credentials go. A second file that changes one has to bring its own credentials. A block
/// need not: it belongs to the file in which it stands, and whoever writes that decides where its credentials go.
const DESTINATION: [&str; 3] = ["server", "proxy", "ca_file"];

/// Tells that credentials are not used, because a file that was read after them changes where they would go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Withheld {
    pub by: PathBuf,
    pub key: &'static str,
}

/// Returns what the files say together, the first one first, and whether credentials that stand in none of them, or in
/// an earlier one than the destination, are withheld.
pub(super) fn merged(layers: &[Layer]) -> (toml::Table, Option<Withheld>) {
    let mut below = toml::Table::new();
    let mut withheld = None;
    for Layer { path, table, .. } in layers {
        let own = |key: &str| table.get("rally")?.get(key);
        // The first file changes nothing. Nor does one that repeats what stands there, or holds by default.
        let default = toml::Value::from(Rally::default().server);
        let standing =
            |key: &str| below.get("rally").and_then(|rally| rally.get(key)).or((key == "server").then_some(&default));
        let changed = |key: &&str| own(key).is_some_and(|value| Some(value) != standing(key));
        if let Some(key) = DESTINATION.into_iter().find(changed).filter(|_| *path != layers[0].path) {
            withheld = Some(Withheld { by: path.clone(), key });
        }
        let is_changed = withheld.as_ref().is_some_and(|withheld| withheld.by == *path);
        if is_changed || CREDENTIALS.into_iter().any(|key| own(key).is_some()) {
            drop_credentials(&mut below);
        }
        lay_over(&mut below, table);
    }
    (below, withheld)
}

fn drop_credentials(table: &mut toml::Table) {
    if let Some(toml::Value::Table(rally)) = table.get_mut("rally") {
        CREDENTIALS.iter().for_each(|key| drop(rally.remove(*key)));
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
            source.layers_for(Path::new("/srv/git/team-a/api.git")).collect::<Vec<_>>()
        };
        merged(&texts.iter().enumerate().flat_map(layers).collect::<Vec<_>>())
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
        for key in DESTINATION {
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
}
