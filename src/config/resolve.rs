//! Turns what the files say into settings, and checks what no type can tell: values that make no sense, alone or
//! together.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::layer::{Layer, holder};
use super::{Config, Error, Rally, Trust, placeholders};
use crate::links::Links;
use crate::text::cut;

/// Rally serves no more requests of one user at the same time; it slows down what exceeds them (docs/wsapi.md, 6.1).
const MOST_REQUESTS: usize = 12;

/// Rally ends any request after some minutes (docs/wsapi.md, 6.1).
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// More or longer prefixes are no workspace's, and could make a pattern that is too large to search for.
const MOST_PREFIXES: usize = 100;
const LONGEST_PREFIX: usize = 20;

/// Returns the settings. The layers are for messages: of several that hold a key, the last one counts.
pub(super) fn resolve(merged: toml::Table, layers: Vec<Layer>, trust: Trust) -> Result<Config, Error> {
    let unknown = placeholders::unknown(&merged);
    let mut config: Config = match merged.try_into() {
        Ok(config) => config,
        // Only a layer by itself can tell which line is wrong.
        Err(error) => {
            let merged = Error::parse(&error, "", &layers[0].path);
            return Err(layers.into_iter().rev().find_map(|layer| layer.alone.err()).unwrap_or(merged));
        }
    };
    let Some((key, problem)) = unknown.or_else(|| config.problem()) else {
        if let Some(repo_dir) = &trust.repo_dir {
            config.repository.fill(repo_dir, None);
        }
        (config.rally.trust, config.authors.trust) = (trust.clone(), trust.clone());
        (config.queue.trust, config.tfvc.trust) = (trust.clone(), trust);
        config.rally.server = canonical(&config.rally.server);
        return Ok(config);
    };
    Err(holder(&layers, &key).expect("the defaults are right").invalid(&key, problem))
}

impl Config {
    /// Returns the first key that does not say what can be done, and why not.
    fn problem(&self) -> Option<(String, String)> {
        let is_unlinked = self.repository.links == Links::Custom && self.repository.commit_link.is_none();
        let problem = "\"custom\" needs commit_link, such as \"https://host/{revision}\"";
        self.wrong_value().or_else(|| is_unlinked.then(|| ("repository.links".to_owned(), problem.to_owned())))
    }

    /// Does the same for what is wrong whatever other files and blocks say.
    pub(super) fn wrong_value(&self) -> Option<(String, String)> {
        let Config { rally, repository, commits, authors, queue, log, tfvc, .. } = self;
        let when = |is_wrong: bool, problem: &str| is_wrong.then(|| problem.to_owned());
        let ignored = commits.ignore.iter().find(|id| !is_id(id));
        let checks = [
            ("rally.server", server_problem(&rally.server)),
            ("rally.proxy", rally.proxy.as_ref().and_then(|proxy| proxy_problem(proxy.expose(), &rally.server))),
            ("rally.account", when(rally.account.as_deref() == Some(""), "it is empty; leave the key out")),
            ("rally.timeout", timeout_problem(rally.timeout)),
            ("rally.max_concurrent_requests", requests_problem(rally.max_concurrent_requests)),
            ("queue.dir", queue.dir.as_deref().and_then(|dir| absolute_problem(dir, "/var/lib/rally-hook/queues"))),
            ("queue.store", queue.store.as_ref().and_then(|store| store_problem(store.expose()))),
            ("queue.retry_delay", when(queue.retry_delay.is_zero(), "it must not be 0: attempts would never pause")),
            ("commits.prefixes", prefixes_problem(&commits.prefixes)),
            (
                "commits.ignore",
                ignored.map(|id| format!("{id:?} is not an ID; write prefix and number, as in \"DS1307\"")),
            ),
            ("commits.refs", when(commits.refs.is_empty(), "it is empty: nothing would ever be posted")),
            (
                "repository.name",
                when(repository.name.is_empty(), "it is empty; leave the key out to use the directory's name"),
            ),
            ("repository.root", repository.root.as_deref().and_then(|root| absolute_problem(root, "/srv/git"))),
            ("repository.web", repository.web.as_deref().and_then(web_problem)),
            ("repository.commit_link", template_problem(repository.commit_link.as_deref(), &["revision"])),
            ("repository.file_link", template_problem(repository.file_link.as_deref(), &["revision", "path"])),
            ("authors.domain", authors.domain.as_deref().and_then(domain_problem)),
            ("log.file", when(log.file.as_os_str().is_empty(), "it is empty; leave the key out for rally-hook/log")),
            ("tfvc.collection", tfvc.collection.as_deref().and_then(collection_problem)),
            ("tfvc.project", tfvc.project.as_deref().and_then(project_problem)),
            ("tfvc.path", tfvc.path.as_deref().and_then(server_path_problem)),
            ("tfvc.every", when(tfvc.every.is_zero(), "it must not be 0: the server would never rest")),
        ];
        let problem = checks.into_iter().find_map(|(key, problem)| Some((key, problem?)));
        problem.or_else(|| credentials_problem(rally)).map(|(key, problem)| (key.to_owned(), problem))
    }
}

