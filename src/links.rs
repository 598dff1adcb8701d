//! Addresses of commits and files on the server's web pages, which Rally shows next to a Changeset.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};

use crate::text;

/// The longest address that Rally takes (docs/wsapi.md, 6.2); a cut one would lead nowhere, so it is left out.
const MAX_URI: usize = 4000;

/// What is kept as it is: RFC 3986's unreserved characters, and the slash between a path's parts.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The host whose pages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Links {
    Github,
    Gitlab,
    Gitea,
    BitbucketServer,
    BitbucketCloud,
    Azure,
    AzureTfvc,
    Gitweb,
    Cgit,
    Websvn,
    Viewvc,
    Hgweb,
    Custom,
}

impl Links {
    /// Returns what follows the repository's address for a commit and for a file in it.
    fn templates(self) -> (&'static str, &'static str) {
        match self {
            Links::Github => ("/commit/{revision}", "/blob/{revision}/{path}"),
            Links::Gitlab => ("/-/commit/{revision}", "/-/blob/{revision}/{path}"),
            Links::Gitea => ("/commit/{revision}", "/src/commit/{revision}/{path}"),
            Links::BitbucketServer => ("/commits/{revision}", "/browse/{path}?at={revision}"),
            Links::BitbucketCloud => ("/commits/{revision}", "/src/{revision}/{path}"),
            Links::Azure => ("/commit/{revision}", "?path=/{path}&version=GC{revision}"),
            Links::AzureTfvc => {
                ("/_versionControl/changeset/{revision}", "/_versionControl?path={path}&version=C{revision}")
            }
            Links::Gitweb => (";a=commit;h={revision}", ";a=blob;f={path};hb={revision}"),
            Links::Cgit => ("/commit/?id={revision}", "/tree/{path}?id={revision}"),
            // As its configuration's MultiViews make them.
            Links::Websvn => ("/?op=revision&rev={revision}", "/{path}?op=file&rev={revision}"),
            Links::Viewvc => ("?view=revision&revision={revision}", "/{path}?view=markup&revision={revision}"),
            Links::Hgweb => ("/rev/{revision}", "/file/{revision}/{path}"),
            Links::Custom => ("", ""),
        }
    }
}

/// The addresses of one repository's commits and files.
#[derive(Debug, Default)]
pub(crate) struct LinkTemplates {
    commit: Option<String>,
    file: Option<String>,
}

impl LinkTemplates {
    /// Makes the templates for the pages of a host at the address `web`; those given as `commit` and `file` take
    /// their place. Without either there are no links.
    pub(crate) fn new(links: Links, web: Option<&str>, commit: Option<&str>, file: Option<&str>) -> Self {
        let web = web.filter(|_| links != Links::Custom).map(|web| web.trim_end_matches('/'));
        let (commit_page, file_page) = links.templates();
        let template = |own: Option<&str>, page: &str| match own {
            Some(own) => Some(own.to_owned()),
            None => web.map(|web| format!("{web}{page}")),
        };
        LinkTemplates { commit: template(commit, commit_page), file: template(file, file_page) }
    }

    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        address(self.commit.as_ref()?, &[("revision", revision)])
    }

    /// Returns the address of a file as the commit left it.
    /// `None` for a path that browsers would take as one that leads out of the commit, which Git itself never writes.
    pub(crate) fn file(&self, revision: &str, path: &str) -> Option<String> {
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return None;
        }
        let path = escaped(&text::bytes_of(path));
        address(self.file.as_ref()?, &[("revision", revision), ("path", &path)])
    }
}

/// Returns a path as it stands in an address.
pub(crate) fn escaped(path: &[u8]) -> String {
    percent_encode(path, ESCAPED).to_string()
}

fn address(template: &str, values: &[(&str, &str)]) -> Option<String> {
    Some(fill(template, values)).filter(|filled| filled.len() <= MAX_URI)
}

