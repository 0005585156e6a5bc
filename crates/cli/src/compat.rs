//! The original's arguments: what `conntrackd` understands when scripts call it.
//!
//! There is no getopt in the original: of an option only its second character
//! counts, options cannot be bundled, sub-arguments match by prefix (VyOS calls
//! `-c exp`), and of several requests the last wins. Scripts test for a status of
//! exactly 1, so every failure is 1.
//!
//! Two differences are deliberate: a word without a dash is refused (to the
//! original `conntrackd stop` means `-t`), and so is an unknown option.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use config::Config;
use control::{CacheKind, Object, Request, StatsKind};

use crate::load::{CONFIG_DEFAULT, load};
use crate::{Outcome, print, remains};

const USAGE: &str = "\
Usage: conntrackd [commands] [options]

General commands:
  -d              run in the background
  -C FILE         configuration file (default /etc/conntrackd/conntrackd.conf)
  -v              version
  -h              this text

Client mode commands:
  -c [ct|expect]            commit the external cache to the kernel
  -f [internal|external]    flush the caches
  -F [ct|expect]            flush the kernel tables
  -i [ct|expect] [-x]       dump the internal cache, -x as XML
  -e [ct|expect] [-x]       dump the external cache, -x as XML
  -k                        stop the daemon
  -s [network|cache|runtime|link|rsqueue|queue|process|ct|expect]
                            statistics
  -R [ct|expect]            resync the internal cache with the kernel
  -n                        request a resync from the other node
  -B                        send a bulk update to the other node
  -t                        flush the kernel table after PurgeTimeout
";

#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    config: Option<PathBuf>,
    request: Option<Request>,
    background: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Version,
    Help,
    /// Usage and this message, status 1.
    Usage(String),
    /// This message alone, status 1.
    Message(String),
}

/// Acts on the arguments, without the program's name.
pub fn run(arguments: &[String]) -> Outcome {
    let parsed = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(Stop::Version) => {
            print::out(format_args!(
                "Connection tracking userspace daemon, ftfw {}. Licensed under MIT or Apache-2.0.\n",
                env!("CARGO_PKG_VERSION")
            ));
            return Outcome::Exit(0);
        }
        Err(Stop::Help) => {
            print::out(USAGE);
            return Outcome::Exit(0);
        }
        Err(Stop::Usage(message)) => {
            print::out(USAGE);
            print::error(format_args!("conntrackd: {message}"));
            return Outcome::Exit(1);
        }
        Err(Stop::Message(message)) => {
            print::error(format_args!("conntrackd: {message}"));
            return Outcome::Exit(1);
        }
    };
    let path = parsed.config.unwrap_or_else(|| CONFIG_DEFAULT.into());
    let (config, warnings) = match load(&path) {
        Ok(loaded) => (loaded.config, loaded.warnings),
        Err(text) => {
            print::error(text);
            return Outcome::Exit(1);
        }
    };
    match parsed.request {
        None => Outcome::Daemon {
            config,
            warnings,
            background: parsed.background,
        },
        Some(request) => match ask(&config, request) {
            Ok(()) => Outcome::Exit(0),
            Err(message) => {
                print::error(message);
                Outcome::Exit(1)
            }
        },
    }
}

fn parse(arguments: &[String]) -> Result<Parsed, Stop> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        let letter = match argument.strip_prefix('-').and_then(|a| a.chars().next()) {
            Some(letter) => letter,
            None => return Err(Stop::Usage(format!("unknown parameter `{argument}'"))),
        };
        let sub = rest.next_if(|next| {
            !next.starts_with('-')
                && matches!(letter, 'C' | 'c' | 'F' | 'f' | 'i' | 'e' | 'R' | 's')
        });
        let request = match letter {
            'd' => {
                parsed.background = true;
                continue;
            }
            'C' => {
                let Some(file) = sub else {
                    return Err(Stop::Usage("option `-C' needs a file".to_owned()));
                };
                parsed.config = Some(file.into());
                continue;
            }
            'v' => return Err(Stop::Version),
            'h' => return Err(Stop::Help),
            'x' => match parsed.request {
                Some(Request::Dump { cache, object, .. }) => Request::Dump {
                    cache,
                    object,
                    xml: true,
                },
                _ => return Err(Stop::Usage("`-x' goes after `-i' or `-e'".to_owned())),
            },
            'c' => Request::Commit(object(letter, sub, Object::All)?),
            'F' => Request::FlushKernel(object(letter, sub, Object::All)?),
            'R' => Request::Resync(object(letter, sub, Object::All)?),
            'i' => dump(CacheKind::Internal, object(letter, sub, Object::Flows)?),
            'e' => dump(CacheKind::External, object(letter, sub, Object::Flows)?),
            'f' => Request::FlushCache(match sub {
                None => None,
                Some(s) if "internal".starts_with(s) => Some(CacheKind::Internal),
                Some(s) if "external".starts_with(s) => Some(CacheKind::External),
                Some(s) => return Err(unknown_parameter(s, letter)),
            }),
            's' => Request::Stats(statistics(sub)?),
            'k' => Request::Stop,
            'B' => Request::Bulk,
            'n' => Request::RequestResync,
            't' => Request::ScheduleFlush,
            _ => return Err(Stop::Usage(format!("unknown option `{argument}'"))),
        };
        parsed.request = Some(request);
    }
    if parsed.background && parsed.request.is_some() {
        return Err(Stop::Usage("Invalid parameters".to_owned()));
    }
    Ok(parsed)
}