/// Says what is wrong with the server's address. A secret must not travel unencrypted, except within the machine.
fn server_problem(server: &str) -> Option<String> {
    let Ok(url) = Url::parse(server) else {
        return Some("it is not an address; write one such as \"https://rally1.rallydev.com\"".into());
    };
    if has_login(&url) {
        return Some("it has a user name or password in it; set username and password_file instead".into());
    }
    if url.path().starts_with("/slm") {
        return Some("it must end with the host; leave out /slm and what follows".into());
    }
    scheme_problem(&url, server)
}

fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn scheme_problem(url: &Url, server: &str) -> Option<String> {
    match url.scheme() {
        "https" => None,
        "http" if is_loopback(url) => None,
        "http" => Some(format!("{server} would send the credentials unencrypted; use https://")),
        other => Some(format!("{other}:// is not supported; use https://")),
    }
}

/// Says what is wrong with the address of a collection.
fn collection_problem(collection: &str) -> Option<String> {
    let example = "such as \"https://tfs.acme.example/tfs/DefaultCollection\"";
    let Some(url) = Url::parse(collection).ok().filter(Url::has_host) else {
        return Some(format!("it is not an address; write one {example}"));
    };
    if has_login(&url) {
        return Some("it has a user name or password in it; set token_file instead".into());
    }
    if url.query().is_some() || url.fragment().is_some() || url.path().contains("/_") {
        return Some(format!("it must end with the collection, {example}"));
    }
    scheme_problem(&url, collection)
}

fn project_problem(project: &str) -> Option<String> {
    let is_name = !project.is_empty() && !project.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    (!is_name).then(|| format!("{project:?} is not the name of a project"))
}

fn server_path_problem(path: &str) -> Option<String> {
    let is_path = path.starts_with("$/") && !path.contains(char::is_control);
    (!is_path).then(|| format!("{path:?} is not a path on the server; it begins with $/, as in \"$/Project/main\""))
}

