//! The secrets: where they come from, and how they are kept out of everything that is shown or stored.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, Rally};

const KEY_VARIABLE: &str = "RALLY_API_KEY";
const PASSWORD_VARIABLE: &str = "RALLY_PASSWORD";

/// A value that is never shown: its `Debug` is redacted and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Returns the value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How we tell Rally who we are.
#[derive(Debug, Clone)]
pub enum Credentials {
    ApiKey(Secret),
    Basic { username: String, password: Secret },
}

impl Credentials {
    /// Finds the credentials that `[rally]` and the environment name.
    ///
    /// # Errors
    /// If there are none, or a file with a secret may be read by others or cannot be read.
    pub fn find(rally: &Rally) -> Result<Self, Error> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret);
        if let Some(username) = &rally.username {
            let password = from_file_or(rally.password_file.as_ref(), "password", rally.password.as_ref())?
                .or_else(|| variable(PASSWORD_VARIABLE))
                .ok_or(Error::NotSet { what: "password", key: "password_file or RALLY_PASSWORD" })?;
            return Ok(Credentials::Basic { username: username.clone(), password });
        }
        let key = from_file_or(rally.api_key_file.as_ref(), "API key", rally.api_key.as_ref())?
            .or_else(|| variable(KEY_VARIABLE))
            .ok_or(Error::NotSet { what: "credentials", key: "api_key_file (or username and password_file)" })?;
        if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let file = rally.api_key_file.as_ref().map(|file| file.display().to_string());
            return Err(Error::NoKey { source_name: file.unwrap_or_else(|| "rally.api_key".into()) });
        }
        Ok(Credentials::ApiKey(key))
    }
}

fn from_file_or(file: Option<&PathBuf>, what: &'static str, value: Option<&Secret>) -> Result<Option<Secret>, Error> {
    let Some(path) = file else { return Ok(value.cloned()) };
    check_private(path)?;
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    match text.trim() {
        "" => Err(Error::EmptySecret { path: path.clone(), what }),
        secret => Ok(Some(Secret::new(secret))),
    }
}

/// Makes sure that only its owner may read the file. A file of another owner (root's, as a rule) may also be read
/// by its group, since that is how it reaches us.
pub(super) fn check_private(path: &Path) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mode = meta.mode() & 0o777;
    // SAFETY: geteuid has no preconditions and cannot fail.
    let ours = meta.uid() == unsafe { libc::geteuid() };
    let forbidden = if ours { 0o077 } else { 0o027 };
    if mode & forbidden == 0 { Ok(()) } else { Err(Error::NotPrivate { path: path.to_owned(), mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("api-key");
        fs::write(&path, "_secret\n").expect("a file");
        let rally = Rally { api_key_file: Some(path.clone()), ..Rally::default() };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
        let error = Credentials::find(&rally).expect_err("readable by all").to_string();
        assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        let Ok(Credentials::ApiKey(key)) = Credentials::find(&rally) else { panic!("no key") };
        assert_eq!(key.expose(), "_secret");
        assert_eq!(format!("{key:?}"), "[redacted]");
    }
}
