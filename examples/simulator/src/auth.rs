//! Who is asking: API keys, passwords, sessions and the security tokens bound to them.

use crate::http::Request;
use crate::world::{Account, ApiKey, World};
use std::collections::{BTreeMap, HashMap};

/// The answer to a write without the right to write.
pub const INVALID_KEY: &str = "Not authorized to perform action: Invalid key";

/// The page that comes with HTTP 401.
pub const UNAUTHORIZED_PAGE: &str = "<html><head><title>Error 401</title></head><body>\
     <h2>Error 401 The username or password you entered is incorrect.</h2></body></html>";

/// Somebody whose credentials are right.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: u64,
    /// The workspaces it sees; the first is its default.
    pub workspaces: Vec<u64>,
    pub default_project: u64,
    /// The session of the request.
    pub session: String,
    pub session_is_new: bool,
    credential: Credential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential {
    Password,
    Key,
    ReadOnlyKey,
    /// A key together with the cookie of somebody else.
    MixedKey,
}

/// The sessions that were begun.
#[derive(Debug, Default)]
pub struct Sessions {
    all: HashMap<String, Session>,
    tokens_made: usize,
}

#[derive(Debug)]
struct Session {
    user: u64,
    token: Option<Token>,
}

#[derive(Debug)]
struct Token {
    text: String,
    /// How many writes it is still good for.
    writes_left: usize,
}

impl Sessions {
    /// Returns who is asking, or `None` if that deserves HTTP 401.
    pub fn identify(&mut self, world: &World, request: &Request) -> Option<Caller> {
        let (account, mut credential) = credentials(world, request)?;
        let cookie = request.cookie("JSESSIONID");
        let known = cookie.and_then(|id| Some((id.to_owned(), self.all.get(id)?.user)));
        let (session, session_is_new) = match known {
            Some((id, user)) if user == account.user => (id, false),
            Some((id, _)) if credential != Credential::Password => {
                credential = Credential::MixedKey;
                (id, false)
            }
            _ => (self.begin(account.user), true),
        };
        Some(Caller {
            user: account.user,
            workspaces: account.workspaces.clone(),
            default_project: account.default_project,
            session,
            session_is_new,
            credential,
        })
    }

    fn begin(&mut self, user: u64) -> String {
        let id = format!("node0simulator{:08x}", self.all.len() + 1);
        self.all.insert(id.clone(), Session { user, token: None });
        id
    }

    /// Makes a new security token for the session of the caller.
    pub fn authorize(&mut self, caller: &Caller, lifetime: Option<usize>) -> String {
        self.tokens_made += 1;
        let text = format!("1f6c0f5e-0000-4000-8000-{:012x}", self.tokens_made);
        if let Some(session) = self.all.get_mut(&caller.session) {
            session.token = Some(Token { text: text.clone(), writes_left: lifetime.unwrap_or(usize::MAX) });
        }
        text
    }

    /// Checks that the caller may write, and counts the use of its token.
    pub fn may_write(&mut self, caller: &Caller, parameters: &BTreeMap<String, String>) -> bool {
        match caller.credential {
            Credential::Key => true,
            Credential::ReadOnlyKey | Credential::MixedKey => false,
            Credential::Password => {
                let session = self.all.get_mut(&caller.session);
                let token = session.and_then(|session| session.token.as_mut());
                token.is_some_and(|token| {
                    let is_good = token.writes_left > 0 && parameters.get("key") == Some(&token.text);
                    if is_good && token.writes_left != usize::MAX {
                        token.writes_left -= 1;
                    }
                    is_good
                })
            }
        }
    }

    /// Makes the token of the session worthless.
    pub fn expire(&mut self, caller: &Caller) {
        if let Some(session) = self.all.get_mut(&caller.session) {
            session.token = None;
        }
    }
}

