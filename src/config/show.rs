//! The settings of a repository as people see them: with the place that each comes from, and without secrets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Value;
use url::Url;

use super::access::Secret;
use super::load::{layers, resolved};
use super::{Config, Error};
use crate::files::Owners;

/// Stands for a secret.
const HIDDEN: &str = "***";

/// A setting that counts in a repository.
pub(crate) struct Setting {
    /// Section and key, such as `rally.server`.
    pub key: String,
    /// `Null` if it is not set.
    pub value: Value,
    /// File and line; `None` for a default.
    pub place: Option<(PathBuf, usize)>,
    /// What the value would be, where one counts that the queue has kept.
    pub replaced: Option<String>,
}

/// Returns the settings of a repository in the order of their keys. `identify` fills in what the queue knows.
///
/// # Errors
/// As [`load`](super::load()) does.
pub(crate) fn settings(
    named: Option<&Path>,
    repo_dir: &Path,
    owners: Owners,
    identify: impl FnOnce(&mut Config),
) -> Result<Vec<Setting>, Error> {
    let layers = layers(named, Some(repo_dir), owners)?;
    let mut places = HashMap::new();
    for layer in &layers {
        places.extend(layer.lines.iter().map(|(key, line)| (key.clone(), (layer.path.clone(), *line))));
    }
    let mut config = resolved(layers, Some(repo_dir), owners)?;
    identify(&mut config);
    let mut settings = listed(&config);
    for setting in settings.iter_mut().filter(|setting| !setting.value.is_null()) {
        setting.place = places.remove(&setting.key);
        if setting.key == "repository.name" {
            setting.replaced = config.repository.other_name().map(str::to_owned);
        }
    }
    Ok(settings)
}

/// Returns all keys that a configuration may have, each with its section.
pub(super) fn known_keys() -> Vec<(String, String)> {
    let keys = listed(&Config::default()).into_iter();
    keys.filter_map(|Setting { key, .. }| key.split_once('.').map(|(section, key)| (section.into(), key.into())))
        .collect()
}

pub(super) fn listed(config: &Config) -> Vec<Setting> {
    let Ok(Value::Object(sections)) = serde_json::to_value(config) else { unreachable!("keys are text") };
    let keys = |(section, keys): (String, Value)| {
        let Value::Object(keys) = keys else { unreachable!("a section has keys") };
        keys.into_iter().map(move |(key, value)| Setting {
            key: format!("{section}.{key}"),
            value,
            place: None,
            replaced: None,
        })
    };
    sections.into_iter().flat_map(keys).collect()
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Hides what identifies the user to a proxy: the password, or a user name that stands alone, which may be a token.
pub(super) fn hide_login<S: Serializer>(proxy: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(proxy) = proxy else { return serializer.serialize_none() };
    let Ok(mut url) = Url::parse(proxy.expose()) else { return serializer.serialize_str(HIDDEN) };
    let hidden = match (url.username(), url.password()) {
        (_, Some(_)) => url.set_password(Some(HIDDEN)),
        ("", None) => return serializer.serialize_str(proxy.expose()),
        (_, None) => url.set_username(HIDDEN),
    };
    serializer.serialize_str(if hidden.is_ok() { url.as_str() } else { HIDDEN })
}

/// Splits the address of a database before and after the password in it.
fn around_password(store: &str) -> Option<(&str, &str)> {
    let start = store.find("://")? + 3;
    let end = start + store[start..].find(['/', '?']).unwrap_or(store.len() - start);
    let at = start + store[start..end].rfind('@')?;
    let colon = start + store[start..at].find(':')?;
    Some((&store[..=colon], &store[at..]))
}

/// Tells whether the address of a database has a password in it.
pub(super) fn has_password(store: &str) -> bool {
    let query = store.split_once('?').map_or("", |(_, query)| query);
    around_password(store).is_some() || query.contains('%') || query.contains("password")
}

/// Hides the password for a database.
pub(super) fn hide_password<S: Serializer>(store: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(store) = store.as_ref().map(Secret::expose) else { return serializer.serialize_none() };
    match around_password(store) {
        Some((before, after)) if !has_password(&format!("postgres:{}", &after[1..])) => {
            serializer.serialize_str(&format!("{before}{HIDDEN}{after}"))
        }
        None if !has_password(store) => serializer.serialize_str(store),
        _ => serializer.serialize_str(HIDDEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, key: &str) -> Value {
        let config: Config = toml::from_str(text).expect("valid");
        listed(&config).into_iter().find(|setting| setting.key == key).expect("it is known").value
    }

    #[test]
    fn values_are_shown_as_they_are_written() {
        let cases = [
            ("", "rally.timeout", "\"30s\""),
            ("queue.retry_for = \"90m\"", "queue.retry_for", "\"1h 30m\""),
            ("", "rally.proxy", "null"),
            ("", "commits.post", "\"linked\""),
            ("", "commits.max_changes", "1000"),
            ("authors.match = [\"display-name\"]", "authors.match", "[\"display-name\"]"),
            ("repository.links = \"bitbucket-server\"", "repository.links", "\"bitbucket-server\""),
        ];
        for (text, key, expected) in cases {
            assert_eq!(value(text, key).to_string(), expected, "{key}");
        }
    }

    #[test]
    fn secrets_are_hidden() {
        let cases = [
            ("rally.api_key = \"_canary\"", "rally.api_key", "***"),
            ("rally.password = \"canary\"", "rally.password", "***"),
            ("rally.proxy = \"http://user:canary@h:1\"", "rally.proxy", "http://user:***@h:1/"),
            ("rally.proxy = \"http://canary@h:1\"", "rally.proxy", "http://***@h:1/"),
            ("rally.proxy = \"http://h:1\"", "rally.proxy", "http://h:1"),
            ("queue.store = \"postgres://u:canary@h/db\"", "queue.store", "postgres://u:***@h/db"),
            ("queue.store = \"postgres://u:ca@nary@h:1,i:2?a=b\"", "queue.store", "postgres://u:***@h:1,i:2?a=b"),
            ("queue.store = \"postgres://u@h/db\"", "queue.store", "postgres://u@h/db"),
            ("queue.store = \"postgres:///db?password=canary\"", "queue.store", "***"),
        ];
        for (text, key, expected) in cases {
            assert_eq!(value(text, key), expected, "{text}");
        }
    }
}