fn dump(cache: CacheKind, object: Object) -> Request {
    Request::Dump {
        cache,
        object,
        xml: false,
    }
}

fn object(letter: char, sub: Option<&str>, default: Object) -> Result<Object, Stop> {
    match sub {
        None => Ok(default),
        Some(s) if "ct".starts_with(s) => Ok(Object::Flows),
        Some(s) if "expect".starts_with(s) => Ok(Object::Expectations),
        Some(s) => Err(unknown_parameter(s, letter)),
    }
}

/// In the original's order of preference for a prefix.
fn statistics(sub: Option<&str>) -> Result<StatsKind, Stop> {
    let Some(sub) = sub else {
        return Ok(StatsKind::General);
    };
    let kinds = [
        ("network", StatsKind::Network),
        ("cache", StatsKind::Cache),
        ("runtime", StatsKind::Runtime),
        ("multicast", StatsKind::Link),
        ("link", StatsKind::Link),
        ("rsqueue", StatsKind::ResendQueue),
        ("process", StatsKind::Process),
        ("queue", StatsKind::Queue),
        ("ct", StatsKind::General),
        ("expect", StatsKind::Expectations),
    ];
    let found = kinds.iter().find(|(name, _)| name.starts_with(sub));
    match found {
        Some((name, kind)) => {
            if *name == "multicast" {
                print::error("conntrackd: `-s multicast' is deprecated: use `-s link'");
            }
            Ok(*kind)
        }
        None => Err(unknown_parameter(sub, 's')),
    }
}

fn unknown_parameter(sub: &str, letter: char) -> Stop {
    Stop::Message(format!("unknown parameter `{sub}' for option `-{letter}'"))
}

/// Sends a request and copies the reply to standard output.
fn ask(config: &Config, request: Request) -> Result<(), String> {
    let refused = "can't connect: is conntrackd running? appropriate permissions?";
    let path = config.control_path.as_deref();
    let path =
        path.ok_or("no `UNIX { Path }` in the configuration: the daemon cannot be reached")?;
    let mut stream = UnixStream::connect(path).map_err(|e| {
        let mut text = format!("{refused} ({}: {e})", path.display());
        if request == Request::Stop {
            text.extend(remains::note(&config.lock_file, path, &e));
        }
        text
    })?;
    let sent = stream.write_all(&request.code().to_ne_bytes());
    sent.map_err(|e| format!("{refused} ({e})"))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut out = io::stdout().lock();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                // A reader that has seen enough (`| head`) is no failure.
                if out.write_all(&buffer[..n]).is_err() {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("the daemon's reply breaks off: {e}")),
        }
    }
    let _ = out.flush();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Request {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words).unwrap().request.unwrap()
    }

    fn stop(line: &str) -> Stop {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words).unwrap_err()
    }

    #[test]
    fn what_scripts_call_means_what_it_meant() {
        assert_eq!(request("-C /x -c"), Request::Commit(Object::All));
        assert_eq!(request("-c exp"), Request::Commit(Object::Expectations));
        assert_eq!(request("-f"), Request::FlushCache(None));
        assert_eq!(
            request("-f ext"),
            Request::FlushCache(Some(CacheKind::External))
        );
        assert_eq!(request("-R -C /x"), Request::Resync(Object::All));
        assert_eq!(request("-i ct -x").code(), 24);
        assert_eq!(request("-e -x").code(), 25);
        assert_eq!(request("-s net"), Request::Stats(StatsKind::Network));
        assert_eq!(request("-s c"), Request::Stats(StatsKind::Cache));
        assert_eq!(request("-s r"), Request::Stats(StatsKind::Runtime));
        // The last request wins.
        assert_eq!(request("-s -i").code(), 16);
    }

    #[test]
    fn failures_are_said() {
        assert!(matches!(stop("-d -s"), Stop::Usage(_)));
        assert!(matches!(stop("-s foo"), Stop::Message(_)));
        assert!(matches!(stop("-x"), Stop::Usage(_)));
        assert!(matches!(stop("-C"), Stop::Usage(_)));
        assert!(matches!(stop("stop"), Stop::Usage(_)));
        assert!(matches!(stop("--help"), Stop::Usage(_)));
        assert_eq!(stop("-v -k"), Stop::Version);
        assert_eq!(stop("-h"), Stop::Help);
    }
}
