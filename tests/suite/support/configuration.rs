//! The server's configuration file.

use std::fmt::{self, Display};
use std::fs;

use super::Server;

/// Delivers only where the test asks for it, so that nothing else talks to Rally.
///
/// Further keys of `[queue]` may follow, and then other sections.
pub const DELIVER_LATER: &str = "[queue]\ndeliver = \"later\"\nretry_delay = \"20ms\"\n";

/// How far the simulated Rally's reads are taken to lag behind its writes, in milliseconds; the default is seconds.
const READ_LAG_MS: u32 = 40;

/// The text of a configuration file: the keys of `[rally]`, and the sections after it.
#[derive(Debug, Clone)]
pub struct Configuration {
    rally: Vec<(String, String)>,
    sections: String,
}

impl Configuration {
    /// Sets keys of `[rally]`, one `key = value` a line; replaces those that are set already.
    pub fn rally(mut self, lines: &str) -> Self {
        for line in lines.lines() {
            let (key, value) = line.split_once(" = ").expect("a key and a value");
            self.rally.retain(|(set, _)| set != key);
            self.rally.push((key.to_owned(), value.to_owned()));
        }
        self
    }

    /// Removes the API key file; the environment or other keys of `[rally]` have to name credentials.
    pub fn without_credentials(mut self) -> Self {
        self.rally.retain(|(key, _)| key != "api_key_file");
        self
    }

    /// Logs in with these lines of `[rally]` in place of the API key file.
    pub fn credentials(self, lines: &str) -> Self {
        self.without_credentials().rally(lines)
    }

    /// Appends these lines, which begin with the header of a section.
    pub fn sections(mut self, lines: &str) -> Self {
        self.sections += lines;
        self
    }
}

impl Display for Configuration {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        writeln!(formatter, "[rally]")?;
        for (key, value) in &self.rally {
            writeln!(formatter, "{key} = {value}")?;
        }
        write!(formatter, "{}", self.sections)
    }
}

impl Server {
    /// Returns a `[rally]` section for the simulated Rally, with short times and the file of a valid API key.
    pub fn configuration(&self) -> Configuration {
        let keys = [
            ("server", format!("{:?}", self.rally.url())),
            ("workspace", "\"Acme\"".to_owned()),
            ("timeout", "\"2s\"".to_owned()),
            ("read_lag", format!("\"{READ_LAG_MS}ms\"")),
            ("api_key_file", format!("{:?}", self.git_dir.join("api-key"))),
        ];
        let rally = keys.map(|(key, value)| (key.to_owned(), value)).to_vec();
        Configuration { rally, sections: String::new() }
    }

    /// Replaces the configuration file with this text or [`Configuration`].
    pub fn write_configuration(&self, text: impl Display) {
        self.write_private("rally-hook.toml", &text.to_string());
    }

    /// Returns the text of the configuration file.
    pub fn read_configuration(&self) -> String {
        fs::read_to_string(self.git_dir.join("rally-hook.toml")).expect("the configuration file is there")
    }

    /// Replaces the configuration file: the usual `[rally]` section, then these sections.
    pub fn configure(&self, sections: &str) {
        self.write_configuration(self.configuration().sections(sections));
    }

    /// Replaces the configuration file likewise, with [`DELIVER_LATER`] before these lines.
    pub fn configure_later(&self, lines: &str) {
        self.configure(&format!("{DELIVER_LATER}{lines}"));
    }
}
