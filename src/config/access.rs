//! What the files and variables hold that `[rally]` and `[authors]` name: secrets, certificates, the map of authors.
//! Secrets are kept out of everything that is shown or stored.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Authors, Error, Rally};
use crate::environment::text_variable;
use crate::process::effective_user;

const KEY_VARIABLE: &str = "RALLY_API_KEY";
const PASSWORD_VARIABLE: &str = "RALLY_PASSWORD";
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A value that is never shown: its `Debug` is redacted and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Returns the value, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How requests identify the user to Rally.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    ApiKey(Secret),
    Basic { username: String, password: Secret },
}

/// What is needed to connect to Rally.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub credentials: Credentials,
    /// Certificates to trust besides the system's, as PEM.
    pub certificates: Option<Vec<u8>>,
    /// The name of the workspace.
    pub workspace: String,
}

impl Rally {
    /// Reads what `[rally]` and the environment name.
    ///
    /// # Errors
    /// If credentials or the workspace are not set, or a file cannot be read or may be read by others.
    pub(crate) fn access(&self) -> Result<Access, Error> {
        let credentials = self.credentials()?;
        let certificates = self.ca_file.as_ref().map(|path| certificates(path)).transpose()?;
        let workspace =
            self.workspace.clone().ok_or(Error::NotSet { what: "workspace", key: "workspace to its name" })?;
        Ok(Access { credentials, certificates, workspace })
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        let variable = |name| text_variable(name).map(Secret);
        if let Some(username) = &self.username {
            let password = from_file_or(self.password_file.as_ref(), "rally.password_file", self.password.as_ref())?
                .or_else(|| variable(PASSWORD_VARIABLE))
                .ok_or(Error::NotSet { what: "password", key: "password_file or RALLY_PASSWORD" })?;
            return Ok(Credentials::Basic { username: username.clone(), password });
        }
        let key = from_file_or(self.api_key_file.as_ref(), "rally.api_key_file", self.api_key.as_ref())?
            .or_else(|| variable(KEY_VARIABLE))
            .ok_or(Error::NotSet { what: "credentials", key: "api_key_file (or username and password_file)" })?;
        if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let file = self.api_key_file.as_ref().map(|file| file.display().to_string());
            return Err(Error::NotAKey { source_name: file.unwrap_or_else(|| "rally.api_key".into()) });
        }
        Ok(Credentials::ApiKey(key))
    }
}

impl Authors {
    /// Reads the map from authors, in lower case, to users of Rally, if one is configured.
    pub(crate) fn map(&self) -> Result<HashMap<String, String>, Error> {
        let Some(path) = &self.map_file else { return Ok(HashMap::new()) };
        let text = String::from_utf8(read("authors.map_file", path)?)
            .map_err(|_| Error::AuthorMap { path: path.clone(), problem: "it is not UTF-8".into() })?;
        let map: HashMap<String, String> = toml::from_str(&text)
            .map_err(|error| Error::AuthorMap { path: path.clone(), problem: error.message().to_owned() })?;
        Ok(map.into_iter().map(|(author, user)| (author.to_lowercase(), user)).collect())
    }
}

fn certificates(path: &Path) -> Result<Vec<u8>, Error> {
    let pem = read("rally.ca_file", path)?;
    let is_pem = pem.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE);
    if is_pem { Ok(pem) } else { Err(Error::NoCertificate(path.to_owned())) }
}

/// Reads the file that a key names.
fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::NamedFile { key, path: path.to_owned(), source })
}

fn from_file_or(file: Option<&PathBuf>, key: &'static str, value: Option<&Secret>) -> Result<Option<Secret>, Error> {
    let Some(path) = file else { return Ok(value.cloned()) };
    check_private(path)?;
    let text = String::from_utf8_lossy(&read(key, path)?).into_owned();
    match text.trim() {
        "" => Err(Error::EmptySecret { key, path: path.clone() }),
        secret => Ok(Some(Secret::new(secret))),
    }
}

/// Makes sure that only its owner may read the file. A file of another owner (root's, as a rule) may also be read
/// by its group, since that is how it reaches us.
pub(super) fn check_private(path: &Path) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mode = meta.mode() & 0o777;
    let forbidden = if meta.uid() == effective_user() { 0o077 } else { 0o027 };
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
        let error = rally.credentials().expect_err("readable by all").to_string();
        assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        let Ok(Credentials::ApiKey(key)) = rally.credentials() else { panic!("no key") };
        assert_eq!(key.expose(), "_secret");
        assert_eq!(format!("{key:?}"), "[redacted]");
    }
}
