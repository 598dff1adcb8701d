//! Which refs count: patterns such as `refs/heads/*` and `release/*`.

use crate::glob;

/// A list of patterns; `*` stands for any characters, slashes too, and `?` for one.
#[derive(Debug)]
pub(crate) struct RefPatterns(Vec<String>);

impl RefPatterns {
    /// Makes a matcher. A pattern that does not begin with `refs/` is for branches.
    pub(crate) fn new(patterns: &[String]) -> Self {
        let full = |pattern: &String| match pattern.starts_with("refs/") {
            true => pattern.clone(),
            false => format!("refs/heads/{pattern}"),
        };
        RefPatterns(patterns.iter().map(full).collect())
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| glob::matches(pattern.as_bytes(), name.as_bytes()))
    }
}

/// The refs whose commits are posted.
#[derive(Debug)]
pub(crate) struct Watched {
    include: RefPatterns,
    exclude: RefPatterns,
}

impl Watched {
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Self {
        Watched { include: RefPatterns::new(include), exclude: RefPatterns::new(exclude) }
    }

    pub(crate) fn includes(&self, name: &str) -> bool {
        self.include.matches(name) && !self.exclude.matches(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("refs/heads/*", "refs/heads/feature/US1", true),
            ("refs/heads/*", "refs/headsup", false),
            ("main", "refs/heads/main", true),
            ("main", "refs/heads/main2", false),
            ("release/?.*", "refs/heads/release/1.2", true),
            ("refs/*/x", "refs/heads/a/x/x", true),
            ("refs/*/x", "refs/heads/a/x/y", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(RefPatterns::new(&[pattern.to_owned()]).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn excluded_refs_do_not_count() {
        let watched = Watched::new(&["refs/heads/*".into(), "refs/tags/*".into()], &["wip/*".into()]);
        assert!(watched.includes("refs/heads/main") && watched.includes("refs/tags/v1"));
        assert!(!watched.includes("refs/heads/wip/a") && !watched.includes("refs/notes/commits"));
    }
}
