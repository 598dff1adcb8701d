//! `rally-hook config`: the settings of a repository, and where each comes from.

use serde_json::{Map, Value, json};

use super::identity::identify_at;
use super::many::{Which, each};
use super::{Ended, Error, config_file, owners, repo_dir, write_out};
use crate::cli::{Config, Place};
use crate::config::{Setting, settings};
use crate::text::{json_line, printable};

pub(super) fn run(place: &Place, arguments: &Config) -> Result<Ended, Error> {
    let is_one_of_many = arguments.many.all_repos.is_some();
    each(place, &arguments.many, Which::All, |place| show(place, arguments.json, is_one_of_many))
}

fn show(place: &Place, json: bool, is_one_of_many: bool) -> Result<Ended, Error> {
    let repo_dir = repo_dir(place)?;
    let file = config_file(place, &repo_dir)?;
    let settings =
        settings(file.as_deref(), &repo_dir, owners(&repo_dir), |config| drop(identify_at(&repo_dir, config)))?;
    let path = repo_dir.to_string_lossy();
    let text = if json {
        let mut object = object(settings);
        if is_one_of_many {
            object["repository"] = json!(path);
        }
        json_line(&object)
    } else {
        let heading = if is_one_of_many { format!("# {}\n", printable(&path)) } else { String::new() };
        settings.iter().fold(heading, |text, setting| text + &printable(&line(setting)) + "\n")
    };
    write_out(text.as_bytes())
}

/// Returns one line of TOML, so that it can be copied into a file.
fn line(Setting { key, value, place, replaced }: &Setting) -> String {
    let place = match place {
        Some((file, line)) => format!("{}, line {line}", file.display()),
        None => "default".to_owned(),
    };
    let place = match replaced {
        Some(replaced) => format!("kept in the queue since it was installed; {place} now gives {replaced:?}"),
        None => place,
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
    let member = |Setting { key, value, place, replaced }: Setting| {
        let (file, line) = place.unzip();
        let mut member = json!({"value": value, "file": file.map(|file| file.display().to_string()), "line": line});
        if let Some(replaced) = replaced {
            member["replaced"] = replaced.into();
        }
        (key, member)
    };
    Value::Object(settings.into_iter().map(member).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_line() {
        let setting = |value, place| Setting { key: "rally.x".into(), value, place, replaced: None };
        let place = Some(("/etc/a.toml".into(), 3));
        assert_eq!(line(&setting(json!("a\"b\n"), place.clone())), r#"rally.x = "a\"b\n"  # /etc/a.toml, line 3"#);
        assert_eq!(line(&setting(json!(["a", "b"]), place)), r#"rally.x = ["a", "b"]  # /etc/a.toml, line 3"#);
        assert_eq!(line(&setting(json!(true), None)), "rally.x = true  # default");
        assert_eq!(line(&setting(Value::Null, None)), "# rally.x is not set (default)");
    }
}
