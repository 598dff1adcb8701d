//! The `[[match]]` blocks of a configuration: keys for the repositories that lie in certain places.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Error;
use super::layer::{Layer, Text};
use crate::glob;

/// The key that holds the blocks.
pub(super) const BLOCKS: &str = "match";
/// The key of a block that says where the repositories lie.
const PATH: &str = "path";

/// Keys for the repositories whose Git directories a pattern matches.
pub(super) struct Block {
    pattern: String,
    /// The line of the block's header.
    pub line: usize,
    pub layer: Layer,
}

impl Block {
    /// Takes the blocks out of a file's keys, in their order.
    pub(super) fn take(root: &mut DeTable, text: &Text) -> Result<Vec<Self>, Error> {
        let Some((key, value)) = root.remove_entry(BLOCKS) else { return Ok(Vec::new()) };
        let DeValue::Array(blocks) = value.into_inner() else {
            let problem = "`match`: write [[match]], and below it `path` and the keys for the repositories there";
            return Err(text.problem(key.span().start, problem));
        };
        blocks.into_iter().map(|block| Block::new(block, text)).collect()
    }

    fn new(block: Spanned<DeValue>, text: &Text) -> Result<Self, Error> {
        let span = block.span();
        let DeValue::Table(mut table) = block.into_inner() else {
            return Err(text.problem(span.start, "`match`: a block is a table; write [[match]]"));
        };
        let Some(path) = table.remove(PATH) else {
            return Err(text.problem(span.start, "this [[match]] block has no `path`, such as \"/srv/git/team-a/**\""));
        };
        let pattern = path.get_ref().as_str().unwrap_or_default().to_owned();
        if !(pattern.starts_with('/') || pattern.starts_with("**/")) {
            let problem = "`path`: write an absolute path in quotes, such as \"/srv/git/team-a/**\"";
            return Err(text.problem(path.span().start, problem));
        }
        let layer = Layer::new(Spanned::new(span.clone(), table), text)?.checked()?;
        Ok(Block { pattern, line: text.line(span.start), layer })
    }

    /// Tells whether the block counts for a repository. Its directory is the one without links, as Git tells it to hooks,
    /// so links on the pattern's way to its first wildcard are followed too.
    pub(super) fn matches(&self, repo_dir: &Path) -> bool {
        let is_match = |pattern: &[u8]| glob::matches_path(pattern, repo_dir.as_os_str().as_bytes());
        is_match(self.pattern.as_bytes())
            || self.real_pattern().is_some_and(|real| is_match(real.as_os_str().as_bytes()))
    }

    fn real_pattern(&self) -> Option<PathBuf> {
        let is_literal = |part: &&std::ffi::OsStr| !part.as_bytes().iter().any(|byte| b"*?".contains(byte));
        let literal: PathBuf = Path::new(&self.pattern).iter().take_while(is_literal).collect();
        let rest = Path::new(&self.pattern).strip_prefix(&literal).expect("it begins so");
        Some(literal.canonicalize().ok()?.join(rest))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::layer::Source;

    #[test]
    fn a_link_on_the_way_to_a_repository_does_not_hide_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().canonicalize().expect("it is there");
        fs::create_dir_all(base.join("data/team-a/api.git")).expect("a directory");
        symlink(base.join("data"), base.join("git")).expect("a link");
        for (pattern, expected) in [("git/team-a/*", true), ("data/**/api.git", true), ("git/team-b/*", false)] {
            let text = format!("[[match]]\npath = \"{}/{pattern}\"", base.display());
            let source = Source::parse(&base, &text).expect("TOML");
            assert_eq!(source.blocks[0].matches(&base.join("data/team-a/api.git")), expected, "{pattern}");
        }
    }
}
