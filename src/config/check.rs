//! What no type can tell of the configuration: values that make no sense, alone or together.

use std::path::Path;

use super::{Config, Error, Rally};
use crate::links::{self, Links};

impl Config {
    /// Checks what the keys say together, and what no type can tell. The files are for messages.
    pub(super) fn check(&self, files: &[(&Path, String)]) -> Result<(), Error> {
        self.problem().map_or(Ok(()), |(key, problem)| {
            let places = files.iter().rev().map(|(path, text)| (path, line_of(text, key)));
            let (path, line) = places.max_by_key(|(_, line)| line.is_some()).expect("there is a file");
            Err(Error::Invalid { path: path.to_path_buf(), line, key, problem })
        })
    }

    /// Returns the first key that does not say what can be done, and why not.
    fn problem(&self) -> Option<(&'static str, String)> {
        let Config { rally, repository, commits, queue, log, .. } = self;
        let wrong = |is_wrong: bool, key, problem: &str| is_wrong.then(|| (key, problem.to_owned()));
        let prefix = commits.prefixes.iter().find(|prefix| !is_prefix(prefix));
        let templates = [
            ("repository.commit_link", &repository.commit_link, &["{revision}"][..]),
            ("repository.file_link", &repository.file_link, &["{revision}", "{path}"]),
        ];
        let template_problem = |(key, template, places): (_, &Option<String>, &[&str])| {
            let template = template.as_ref()?;
            match (places.iter().find(|place| !template.contains(**place)), links::unknown_place(template)) {
                (Some(missing), _) => Some((key, format!("it lacks {missing}, so all would lead to one page"))),
                (None, Some(place)) => Some((key, format!("{place} is none of the places that are filled"))),
                (None, None) => None,
            }
        };
        let is_web = |web: &String| web.starts_with("https://") || web.starts_with("http://");
        let delay = "it must not be 0: failed attempts would follow each other at once";
        let name = "it is empty; leave the key out to use the directory's name";
        let custom = "\"custom\" needs commit_link, for example \"https://host/{revision}\"";
        let is_custom = repository.links == Links::Custom && repository.commit_link.is_none();
        rally
            .server_problem()
            .map(|problem| ("rally.server", problem))
            .or(wrong(rally.timeout.is_zero(), "rally.timeout", "it must not be 0: no answer would be in time"))
            .or(wrong(rally.max_concurrent_requests == 0, "rally.max_concurrent_requests", "it must be at least 1"))
            .or(wrong(queue.retry_delay.is_zero(), "queue.retry_delay", delay))
            .or(prefix.map(|prefix| ("commits.prefixes", format!("{prefix:?} is not made of letters, as in \"US\""))))
            .or(wrong(
                commits.prefixes.is_empty(),
                "commits.prefixes",
                "it is empty, so no commit could name an artifact",
            ))
            .or(wrong(commits.refs.is_empty(), "commits.refs", "it is empty, so nothing would ever be posted"))
            .or(wrong(repository.name.as_deref() == Some(""), "repository.name", name))
            .or(wrong(
                repository.web.as_ref().is_some_and(|web| !is_web(web)),
                "repository.web",
                "it is no address; one begins with https://",
            ))
            .or(wrong(is_custom, "repository.links", custom))
            .or_else(|| templates.into_iter().find_map(template_problem))
            .or(wrong(log.file.as_os_str().is_empty(), "log.file", "it is empty; leave the key out for rally-hook/log"))
            .or_else(|| rally.credentials_problem())
    }
}

/// Returns the line of a file on which `section.key` stands.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (wanted, key) = key.split_once('.')?;
    let mut section = "";
    let mut lines = text.lines().map(str::trim);
    let at = lines.position(|line| {
        if let Some(name) = line.strip_prefix('[') {
            section = name.split(']').next().unwrap_or_default().trim();
        }
        section == wanted && line.split('=').next().is_some_and(|name| name.trim() == key)
    })?;
    Some(at + 1)
}

impl Rally {
    /// Says what is wrong with the server's address. A secret must not travel unencrypted, except within the machine.
    fn server_problem(&self) -> Option<String> {
        let Ok(url) = reqwest::Url::parse(&self.server) else {
            return Some("it is no address; one looks like \"https://rally1.rallydev.com\"".into());
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Some("it holds a user name or password; set username and password_file instead".into());
        }
        if url.path().starts_with("/slm") {
            return Some("it ends with the host; leave out /slm and what follows".into());
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        match url.scheme() {
            "https" => None,
            "http" if loopback => None,
            "http" => Some(format!("{} would send the credentials unencrypted; use https://", self.server)),
            other => Some(format!("{other}:// is not supported; use https://")),
        }
    }

    fn credentials_problem(&self) -> Option<(&'static str, String)> {
        let key = self.api_key.is_some() || self.api_key_file.is_some();
        match self {
            _ if key && self.username.is_some() => {
                Some(("rally.username", "an API key is set too; keep one of the two".into()))
            }
            Rally { api_key: Some(_), api_key_file: Some(_), .. } => {
                Some(("rally.api_key", "api_key_file is set too; keep one of the two".into()))
            }
            Rally { password: Some(_), password_file: Some(_), .. } => {
                Some(("rally.password", "password_file is set too; keep one of the two".into()))
            }
            _ => None,
        }
    }
}

fn is_prefix(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}
