//! The environment's variables: the only module that reads them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::process;

pub(crate) const KEY_VARIABLE: &str = "RALLY_API_KEY";
pub(crate) const PASSWORD_VARIABLE: &str = "RALLY_PASSWORD";
const SECRETS: [&str; 2] = [KEY_VARIABLE, PASSWORD_VARIABLE];

/// What was taken out of the environment.
static TAKEN: OnceLock<[Option<String>; 2]> = OnceLock::new();

/// Returns a variable. An empty one counts as not set.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the variables whose names begin with this, `NAME=value` each.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(crate) fn variables(prefix: &str) -> Vec<OsString> {
    let named = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
    named
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            variable
        })
        .collect()
}

/// Returns a variable that is text.
pub(crate) fn text_variable(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// Returns the home directory of the user, also where the environment does not name it.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

/// Takes the secrets out of the environment, where the programs that we start and the system's lists of processes would
/// have them too. To be called first of all, while there is one thread.
pub(crate) fn take_secrets() {
    TAKEN.get_or_init(|| {
        SECRETS.map(|name| {
            let value = text_variable(name);
            process::erase_variable(name);
            value
        })
    });
}

/// Returns the value that one of the secret variables had.
pub(crate) fn secret(name: &str) -> Option<String> {
    let number = SECRETS.iter().position(|secret| *secret == name)?;
    TAKEN.get()?[number].clone()
}
