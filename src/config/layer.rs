//! Reads the text of a configuration file: its keys, their values, and the lines on which they stand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::{Config, Error};

/// Keys that stand together in a file.
pub(super) struct Layer {
    pub path: PathBuf,
    pub table: toml::Table,
    /// The line of each key, such as `rally.server`.
    pub lines: HashMap<String, usize>,
    /// What it says without others; keys and types that are wrong are errors which name their lines.
    pub alone: Result<Config, Error>,
}

impl Layer {
    /// Reads a file's text.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let root = DeTable::parse(text).map_err(|error| Error::parse(&error, text, path))?;
        Layer::new(root, path, text)
    }

    fn new(root: Spanned<DeTable>, path: &Path, text: &str) -> Result<Self, Error> {
        let wrong = |error| Error::parse(&error, text, path);
        let mut lines = HashMap::new();
        note_lines(root.get_ref(), "", &Lines::of(text), &mut lines);
        let table = toml::Table::deserialize(Deserializer::from(root.clone())).map_err(wrong)?;
        let alone = Config::deserialize(Deserializer::from(root)).map_err(wrong);
        Ok(Layer { path: path.to_owned(), table, lines, alone })
    }
}

/// Returns the file and the line of the value that counts: of several layers that hold a key, the last one does.
pub(super) fn place<'l>(layers: &'l [Layer], key: &str) -> Option<(&'l Path, usize)> {
    layers.iter().rev().find_map(|layer| Some((layer.path.as_path(), *layer.lines.get(key)?)))
}

/// Where the lines of a text end, in bytes.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// Returns the number of the line that holds this byte.
    fn number(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }
}

fn note_lines(table: &DeTable, prefix: &str, lines: &Lines, found: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        if let Some(table) = value.get_ref().as_table() {
            note_lines(table, &format!("{path}."), lines, found);
        }
        found.insert(path, lines.number(key.span().start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_key_is_known_however_it_is_written() {
        let text = "log.level = \"info\"\nrally = { server = \"https://a.example\", 'batch' = \"off\" }\n\n[ commits ]\n\
                    refs = [\n  \"a\",\n]\n\"post\" = \"all\" # state = 1\ntext = '''\nignore = 1\n'''\n";
        let layer = Layer::parse(Path::new("a.toml"), text).expect("TOML");
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
