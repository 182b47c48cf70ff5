//! `alerts.jsonl`: appended to, and set aside as `alerts.jsonl.1` when it is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) struct AlertFile {
    path: PathBuf,
    bytes_max: u64,
    open: Option<(File, u64)>,
}

impl AlertFile {
    pub(crate) fn new(path: &Path, bytes_max: u64) -> Self {
        Self { path: path.to_owned(), bytes_max, open: None }
    }

    /// Another ceiling from the next line on.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Appends a line in one write, so that readers see whole lines. After an error the file is opened again.
    pub(crate) fn append(&mut self, value: &Value) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let result = self.write(&line);
        if result.is_err() {
            self.open = None;
        }
        result
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let (mut file, size) = match self.open.take() {
            Some((file, size)) if size == 0 || size + length <= self.bytes_max => (file, size),
            Some(_) => {
                fs::rename(&self.path, self.set_aside())?;
                self.open_file()?
            }
            None => {
                let (file, size) = self.open_file()?;
                if size > 0 && size + length > self.bytes_max {
                    drop(file);
                    fs::rename(&self.path, self.set_aside())?;
                    self.open_file()?
                } else {
                    (file, size)
                }
            }
        };
        file.write_all(line)?;
        self.open = Some((file, size + length));
        Ok(())
    }

    fn set_aside(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".1");
        name.into()
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        let mut file = OpenOptions::new().append(true).create(true).read(true).mode(0o600).open(&self.path)?;
        let size = file.metadata()?.len();
        // A line that a crash or a full disk cut short must not swallow the next one.
        if size > 0 && !ends_with_newline(&file, size)? {
            file.write_all(b"\n")?;
            return Ok((file, size + 1));
        }
        Ok((file, size))
    }
}

fn ends_with_newline(file: &File, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1)?;
    Ok(last == [b'\n'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_cut_at_its_ceiling_and_keeps_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        for round in 0..3 {
            // Opened anew each time, as after a restart.
            let mut file = AlertFile::new(&path, 100);
            for index in 0..5 {
                file.append(&json!({"round": round, "index": index})).unwrap();
            }
        }
        let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        let kept = lines(&path);
        let before = lines(&dir.path().join("alerts.jsonl.1"));
        assert!(fs::metadata(&path).unwrap().len() <= 100);
        assert_eq!(kept.last().unwrap(), r#"{"index":4,"round":2}"#);
        assert_eq!((before.len(), kept.len()), (4, 3));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_line_cut_short_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        fs::write(&path, "{\"half").unwrap();
        AlertFile::new(&path, 1_000).append(&json!({"whole": true})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\n{\"whole\":true}\n");
    }
}
