//! Runs the simulator by itself, for a demonstration or for the tools of others.

use rally_simulator::{Simulator, World};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
Usage: rally-simulator [--port N] [--artifact US1=Title]... [--latency 50ms]

Serves a simulated Rally on the loopback address until it is killed.";

/// What was typed.
#[derive(Debug, Default, PartialEq)]
struct Options {
    port: u16,
    artifacts: Vec<(String, String)>,
    latency: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("rally-simulator: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match Simulator::start_on(&format!("127.0.0.1:{}", options.port)) {
        Ok(simulator) => serve(&simulator, &options),
        Err(error) => {
            eprintln!("rally-simulator: cannot listen on port {}: {error}", options.port);
            ExitCode::FAILURE
        }
    }
}

fn serve(simulator: &Simulator, options: &Options) -> ! {
    simulator.settings(|settings| settings.latency = options.latency);
    simulator.world(|world| {
        for (id, name) in &options.artifacts {
            world.add_artifact(id, name);
        }
    });
    let url = simulator.url();
    println!("server     {url}");
    println!("WSAPI      {url}/slm/webservice/v2.0");
    println!("page       {url}/");
    println!("API key    _full-access-key (read only: _read-only-key)");
    println!("password   connector@acme.example / secret-password");
    println!("workspace  Acme");
    loop {
        std::thread::park();
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        let (name, value) = match name.split_once('=').filter(|_| name.starts_with("--")) {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name.as_str(), arguments.next().cloned()),
        };
        let value = value.ok_or_else(|| format!("{name} needs a value"))?;
        let bad = || format!("{name} cannot be {value:?}");
        match name {
            "--port" => options.port = value.parse().map_err(|_| bad())?,
            "--latency" => options.latency = duration(&value).ok_or_else(bad)?,
            "--artifact" => {
                let (id, title) = value.split_once('=').ok_or_else(bad)?;
                if !World::default().accepts_formatted_id(id) {
                    return Err(bad());
                }
                options.artifacts.push((id.to_owned(), title.to_owned()));
            }
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

/// Reads `50ms` or `2s`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return milliseconds.parse().ok().map(Duration::from_millis);
    }
    let seconds = text.strip_suffix('s')?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&arguments)
    }

    #[test]
    fn options_are_read() {
        let options = parsed("--port 80 --artifact US1=Log=in --artifact=DE2=x --latency 50ms");
        assert_eq!(
            options,
            Ok(Options {
                port: 80,
                artifacts: vec![("US1".into(), "Log=in".into()), ("DE2".into(), "x".into())],
                latency: Duration::from_millis(50),
            })
        );
        for line in
            ["--port", "--port x", "--latency 5", "--artifact US1", "--artifact US=x", "--artifact XY1=x", "--nope 1"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
