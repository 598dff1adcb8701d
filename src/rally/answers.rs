//! Rally's answers that seldom change. They are remembered for a day, for all repositories of this host that ask the same
//! server in the same way as the same user; where the host has no place for them, in the repository's own queue.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::{ANSWERS_KEPT, Error};
use crate::config::{self, Access, Credentials};
use crate::queue::{self, Host, WorkQueue};
use crate::time::Time;
use crate::wsapi::relative;

pub(super) struct Answers {
    host: Option<Host>,
    source: String,
}

impl Answers {
    /// Finds what is remembered of the answers to these credentials.
    pub(super) fn of(rally: &config::Rally, access: &Access) -> Self {
        Answers { host: Host::open().ok(), source: source(rally, access) }
    }

    /// Returns a remembered answer, if it is not older than `since`.
    pub(super) fn cached(
        &self,
        queue: &dyn WorkQueue,
        kind: &str,
        key: &str,
        since: Time,
    ) -> Result<Option<String>, queue::Error> {
        match self.host.as_ref().and_then(|host| host.answer(&self.source, kind, key, since)) {
            Some(answer) => Ok(answer),
            None => queue.cached(kind, key, since),
        }
    }

    /// Returns a remembered reference to an object, if it is one and not older than a day.
    pub(super) fn cached_ref(
        &self,
        queue: &dyn WorkQueue,
        kind: &str,
        key: &str,
        now: Time,
    ) -> Result<Option<String>, queue::Error> {
        Ok(self.cached(queue, kind, key, now - ANSWERS_KEPT)?.filter(|text| is_ref(text)))
    }

    pub(super) fn remember(
        &self,
        queue: &mut dyn WorkQueue,
        kind: &str,
        answers: &[(String, String)],
        at: Time,
    ) -> Result<(), queue::Error> {
        match self.host.as_ref().and_then(|host| host.keep(&self.source, kind, answers, at)) {
            Some(()) => Ok(()),
            None => queue.remember(kind, answers, at),
        }
    }

    /// Forgets an answer, wherever it is remembered.
    pub(super) fn forget(&self, queue: &mut dyn WorkQueue, kind: &str, key: &str) -> Result<(), queue::Error> {
        self.host.as_ref().and_then(|host| host.forget(&self.source, kind, key));
        queue.forget(kind, key)
    }

    /// Returns a remembered answer, or asks for it and remembers it.
    pub(super) fn remembered<T: Serialize + DeserializeOwned>(
        &self,
        queue: &mut dyn WorkQueue,
        kind: &str,
        key: &str,
        now: Time,
        ask: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = self.cached(queue, kind, key, now - ANSWERS_KEPT)?;
        if let Some(answer) = answer.and_then(|json| serde_json::from_str(&json).ok()) {
            return Ok(answer);
        }
        let answer = ask()?;
        let json = serde_json::to_string(&answer).expect("plain data becomes JSON");
        self.remember(queue, kind, &[(key.to_owned(), json)], now)?;
        Ok(answer)
    }

    /// Returns what another repository of the host has told of something that it keeps in its own queue.
    pub(super) fn told(&self, kind: &str, key: &str, now: Time) -> Option<String> {
        self.host.as_ref()?.answer(&self.source, kind, key, now - ANSWERS_KEPT)?
    }

    /// Tells the other repositories of the host.
    pub(super) fn tell(&self, kind: &str, key: &str, value: &str, now: Time) {
        let told = [(key.to_owned(), value.to_owned())];
        self.host.as_ref().and_then(|host| host.keep(&self.source, kind, &told, now));
    }
}

/// Returns what decides who answers, and to whom. A repository's own file may set any of it, and then shares no answers
/// with those that do not set the same. `rally.account` is not a part: anybody may set that.
fn source(rally: &config::Rally, access: &Access) -> String {
    let user = match &access.credentials {
        Credentials::ApiKey(key) => ("key", key.expose()),
        Credentials::Basic { username, .. } => ("user", username.as_str()),
    };
    let proxy = rally.proxy.as_ref().map(|proxy| proxy.expose());
    let mut hasher = DefaultHasher::new();
    (&rally.server, user, proxy, &access.certificates).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Reads a reference to an object. Others may have written what is remembered.
pub(super) fn sound_ref<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    let text = String::deserialize(reader)?;
    if is_ref(&text) { Ok(text) } else { Err(D::Error::custom("no reference to an object")) }
}

/// Reads the path of a type, of which addresses are made.
pub(super) fn sound_path<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    let path = String::deserialize(reader)?;
    if is_ref(&format!("/{path}/1")) { Ok(path) } else { Err(D::Error::custom("no path of a type")) }
}

/// Tells whether a text is a reference to an object as we keep it.
pub(super) fn is_ref(text: &str) -> bool {
    relative(text).as_deref() == Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn key_of(rally: &config::Rally, credentials: Credentials, certificates: Option<&[u8]>) -> String {
        let certificates = certificates.map(<[u8]>::to_vec);
        source(rally, &Access { credentials, certificates, workspace: String::new() })
    }

    #[test]
    fn whoever_reaches_the_server_in_another_way_or_as_another_user_shares_no_answers() {
        let basic = |username: &str, password: &str| Credentials::Basic {
            username: username.to_owned(),
            password: Secret::new(password),
        };
        let direct = config::Rally::default();
        let proxied = config::Rally { proxy: Some(Secret::new("http://proxy")), ..config::Rally::default() };
        let elsewhere = config::Rally { server: "https://other".to_owned(), ..config::Rally::default() };
        let first = key_of(&direct, basic("a", "1"), None);
        assert_eq!(key_of(&direct, basic("a", "2"), None), first, "the server knows its users");
        let others = [
            key_of(&direct, basic("b", "1"), None),
            key_of(&direct, Credentials::ApiKey(Secret::new("a")), None),
            key_of(&direct, basic("a", "1"), Some(b"certificate")),
            key_of(&proxied, basic("a", "1"), None),
            key_of(&elsewhere, basic("a", "1"), None),
        ];
        assert!(!others.contains(&first), "{others:?}");
    }

    #[test]
    fn what_others_have_written_is_not_taken_for_an_answer() {
        use crate::rally::ArtifactType;
        let is_read = |path: &str, rally_ref: &str| {
            let json = serde_json::json!({"prefix": "DE", "path": path, "rally_ref": rally_ref});
            serde_json::from_value::<ArtifactType>(json).is_ok()
        };
        assert!(is_read("portfolioitem/feature", "/typedefinition/1"));
        assert!(!is_read("defect/../user", "/typedefinition/1") && !is_read("defect", "https://h/typedefinition/1"));
    }

    #[test]
    fn what_is_no_reference_is_not_taken_for_one() {
        assert!(is_ref("/defect/17") && is_ref("/portfolioitem/feature/17"));
        for text in ["", "17", "/defect/../user/1", "/defect/1?x=y", "https://h/slm/webservice/v2.0/defect/17"] {
            assert!(!is_ref(text), "{text}");
        }
    }
}
