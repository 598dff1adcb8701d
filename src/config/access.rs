//! What the files and variables hold that `[rally]`, `[authors]` and `[tfvc]` name: secrets, certificates, the map of
//! authors. Secrets are kept out of everything that is shown or stored.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::merge::Withheld;
use super::{Authors, Error, Rally, Tfvc};
use crate::environment::{self, KEY_VARIABLE, PASSWORD_VARIABLE};
use crate::files::{self, Links, Owners};

/// Longer files are refused, in bytes.
const MAX_SIZE: u64 = 16 * 1024 * 1024;
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

/// What the files that a configuration names are trusted with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trust {
    /// A file that is named below it must really lie there: a link may not lead elsewhere.
    pub(super) repo_dir: Option<PathBuf>,
    pub(super) owners: Owners,
    /// Whether Rally's credentials, or the token of a TFVC server, belong to another destination.
    pub(super) withheld: Option<Withheld>,
    pub(super) withheld_token: Option<Withheld>,
}

impl Default for Trust {
    fn default() -> Self {
        Trust { repo_dir: None, owners: Owners::of_system(), withheld: None, withheld_token: None }
    }
}

impl Trust {
    /// Reads the file that a key names.
    fn read(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
        let path = self.repo_dir.as_deref().unwrap_or(Path::new("")).join(path);
        let within = self.repo_dir.as_deref().filter(|dir| path.starts_with(dir));
        let links = within.map_or(Links::Follow, |_| Links::Refuse);
        let read = files::read_trusted(&path, MAX_SIZE, links, self.owners, within);
        read.map_err(|source| Error::NamedFile { key, source })
    }

    fn secret_in(&self, key: &'static str, path: &Path) -> Result<Secret, Error> {
        check_private(path)?;
        let text = String::from_utf8_lossy(&self.read(key, path)?).into_owned();
        match text.trim() {
            secret if secret.is_empty() || secret.contains(char::is_control) => {
                Err(Error::NotOneLine { key, path: path.to_owned() })
            }
            secret => Ok(Secret::new(secret)),
        }
    }

    fn certificates(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
        let pem = self.read(key, path)?;
        let is_pem = pem.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE);
        if is_pem { Ok(pem) } else { Err(Error::NoCertificate { key, path: path.to_owned() }) }
    }

    /// Returns a secret of the environment, unless it belongs to another destination.
    fn variable(&self, name: &str) -> Option<Secret> {
        self.withheld.is_none().then(|| environment::secret(name)).flatten().map(Secret)
    }

    fn not_set(&self, what: &'static str, key: &'static str) -> Error {
        match self.withheld.clone() {
            Some(withheld) => Error::Withheld { what, key, withheld },
            None => Error::NotSet { what, key },
        }
    }
}

impl Rally {
    /// Reads what `[rally]` and the environment name.
    ///
    /// # Errors
    /// If credentials or the workspace are not set, or a file cannot be read, may be read by others or is not ours.
    pub(crate) fn access(&self) -> Result<Access, Error> {
        let credentials = self.credentials()?;
        let certificates =
            self.ca_file.as_ref().map(|path| self.trust.certificates("rally.ca_file", path)).transpose()?;
        let workspace =
            self.workspace.clone().ok_or(Error::NotSet { what: "workspace", key: "workspace to its name" })?;
        Ok(Access { credentials, certificates, workspace })
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        let in_file =
            |key, file: &Option<PathBuf>| file.as_ref().map(|path| self.trust.secret_in(key, path)).transpose();
        if let Some(username) = &self.username {
            let password = in_file("rally.password_file", &self.password_file)?
                .or_else(|| self.password.clone())
                .or_else(|| self.trust.variable(PASSWORD_VARIABLE))
                .ok_or_else(|| self.trust.not_set("password", "password_file or RALLY_PASSWORD"))?;
            return Ok(Credentials::Basic { username: username.clone(), password });
        }
        let key = in_file("rally.api_key_file", &self.api_key_file)?
            .or_else(|| self.api_key.clone())
            .or_else(|| self.trust.variable(KEY_VARIABLE))
            .ok_or_else(|| self.trust.not_set("credentials", "api_key_file (or username and password_file)"))?;
        if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let file = self.api_key_file.as_ref().map(|file| file.display().to_string());
            return Err(Error::NotAKey { source_name: file.unwrap_or_else(|| "rally.api_key".into()) });
        }
        Ok(Credentials::ApiKey(key))
    }

    /// Tells whether there are credentials, whether or not they can be read.
    pub(crate) fn has_credentials(&self) -> bool {
        !matches!(self.credentials(), Err(Error::NotSet { .. } | Error::Withheld { .. }))
    }

    /// Returns what differs when credentials do, also within one account. It is not to be shown or stored.
    pub(crate) fn fingerprint(&self) -> String {
        match self.credentials() {
            Ok(Credentials::ApiKey(key)) => key.expose().to_owned(),
            Ok(Credentials::Basic { username, password }) => format!("{username}\n{}", password.expose()),
            Err(error) => error.to_string(),
        }
    }

    /// Returns what stands for the account where others can read it: it tells nothing of the credentials.
    ///
    /// # Errors
    /// As [`access`](Self::access) has them.
    pub(crate) fn account_digest(&self) -> Result<String, Error> {
        let digest = Sha256::digest(self.account(&self.credentials()?));
        Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the name by which requests are counted: Rally's user, as far as it is known.
    pub(crate) fn account(&self, credentials: &Credentials) -> String {
        match (&self.account, credentials) {
            (Some(account), _) => account.clone(),
            (None, Credentials::ApiKey(key)) => format!("{} {}", self.server, key.expose()),
            (None, Credentials::Basic { username, .. }) => format!("{} {username}", self.server),
        }
    }
}

