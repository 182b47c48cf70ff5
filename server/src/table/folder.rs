//! A folder of results that is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::table::TableFileError;

/// Files that are to stand together in a folder.
#[derive(Debug, Default)]
pub struct Folder {
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Folder {
    /// Adds a file.
    pub fn add(&mut self, name: &'static str, content: impl Into<Vec<u8>>) {
        self.files.push((name, content.into()));
    }

    /// Refuses a folder that is there already, unless it may be replaced.
    ///
    /// # Errors
    /// [`TableFileError::File`].
    pub fn check(to: &Path, replace: bool) -> Result<(), TableFileError> {
        if !replace && to.exists() {
            let text = "is there already: give another folder, or --force to replace it";
            return Err(TableFileError::file(to)(io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        Ok(())
    }

    /// Writes the files beside `to`, then gives the whole its name. Of one that is replaced, only files of these names
    /// go; it keeps what else is in it.
    ///
    /// # Errors
    /// [`TableFileError::File`]; nothing is left behind then.
    pub fn write(&self, to: &Path, replace: bool) -> Result<(), TableFileError> {
        let error = TableFileError::file(to);
        Self::check(to, replace)?;
        let partial = partial(to);
        let written = self.write_into(&partial).and_then(|()| {
            if to.exists() {
                self.files.iter().try_for_each(|(name, _)| fs::rename(partial.join(name), to.join(name)))?;
                return fs::remove_dir(&partial);
            }
            fs::rename(&partial, to)
        });
        if written.is_err() {
            // Best effort: the error that counts is the first one.
            drop(fs::remove_dir_all(&partial));
        }
        written.map_err(error)
    }

    fn write_into(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, content) in &self.files {
            let mut file = File::create(folder.join(name))?;
            file.write_all(content)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

fn partial(to: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    to.with_file_name(name)
}
