//! What must hold for any configuration, see [`crate::fuzzing`].

use std::path::Path;

use super::layer::{Layer, Source};
use super::merge::{Merged, RALLY, merged};
use super::{Config, Error, Trust, resolve};
use crate::clock::Deadline;
use crate::text::with_causes;
use crate::time::Time;

const GIT_DIR: &str = "/srv/git/a.git";
const SECRET: &str = "_5f3a9d-canary";
/// Lines that hold the secret, as they are and as they are got wrong.
const LINES: [&str; 7] = [
    "api_key = \"_5f3a9d-canary\"",
    "password = '_5f3a9d-canary'",
    "proxy = \"http://user:_5f3a9d-canary@127.0.0.1:1\"",
    "proxy = \"ftp:_5f3a9d-canary\"",
    "api_key = _5f3a9d-canary",
    "password = [\"_5f3a9d-canary\"]",
    "_5f3a9d-canary",
];

/// Files are refused with an error that does not show a secret, or become settings that can be used. The first byte says
/// which line with a secret is put in the place of the first NUL; the second NUL begins the repository's own file.
pub fn configuration(data: &[u8]) {
    let Some((line, text)) = data.split_first() else { return };
    let line = LINES[usize::from(*line) % LINES.len()];
    let text = String::from_utf8_lossy(text).replace("canary", "").replacen('\0', &format!("\n{line}\n"), 1);
    let source = |(number, text): (usize, &str)| Source::parse(Path::new(&format!("{number}.toml")), text);
    let sources: Result<Vec<Source>, Error> = text.split('\0').take(2).enumerate().map(source).collect();
    let layers: Vec<Layer> = match sources {
        // A repository's file has no blocks.
        Ok(sources) if sources.iter().skip(1).any(|source| !source.blocks.is_empty()) => return,
        Ok(sources) => sources.into_iter().flat_map(|source| source.layers_for(Some(Path::new(GIT_DIR)))).collect(),
        Err(error) => return assert_silent(&error),
    };
    let Merged { table, withheld, .. } = merged(&layers);
    if let Some(withheld) = &withheld {
        let last = layers.last().expect("a file withholds");
        assert_eq!(last.path, withheld.by);
        for &key in RALLY.credentials {
            assert_eq!(value(&table, key), value(&last.table, key), "{key}");
        }
    }
    let misplaced = layers.iter().any(|layer| shows_secret(&toml::Value::Table(layer.table.clone())));
    match resolve::resolve(table, layers, Trust::default()) {
        Ok(config) => {
            assert!(misplaced || !format!("{config:?}").contains(SECRET));
            assert_usable(&config);
        }
        Err(error) if !misplaced => assert_silent(&error),
        Err(_) => {}
    }
}

fn value<'t>(table: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
    table.get("rally")?.get(key)
}

fn assert_silent(error: &Error) {
    let said = with_causes(error);
    assert!(!said.contains(SECRET), "{said}");
}

/// Tells whether the secret stands where no secret belongs: such a value is shown like any other.
fn shows_secret(value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => text.contains(SECRET),
        toml::Value::Array(values) => values.iter().any(shows_secret),
        toml::Value::Table(table) => table
            .iter()
            .filter(|(key, _)| !super::error::SECRETS.contains(&key.as_str()))
            .any(|(key, value)| key.contains(SECRET) || shows_secret(value)),
        _ => false,
    }
}

/// Asserts that nothing panics that is made of the settings.
fn assert_usable(config: &Config) {
    let policy = config.commits.policy();
    policy.mentions.find(b"US1");
    config.commits.watched();
    config.repository.link_templates();
    config.destination();
    Deadline::after(config.rally.timeout * 10);
    let retry = config.queue.retry();
    retry.is_over(Time::from_millis(0), Time::from_millis(0) + retry.wait(3, 0.5, None) + config.rally.read_lag);
}
