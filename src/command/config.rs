//! `rally-hook config`: the settings of a repository, and where each comes from.

use serde_json::{Map, Value, json};

use super::{Ended, Error, config_file, git_dir, owners, write_out};
use crate::cli::{Config, Place};
use crate::config::{Setting, settings};
use crate::text::printable;

pub(super) fn run(place: &Place, arguments: &Config) -> Result<Ended, Error> {
    let git_dir = git_dir(place)?;
    let file = config_file(place, &git_dir)?;
    let settings = settings(file.as_deref(), &git_dir, owners(&git_dir))?;
    let text = if arguments.json {
        format!("{}\n", object(settings))
    } else {
        settings.iter().map(|setting| format!("{}\n", printable(&line(setting)))).collect()
    };
    write_out(text.as_bytes())
}

/// Returns one line of TOML, so that it can be copied into a file.
fn line(Setting { key, value, place }: &Setting) -> String {
    let place = match place {
        Some((file, line)) => format!("{}, line {line}", file.display()),
        None => "default".to_owned(),
    };
    match value {
        Value::Null => format!("# {key} is not set ({place})"),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            format!("{key} = [{}]  # {place}", values.join(", "))
        }
        value => format!("{key} = {value}  # {place}"),
    }
}

fn object(settings: Vec<Setting>) -> Value {
    let member = |Setting { key, value, place }: Setting| {
        let (file, line) = place.unzip();
        (key, json!({"value": value, "file": file.map(|file| file.display().to_string()), "line": line}))
    };
    Value::Object(settings.into_iter().map(member).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_line() {
        let setting = |value, place| Setting { key: "rally.x".into(), value, place };
        let place = Some(("/etc/a.toml".into(), 3));
        assert_eq!(line(&setting(json!("a\"b\n"), place.clone())), r#"rally.x = "a\"b\n"  # /etc/a.toml, line 3"#);
        assert_eq!(line(&setting(json!(["a", "b"]), place)), r#"rally.x = ["a", "b"]  # /etc/a.toml, line 3"#);
        assert_eq!(line(&setting(json!(true), None)), "rally.x = true  # default");
        assert_eq!(line(&setting(Value::Null, None)), "# rally.x is not set (default)");
    }
}
