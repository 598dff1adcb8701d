//! Lays configuration files over each other: a later one wins key by key.

use super::load::Source;

/// The keys that identify the user to Rally. A file that has any of them replaces all those of the file before: a
/// repository may use a password where the system's file names a key.
const CREDENTIALS: [&str; 5] = ["api_key", "api_key_file", "username", "password", "password_file"];

/// Returns what the files say together, the first one first.
pub(super) fn merged(sources: &[Source]) -> toml::Table {
    sources.iter().fold(toml::Table::new(), |mut below, source| {
        replace_credentials(&mut below, &source.table);
        lay_over(&mut below, &source.table);
        below
    })
}

fn replace_credentials(below: &mut toml::Table, above: &toml::Table) {
    let own = above.get("rally").and_then(toml::Value::as_table);
    if own.is_some_and(|rally| CREDENTIALS.iter().any(|key| rally.contains_key(*key)))
        && let Some(toml::Value::Table(rally)) = below.get_mut("rally")
    {
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
    use super::*;

    fn merged_texts(texts: &[&str]) -> toml::Table {
        let source = |text: &&str| Source {
            path: "config.toml".into(),
            text: (*text).to_owned(),
            table: text.parse().expect("TOML"),
        };
        merged(&texts.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn a_later_file_wins_key_by_key() {
        let texts =
            ["[rally]\nworkspace = \"A\"\nbatch = \"off\"", "[rally]\nworkspace = \"B\"\n[commits]\nmax_changes = 1"];
        let expected = "[rally]\nworkspace = \"B\"\nbatch = \"off\"\n[commits]\nmax_changes = 1";
        assert_eq!(merged_texts(&texts), expected.parse().expect("TOML"));
    }

    #[test]
    fn credentials_of_a_later_file_replace_all_of_those_before() {
        let texts = ["[rally]\napi_key = \"_a\"", "[rally]\nusername = \"u\"\npassword = \"p\""];
        assert_eq!(merged_texts(&texts), texts[1].parse().expect("TOML"));
    }
}
