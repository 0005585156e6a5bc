//! The page as a file, for the textfile collector of node_exporter.
//!
//! A reader finds the whole page at any time: the new one is written beside it and then takes
//! its name. The file goes when the daemon ends; after a crash its time shows that it is old.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use replica::Instant;
use sys::place::Place;

use crate::line::Level;

/// The collector runs as another user.
const MODE: u32 = 0o644;

/// The file.
#[derive(Debug)]
pub(crate) struct TextFile {
    path: PathBuf,
    /// Not `*.prom`, so that the collector does not read it.
    beside: PathBuf,
    interval: Duration,
    at: Instant,
    is_failing: bool,
    /// Writes that failed.
    pub(super) failed: u64,
}

impl TextFile {
    pub(super) fn new(path: PathBuf, interval: Duration) -> TextFile {
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        TextFile {
            path,
            beside: beside.into(),
            interval,
            at: Instant::START,
            is_failing: false,
            failed: 0,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at <= now
    }

    /// Writes the page. Yields what is to be logged: that it fails, and that it works again.
    pub(super) fn write(&mut self, page: &str, now: Instant) -> Option<(Level, String)> {
        self.at = now + self.interval;
        let path = self.path.display();
        let result = self.replace(page);
        self.failed += u64::from(result.is_err());
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        match result {
            Err(e) if !was_failing => {
                let line = format!("metrics: {path} cannot be written: {e}: it is tried again");
                Some((Level::Warning, line))
            }
            Ok(()) if was_failing => {
                Some((Level::Notice, format!("metrics: {path} is written again")))
            }
            _ => None,
        }
    }

    fn replace(&self, page: &str) -> io::Result<()> {
        Place::Metrics.check(&self.path)?;
        // What is there may be a link of somebody else's: it is not followed.
        match fs::remove_file(&self.beside) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = (options.write(true).create_new(true).mode(0o600)).open(&self.beside)?;
        file.write_all(page.as_bytes())?;
        // The daemon's umask would take the right to read away.
        file.set_permissions(Permissions::from_mode(MODE))?;
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        if Place::Metrics.check(&self.path).is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP ftfw_a A.\n";

    #[test]
    fn the_file_is_replaced_when_it_is_due_and_goes_at_the_end() {
        let dir = std::env::temp_dir().join(format!("ftfw-textfile-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("ftfw.prom");
        let victim = dir.join("victim");
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, dir.join("ftfw.prom.new")).unwrap();
        let mut file = TextFile::new(path.clone(), Duration::from_secs(15));
        let now = Instant::START;
        assert!(file.is_due(now));
        assert_eq!(file.write(PAGE, now), None);
        assert!(!file.is_due(now + Duration::from_secs(14)));
        assert!(file.is_due(now + Duration::from_secs(15)));
        assert_eq!(fs::read_to_string(&path).unwrap(), PAGE);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            MODE
        );
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        fs::write(&path, "somebody else's").unwrap();
        let (_, line) = file.write(PAGE, now).unwrap();
        assert!(line.contains("a file with content is there"), "{line}");
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        fs::remove_file(&path).unwrap();
        let mut file = TextFile::new(path.clone(), Duration::from_secs(15));
        assert_eq!(file.write(PAGE, now), None);
        assert_eq!(file.write(PAGE, now), None);
        drop(file);
        assert!(!path.exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_logged_once() {
        let mut file = TextFile::new("/no-such-folder/x.prom".into(), Duration::from_secs(1));
        let (level, line) = file.write("", Instant::START).unwrap();
        assert_eq!(level, Level::Warning);
        assert!(
            line.contains("/no-such-folder/x.prom cannot be written"),
            "{line}"
        );
        assert_eq!(file.write("", Instant::START), None);
        assert_eq!(file.failed, 2);
    }
}