/// Fills a template in one pass, so that a value that looks like a placeholder stays what it is.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let (name, after) = from[1..].split_once('}').unwrap_or_default();
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &from[1..];
            }
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(links: Links, web: &str) -> LinkTemplates {
        LinkTemplates::new(links, Some(web), None, None)
    }

    #[test]
    fn each_host_has_its_own_pages() {
        let cases = [
            (Links::Github, "https://h/r/", "https://h/r/commit/abc", "https://h/r/blob/abc/a%20b/%C3%A9"),
            (Links::Gitlab, "https://h/r", "https://h/r/-/commit/abc", "https://h/r/-/blob/abc/a%20b/%C3%A9"),
            (Links::Gitea, "https://h/r", "https://h/r/commit/abc", "https://h/r/src/commit/abc/a%20b/%C3%A9"),
            (
                Links::BitbucketServer,
                "https://h/r",
                "https://h/r/commits/abc",
                "https://h/r/browse/a%20b/%C3%A9?at=abc",
            ),
            (Links::BitbucketCloud, "https://h/r", "https://h/r/commits/abc", "https://h/r/src/abc/a%20b/%C3%A9"),
            (Links::Azure, "https://h/r", "https://h/r/commit/abc", "https://h/r?path=/a%20b/%C3%A9&version=GCabc"),
            (
                Links::AzureTfvc,
                "https://h/tfs/C/P",
                "https://h/tfs/C/P/_versionControl/changeset/abc",
                "https://h/tfs/C/P/_versionControl?path=a%20b/%C3%A9&version=Cabc",
            ),
            (
                Links::Gitweb,
                "https://h/?p=r.git",
                "https://h/?p=r.git;a=commit;h=abc",
                "https://h/?p=r.git;a=blob;f=a%20b/%C3%A9;hb=abc",
            ),
            (Links::Cgit, "https://h/r", "https://h/r/commit/?id=abc", "https://h/r/tree/a%20b/%C3%A9?id=abc"),
            (
                Links::Websvn,
                "https://h/wsvn/r",
                "https://h/wsvn/r/?op=revision&rev=abc",
                "https://h/wsvn/r/a%20b/%C3%A9?op=file&rev=abc",
            ),
            (
                Links::Viewvc,
                "https://h/viewvc/r",
                "https://h/viewvc/r?view=revision&revision=abc",
                "https://h/viewvc/r/a%20b/%C3%A9?view=markup&revision=abc",
            ),
            (Links::Hgweb, "https://h/r", "https://h/r/rev/abc", "https://h/r/file/abc/a%20b/%C3%A9"),
        ];
        for (host, web, commit, file) in cases {
            let links = links(host, web);
            assert_eq!(links.commit("abc").as_deref(), Some(commit));
            assert_eq!(links.file("abc", "a b/é").as_deref(), Some(file));
        }
    }

    #[test]
    fn hostile_paths_stay_paths() {
        let links = links(Links::Github, "https://h/r");
        assert_eq!(links.file("abc", "{revision}?#&").as_deref(), Some("https://h/r/blob/abc/%7Brevision%7D%3F%23%26"));
        assert_eq!(links.file("abc", r"caf\xE9").as_deref(), Some("https://h/r/blob/abc/caf%E9"));
        assert_eq!(links.file("abc", &"x".repeat(4000)), None);
    }

    #[test]
    fn a_path_does_not_lead_elsewhere_on_the_web_server() {
        let links = links(Links::Github, "https://h/r");
        for path in ["..", ".", "../../x", "a/../../../x", "a/./b"] {
            assert_eq!(links.file("abc", path), None, "{path}");
        }
        assert_eq!(links.file("abc", ".../..a/.b").as_deref(), Some("https://h/r/blob/abc/.../..a/.b"));
    }

    #[test]
    fn own_templates_take_the_place_of_the_hosts() {
        let links = LinkTemplates::new(Links::Custom, Some("https://h"), Some("https://x/{revision}/{other}"), None);
        assert_eq!(links.commit("abc").as_deref(), Some("https://x/abc/{other}"));
        assert_eq!(links.file("abc", "a"), None);
        let links = LinkTemplates::new(Links::Github, Some("https://h"), None, Some("https://x/{path}"));
        assert_eq!(links.commit("abc").as_deref(), Some("https://h/commit/abc"));
        assert_eq!(links.file("abc", "a").as_deref(), Some("https://x/a"));
    }

    #[test]
    fn without_an_address_there_are_no_links() {
        assert_eq!(LinkTemplates::new(Links::Github, None, None, None).commit("abc"), None);
    }
}