/// Returns an address as its standard spells it, without a slash at the end.
fn canonical(server: &str) -> String {
    let parsed = Url::parse(server).map_or_else(|_| server.to_owned(), String::from);
    parsed.trim_end_matches('/').to_owned()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Says what is wrong with a proxy's address. It may hold a password, so no text repeats it.
fn proxy_problem(proxy: &str, server: &str) -> Option<String> {
    let Some(proxy) = Url::parse(proxy).ok().filter(Url::has_host) else {
        return Some("it is not an address; write one such as \"http://proxy.example:3128\"".into());
    };
    let is_plain = Url::parse(server).is_ok_and(|server| server.scheme() == "http");
    (is_plain && !is_loopback(&proxy))
        .then(|| "it would send the credentials for a plain http:// server to another machine; use https://".into())
}

/// Says what is wrong with the address of the ledger. It may hold a password, so no text repeats it.
fn store_problem(store: &str) -> Option<String> {
    let example = "postgres://rally_hook@db.acme.example/rally_hook";
    let Some(rest) = ["postgres://", "postgresql://"].iter().find_map(|scheme| store.strip_prefix(scheme)) else {
        return Some(format!("it is not an address such as {example:?}"));
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = rest.split('?').next().unwrap_or_default();
    // What follows such a character would not be taken for the password, and shown.
    let is_unclear = authority.matches('@').count() > 1 || rest.contains('@') || path.contains([':', '#']);
    is_unclear.then(|| "a password in it must be percent-encoded (@ is %40); better, set store_password_file".into())
}

fn web_problem(web: &str) -> Option<String> {
    let is_address = Url::parse(web).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    (!is_address).then(|| "it is not an address; it must begin with https://".into())
}

/// Says what is wrong with a directory: a relative one has no meaning for a hook.
fn absolute_problem(dir: &Path, example: &str) -> Option<String> {
    (!dir.is_absolute()).then(|| format!("{} is not an absolute path, such as {example:?}", dir.display()))
}

/// Says which placeholder the template of an address lacks.
fn template_problem(template: Option<&str>, placeholders: &[&str]) -> Option<String> {
    let template = template?;
    let missing = placeholders.iter().find(|name| !template.contains(&format!("{{{name}}}")))?;
    Some(format!("it lacks {{{missing}}}, so all links would lead to one page"))
}

fn timeout_problem(timeout: Duration) -> Option<String> {
    match timeout {
        Duration::ZERO => Some("it must not be 0: no answer would be in time".into()),
        timeout if timeout > LONGEST_TIMEOUT => Some("it must be at most \"1h\": Rally ends requests before".into()),
        _ => None,
    }
}

fn prefixes_problem(prefixes: &[String]) -> Option<String> {
    if prefixes.is_empty() {
        return Some("it is empty: no commit could name an artifact".into());
    }
    if prefixes.len() > MOST_PREFIXES {
        return Some(format!("it has more than {MOST_PREFIXES} prefixes; name those of your workspace"));
    }
    let wrong = prefixes.iter().find(|prefix| !is_prefix(prefix))?;
    Some(format!("{:?} is not made of up to {LONGEST_PREFIX} letters, as \"US\" is", cut(wrong, 100)))
}

fn requests_problem(requests: usize) -> Option<String> {
    match requests {
        0 => Some("it must be at least 1".into()),
        1..=MOST_REQUESTS => None,
        _ => Some(format!("it must be at most {MOST_REQUESTS}: Rally slows down a user's further requests")),
    }
}

fn domain_problem(domain: &str) -> Option<String> {
    let is_domain = !domain.is_empty() && !domain.contains(|c: char| c == '@' || c.is_whitespace());
    (!is_domain).then(|| format!("{domain:?} is not a domain; write what follows the @, as in \"acme.example\""))
}

fn credentials_problem(rally: &Rally) -> Option<(&'static str, String)> {
    let has_key = rally.api_key.is_some() || rally.api_key_file.is_some();
    let conflicts = [
        (has_key && rally.username.is_some(), "rally.username", "an API key"),
        (rally.api_key.is_some() && rally.api_key_file.is_some(), "rally.api_key", "api_key_file"),
        (rally.password.is_some() && rally.password_file.is_some(), "rally.password", "password_file"),
    ];
    let (_, key, other) = conflicts.into_iter().find(|(conflicts, ..)| *conflicts)?;
    Some((key, format!("{other} is set too; keep one of the two")))
}

fn is_prefix(text: &str) -> bool {
    (1..=LONGEST_PREFIX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn is_id(text: &str) -> bool {
    let number = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    number.len() < text.len() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::layer::Source;
    use super::super::merge::merged;
    use super::super::show::listed;
    use super::*;

    fn resolved(text: &str) -> Result<Config, String> {
        let source = Source::parse(Path::new("config.toml"), text).map_err(|error| error.to_string())?;
        let layers: Vec<Layer> = source.layers_for(Some(Path::new("/srv/git/team-a/api.git"))).collect();
        resolve(merged(&layers).table, layers, Trust::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_lists_every_key_with_its_default() {
        let sample = include_str!("../../config.sample.toml");
        let sampled = resolved(sample).expect("the sample is valid");
        let defaults = Rally { workspace: Some("Acme".into()), ..Rally::default() };
        assert_eq!(sampled, Config { rally: defaults, ..Config::default() });
    }

    #[test]
    fn the_sample_has_every_key_and_no_other() {
        let sample = include_str!("../../config.sample.toml");
        let uncommented = |line: &'static str| {
            let is_line = |rest: &&str| *rest == "[[match]]" || rest.split(" = ").next().is_some_and(is_key);
            let key = line.strip_prefix('#').filter(is_line);
            [key.unwrap_or(line), "\n"]
        };
        let all: String = sample.lines().flat_map(uncommented).collect();
        let source = Source::parse(Path::new("sample"), &all).expect("every line is valid TOML");
        source.own.alone.expect("every key is known");
        assert_eq!(source.blocks.len(), 1);
        let sampled: BTreeSet<String> = source.own.lines.into_keys().filter(|key| key.contains('.')).collect();
        let known = listed(&Config::default()).into_iter().map(|setting| setting.key);
        assert_eq!(sampled, known.collect());
    }

    #[test]
    fn prefixes_that_make_no_pattern_are_refused() {
        let most: Vec<String> = (0..MOST_PREFIXES).map(|number| "A".repeat(number % LONGEST_PREFIX + 1)).collect();
        let config = |prefixes: &[String]| resolved(&format!("[commits]\nignore_case = true\nprefixes = {prefixes:?}"));
        config(&most).expect("so many are allowed").commits.policy().mentions.find(b"A1");
        assert!(
            config(&[most.clone(), vec!["US".into()]].concat()).is_err_and(|error| error.contains("more than 100"))
        );
        assert!(config(&["A".repeat(21)]).is_err_and(|error| error.contains("up to 20 letters")));
    }

    fn is_key(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let cases = [
            ("[queue]\n\nretry_for = \"soon\"", "config.toml, line 3: `retry_for`: \"soon\" is not a duration"),
            ("[rally]\ntimeout = 30", "config.toml, line 2: `timeout`: invalid type: integer `30`"),
            (
                "[rally]\nserver = \"http://r.example\"",
                "config.toml, line 2: `rally.server`: http://r.example would send",
            ),
            ("[rally]\napi_key = \"_x\"\nusername = \"u\"", "config.toml, line 3: `rally.username`: an API key is set"),
            ("[commits]\nprefixes = [\"U S\"]", "config.toml, line 2: `commits.prefixes`: \"U S\" is not made of"),
            ("[rally]\ntimeout = \"500000y\"", "config.toml, line 2: `rally.timeout`: it must be at most \"1h\""),
            ("[rally]\ntimeout = \"0s\"", "config.toml, line 2: `rally.timeout`: it must not be 0"),
            ("[rally]\nproxy = \"secret\"", "config.toml, line 2: `rally.proxy`: it is not an address"),
            ("[repository]\nweb = \"host/r\"", "config.toml, line 2: `repository.web`: it is not an address"),
            ("[rally]\nserver = \"https://h/slm/x\"", "config.toml, line 2: `rally.server`: it must end with the host"),
            ("[commits]\nignore = [\"US\"]", "config.toml, line 2: `commits.ignore`: \"US\" is not an ID"),
            ("[repository]\nroot = \"git\"", "config.toml, line 2: `repository.root`: git is not an absolute path"),
            ("[authors]\ndomain = \"@acme\"", "config.toml, line 2: `authors.domain`: \"@acme\" is not a domain"),
            (
                "[rally]\nmax_concurrent_requests = 13",
                "config.toml, line 2: `rally.max_concurrent_requests`: it must be at most 12",
            ),
            ("[rally", "config.toml, line 1: "),
        ];
        for (text, expected) in cases {
            let error = resolved(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_error_in_a_block_names_its_line_whether_the_block_matches_or_not() {
        let cases = [
            ("rally.tiemout = \"1s\"", "config.toml, line 4: unknown key `tiemout`; did you mean `timeout`?"),
            ("rally.timeout = 30", "config.toml, line 4: `rally.timeout`: invalid type: integer `30`"),
            ("rally.timeout = \"0s\"", "config.toml, line 4: `rally.timeout`: it must not be 0"),
            ("[match.commits]\nprefixes = []", "config.toml, line 5: `commits.prefixes`: it is empty"),
            ("workspace = \"A\"", "config.toml, line 4: unknown key `workspace`; it belongs in [rally]"),
            ("[[match]]", "config.toml, line 4: this [[match]] block has no `path`"),
            ("[[match]]\npath = 1", "config.toml, line 5: `path`: write an absolute path"),
            ("[[match]]\npath = \"team-a/**\"", "config.toml, line 5: `path`: write an absolute path"),
        ];
        for place in ["/srv/git/team-a/**", "/elsewhere/**"] {
            for (line, expected) in cases {
                let error = resolved(&format!("log.level = \"warn\"\n[[match]]\npath = \"{place}\"\n{line}\n"));
                let error = error.expect_err(line);
                assert!(error.starts_with(expected), "{error}");
            }
        }
        let error = resolved("\nmatch = [1]").expect_err("no table");
        assert!(error.starts_with("config.toml, line 2: `match`: "), "{error}");
        let error = resolved("\n[match]\npath = \"/srv/**\"").expect_err("one table");
        assert!(error.starts_with("config.toml, line 2: `match`: write [[match]]"), "{error}");
    }

    #[test]
    fn an_error_names_the_line_of_the_value_that_counts() {
        let text = "rally.proxy = \"http://127.0.0.1:1\"\n[[match]]\npath = \"/srv/**\"\nrepository.links = \"custom\"\n\
                    [[match]]\npath = \"/**\"\nrepository.links = \"custom\"\n";
        let error = resolved(text).expect_err("no commit_link");
        assert!(error.starts_with("config.toml, line 7: `repository.links`: \"custom\" needs"), "{error}");
        let other = text.replace("\"/**\"", "\"/elsewhere/**\"");
        let error = resolved(&other).expect_err("no commit_link");
        assert!(error.starts_with("config.toml, line 4: "), "{error}");
    }

    #[test]
    fn a_value_that_a_block_replaces_need_not_be_right() {
        let text = "rally.timeout = \"0s\"\n[[match]]\npath = \"PLACE\"\nrally.timeout = \"5s\"";
        assert!(resolved(&text.replace("PLACE", "/srv/**")).is_ok());
        assert!(resolved(&text.replace("PLACE", "/elsewhere/**")).is_err());
    }

    #[test]
    fn an_unknown_key_comes_with_the_one_that_is_probably_meant() {
        let cases = [
            ("[commits]\nref = []", "config.toml, line 2: unknown key `ref`; did you mean `refs`?"),
            ("[comits]\nrefs = []", "config.toml, line 1: unknown key `comits`; did you mean `commits`?"),
            ("workspace = \"A\"", "config.toml, line 1: unknown key `workspace`; it belongs in [rally]"),
            ("[log]\nrefs = []", "config.toml, line 2: unknown key `refs`; it belongs in [commits] or [state]"),
            ("trunk = \"main\"", "config.toml, line 1: unknown key `trunk`; it belongs in [svn]"),
        ];
        for (text, expected) in cases {
            assert_eq!(resolved(text).expect_err(text), expected);
        }
    }

    #[test]
    fn a_misspelt_placeholder_is_unknown_rather_than_missing() {
        let error = resolved("[repository]\ncommit_link = \"https://h/{rev}\"").expect_err("unknown");
        let expected = "config.toml, line 2: `repository.commit_link`: unknown placeholder {rev}; known: {revision},";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn an_unknown_placeholder_in_a_block_is_refused_whether_the_block_matches_or_not() {
        for place in ["/srv/**", "/elsewhere/**"] {
            let text = format!("[[match]]\npath = \"{place}\"\nrepository.web = \"https://h/{{path}}\"");
            let error = resolved(&text).expect_err("unknown");
            assert!(error.starts_with("config.toml, line 3: `repository.web`: unknown placeholder {path}"), "{error}");
        }
    }

    #[test]
    fn a_broken_line_with_a_secret_is_not_repeated() {
        let error = resolved("[rally]\napi_key = \"_very-secret\" oops").expect_err("not TOML");
        assert!(!error.contains("_very-secret"), "{error}");
        let shown = format!("{:?}", resolved("[rally]\napi_key = \"_very-secret\"").expect("valid"));
        assert!(!shown.contains("_very-secret"), "{shown}");
    }

    #[test]
    fn the_place_of_changesets_on_a_server_must_be_one() {
        for (line, expected) in [
            ("collection = \"https://tfs.example/tfs/DefaultCollection\"", None),
            ("collection = \"http://127.0.0.1:8080/tfs/C\"", None),
            ("collection = \"http://tfs.example/C\"", Some("unencrypted")),
            ("collection = \"https://user:pat@tfs.example/C\"", Some("set token_file")),
            ("collection = \"https://tfs.example/C/P/_apis/tfvc\"", Some("must end with the collection")),
            ("project = \"a/b\"", Some("not the name of a project")),
            ("path = \"/Project/main\"", Some("begins with $/")),
            ("every = \"0s\"", Some("must not be 0")),
        ] {
            let error = resolved(&format!("[tfvc]\n{line}")).err();
            let is_expected = match expected {
                Some(text) => error.as_ref().is_some_and(|error| error.contains(text)),
                None => error.is_none(),
            };
            assert!(is_expected, "{line}: {error:?}");
        }
    }
}