/// What is needed to read the changesets of a TFVC server.
#[derive(Debug, Clone)]
pub(crate) struct TfvcAccess {
    /// The address of the collection, without a slash at the end.
    pub collection: String,
    pub project: String,
    /// Begins with `$/` and has no slash at the end.
    pub path: String,
    pub token: Secret,
    pub certificates: Option<Vec<u8>>,
}

impl Tfvc {
    /// Reads what `[tfvc]` names.
    ///
    /// # Errors
    /// If a key is not set, or a file cannot be read, may be read by others or is not ours.
    pub(crate) fn access(&self) -> Result<TfvcAccess, Error> {
        let set = |key, value: &Option<String>| value.clone().ok_or(Error::TfvcNotSet { key });
        let collection = set("collection", &self.collection)?.trim_end_matches('/').to_owned();
        let project = set("project", &self.project)?;
        let path = self.path.clone().unwrap_or_else(|| format!("$/{project}")).trim_end_matches('/').to_owned();
        let token = match (&self.token_file, self.trust.withheld_token.clone()) {
            (Some(file), _) => self.trust.secret_in("tfvc.token_file", file)?,
            (None, Some(withheld)) => return Err(Error::TokenWithheld(withheld)),
            (None, None) => return Err(Error::TfvcNotSet { key: "token_file" }),
        };
        let ca_file = self.ca_file.as_ref();
        let certificates = ca_file.map(|path| self.trust.certificates("tfvc.ca_file", path)).transpose()?;
        Ok(TfvcAccess { collection, project, path, token, certificates })
    }
}

/// What is needed to connect to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreAccess {
    pub address: Secret,
    pub password: Option<Secret>,
    /// Certificates to trust besides the system's, as PEM.
    pub certificates: Option<Vec<u8>>,
}

impl super::Queue {
    /// Reads what `queue.store…` names, if there is a ledger.
    ///
    /// # Errors
    /// If a file cannot be read, may be read by others or is not ours.
    pub(crate) fn store_access(&self) -> Result<Option<StoreAccess>, Error> {
        let Some(address) = self.store.clone() else { return Ok(None) };
        let (password_file, ca_file) = (self.store_password_file.as_ref(), self.store_ca_file.as_ref());
        let password = password_file.map(|path| self.trust.secret_in("queue.store_password_file", path)).transpose()?;
        let certificates = ca_file.map(|path| self.trust.certificates("queue.store_ca_file", path)).transpose()?;
        Ok(Some(StoreAccess { address, password, certificates }))
    }
}

impl Authors {
    /// Reads the map from authors, in lower case, to users of Rally, if one is configured.
    pub(crate) fn map(&self) -> Result<HashMap<String, String>, Error> {
        let Some(path) = &self.map_file else { return Ok(HashMap::new()) };
        let problem = |problem: String| Error::AuthorMap { path: path.clone(), problem };
        let text = String::from_utf8(self.trust.read("authors.map_file", path)?)
            .map_err(|_| problem("it is not UTF-8".into()))?;
        let map: HashMap<String, String> = toml::from_str(&text).map_err(|error| {
            // The parser's message may repeat what it found, and the file need not be a map at all.
            let start = error.span().map_or(0, |span| span.start);
            let line = text[..start].matches('\n').count() + 1;
            problem(format!("line {line} is not of the form \"Name <address>\" = \"user name\""))
        })?;
        Ok(map.into_iter().map(|(author, user)| (author.to_lowercase(), user)).collect())
    }
}

/// Makes sure that only its owner and its group may read the file, and only its owner may write it. Several users who
/// run hooks share a secret by a group, so the rule is the same for whoever owns it.
pub(super) fn check_private(path: &Path) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(|source| files::Error::Read { path: path.to_owned(), source })?;
    let mode = meta.mode() & 0o777;
    if mode & 0o027 == 0 { Ok(()) } else { Err(Error::NotPrivate { path: path.to_owned(), mode }) }
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
        let path_text = path.display();
        for mode in [0o604, 0o644, 0o660, 0o606] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let error = rally.credentials().expect_err("others may read or write it").to_string();
            let cure = format!("run: chmod 600 {path_text}, or chmod 640 {path_text} if its group is to read it");
            assert!(error.ends_with(&cure), "{error}");
        }
    }

    #[test]
    fn a_secret_may_be_read_by_its_owner_and_its_group() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("api-key");
        fs::write(&path, "_secret\n").expect("a file");
        let rally = Rally { api_key_file: Some(path.clone()), ..Rally::default() };
        for mode in [0o400, 0o440, 0o600, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let Ok(Credentials::ApiKey(key)) = rally.credentials() else { panic!("no key") };
            assert_eq!(key.expose(), "_secret");
            assert_eq!(format!("{key:?}"), "[redacted]");
        }
    }
}
