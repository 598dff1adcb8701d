//! Reads the text of a configuration file: its keys, their values, and the lines on which they stand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::blocks::Block;
use super::show::known_keys;
use super::{Config, Error, placeholders};

/// What a file says: its own keys, and its `[[match]]` blocks.
pub(super) struct Source {
    pub own: Layer,
    pub blocks: Vec<Block>,
}

impl Source {
    /// Reads a file's text.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let text = Text::new(path, text);
        let mut root = DeTable::parse(text.text).map_err(|error| text.wrong(&error))?;
        let blocks = Block::take(root.get_mut(), &text)?;
        Ok(Source { own: Layer::new(root, &text)?, blocks })
    }

    pub(super) fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        std::iter::once(&mut self.own).chain(self.blocks.iter_mut().map(|block| &mut block.layer))
    }

    /// Returns what counts for a repository, what wins last; if none is named, what counts for all.
    pub(super) fn layers_for(self, repo_dir: Option<&Path>) -> impl Iterator<Item = Layer> {
        let matches = move |block: &Block| repo_dir.is_some_and(|repo_dir| block.matches(repo_dir));
        let matching = self.blocks.into_iter().filter(matches).map(|block| block.layer);
        std::iter::once(self.own).chain(matching)
    }
}

/// Keys that stand together: those of a file, or those of one of its blocks.
pub(super) struct Layer {
    pub path: PathBuf,
    pub table: toml::Table,
    /// The line of each key, such as `rally.server`.
    pub lines: HashMap<String, usize>,
    /// What it says without others; keys and types that are wrong are errors which name their lines.
    pub alone: Result<Config, Error>,
}

impl Layer {
    pub(super) fn new(root: Spanned<DeTable>, text: &Text) -> Result<Self, Error> {
        let mut lines = HashMap::new();
        note_lines(root.get_ref(), "", text, &mut lines);
        let table = toml::Table::deserialize(Deserializer::from(root.clone())).map_err(|error| text.wrong(&error))?;
        // A list would be read as a section's values in their order, past all rules about single keys.
        let is_section = |name: &str| known_keys().iter().any(|(section, _)| section == name);
        if let Some((section, _)) = table.iter().find(|(key, value)| !value.is_table() && is_section(key)) {
            let line = lines.get(section).copied().unwrap_or(1);
            let problem = format!("`{section}` is a section; write [{section}] and its keys below");
            return Err(Error::Parse { path: text.path.to_owned(), line, problem });
        }
        let alone = Config::deserialize(Deserializer::from(root)).map_err(|error| text.wrong(&error));
        Ok(Layer { path: text.path.to_owned(), table, lines, alone })
    }

    /// Makes sure that each key and each value is right by itself.
    pub(super) fn checked(self) -> Result<Self, Error> {
        match self.alone {
            Err(error) => Err(error),
            Ok(ref config) => match placeholders::unknown(&self.table).or_else(|| config.wrong_value()) {
                Some((key, problem)) => Err(self.invalid(&key, problem)),
                None => Ok(self),
            },
        }
    }

    /// Makes the error of a key that it holds.
    pub(super) fn invalid(&self, key: &str, problem: String) -> Error {
        Error::Invalid { path: self.path.clone(), line: self.lines[key], key: key.to_owned(), problem }
    }
}

/// Returns the layer whose value counts: of several that hold a key, the last one does.
pub(super) fn holder<'l>(layers: &'l [Layer], key: &str) -> Option<&'l Layer> {
    layers.iter().rev().find(|layer| layer.lines.contains_key(key))
}

/// A file's text, and where its lines end.
pub(super) struct Text<'t> {
    path: &'t Path,
    text: &'t str,
    ends: Vec<usize>,
}

impl<'t> Text<'t> {
    fn new(path: &'t Path, text: &'t str) -> Self {
        Text { path, text, ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    /// Returns the number of the line that holds this byte.
    pub(super) fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }

    /// Makes the error of a place in the text.
    pub(super) fn problem(&self, at: usize, problem: &str) -> Error {
        Error::Parse { path: self.path.to_owned(), line: self.line(at), problem: problem.to_owned() }
    }

    fn wrong(&self, error: &toml::de::Error) -> Error {
        Error::parse(error, self.text, self.path)
    }
}

fn note_lines(table: &DeTable, prefix: &str, text: &Text, found: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        if let Some(table) = value.get_ref().as_table() {
            note_lines(table, &format!("{path}."), text, found);
        }
        found.insert(path, text.line(key.span().start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_key_is_known_however_it_is_written() {
        let text = "log.level = \"info\"\nrally = { server = \"https://a.example\", 'batch' = \"off\" }\n\n[ commits ]\n\
                    refs = [\n  \"a\",\n]\n\"post\" = \"all\" # state = 1\ntext = '''\nignore = 1\n'''\n";
        let layer = Source::parse(Path::new("a.toml"), text).expect("TOML").own;
        for (key, line) in [
            ("log.level", Some(1)),
            ("rally.server", Some(2)),
            ("rally.batch", Some(2)),
            ("commits", Some(4)),
            ("commits.refs", Some(5)),
            ("commits.post", Some(8)),
            ("commits.ignore", None),
        ] {
            assert_eq!(layer.lines.get(key).copied(), line, "{key}");
        }
    }
}