fn credentials<'a>(world: &'a World, request: &Request) -> Option<(&'a Account, Credential)> {
    let authorization = request.header("Authorization").and_then(|value| value.split_once(' '));
    let bearer = authorization.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
    let key = request.header("ZSESSIONID").or(bearer.map(|(_, key)| key)).or(request.cookie("ZSESSIONID"));
    if let Some(key) = key {
        return with_key(world, key);
    }
    let (_, encoded) = authorization.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Basic"))?;
    let decoded = String::from_utf8(base64(encoded.trim())?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    world
        .accounts
        .iter()
        .find(|account| account.user_name == name)
        .filter(|account| !account.password.is_empty() && account.password == password)
        .map(|account| (account, Credential::Password))
}

fn with_key<'a>(world: &'a World, text: &str) -> Option<(&'a Account, Credential)> {
    world.accounts.iter().find_map(|account| {
        let key: &ApiKey = account.keys.iter().find(|key| key.text == text)?;
        let credential = if key.is_read_only { Credential::ReadOnlyKey } else { Credential::Key };
        Some((account, credential))
    })
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == byte)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "Basic Y29ubmVjdG9yQGFjbWUuZXhhbXBsZTpzZWNyZXQtcGFzc3dvcmQ=";

    fn request(headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Request { headers: headers.collect(), ..Request::default() }
    }

    #[test]
    fn keys_and_passwords_are_taken_where_clients_put_them() {
        let (world, mut sessions) = (World::default(), Sessions::default());
        for (name, value, is_known) in [
            ("zsessionid", "_full-access-key", true),
            ("ZSESSIONID", "_read-only-key", true),
            ("Authorization", "Bearer _full-access-key", true),
            ("Cookie", "a=b; ZSESSIONID=_full-access-key", true),
            ("Authorization", PASSWORD, true),
            ("ZSESSIONID", "full-access-key", false),
            ("ZSESSIONID", "", false),
            ("Authorization", "Basic Y29ubmVjdG9yQGFjbWUuZXhhbXBsZTp4", false),
            ("Authorization", "Basic !", false),
            ("Cookie", "JSESSIONID=x", false),
        ] {
            let caller = sessions.identify(&world, &request(&[(name, value)]));
            assert_eq!(caller.is_some(), is_known, "{name}: {value}");
        }
    }

    #[test]
    fn only_full_access_keys_write() {
        let (world, mut sessions) = (World::default(), Sessions::default());
        for (key, may_write) in [("_full-access-key", true), ("_read-only-key", false)] {
            let caller = sessions.identify(&world, &request(&[("ZSESSIONID", key)])).expect("known");
            assert_eq!(sessions.may_write(&caller, &BTreeMap::new()), may_write);
        }
        let theirs = sessions.identify(&world, &request(&[("ZSESSIONID", "_outsider-key")])).expect("known");
        let cookie = format!("JSESSIONID={}", theirs.session);
        let mixed = request(&[("ZSESSIONID", "_full-access-key"), ("Cookie", &cookie)]);
        let mixed = sessions.identify(&world, &mixed).expect("known");
        assert!(!sessions.may_write(&mixed, &BTreeMap::new()));
    }

    #[test]
    fn a_token_belongs_to_its_session_and_wears_out() {
        let (world, mut sessions) = (World::default(), Sessions::default());
        let first = sessions.identify(&world, &request(&[("Authorization", PASSWORD)])).expect("known");
        let token = BTreeMap::from([("key".to_owned(), sessions.authorize(&first, Some(1)))]);
        assert!(!sessions.may_write(&first, &BTreeMap::new()));
        let other = sessions.identify(&world, &request(&[("Authorization", PASSWORD)])).expect("known");
        assert!(!sessions.may_write(&other, &token));
        let cookie = format!("JSESSIONID={}", first.session);
        let again = request(&[("Authorization", PASSWORD), ("Cookie", &cookie)]);
        let again = sessions.identify(&world, &again).expect("known");
        assert!(!again.session_is_new);
        assert!(sessions.may_write(&again, &token));
        assert!(!sessions.may_write(&again, &token));
    }
}
