//! Every file of a closed store, cut or overwritten.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::process::{self, Look};
use crate::record::{Random, value};
use crate::store::Store;

const RECORDS: u64 = 2_000;
const VALUE_BYTES: &str = "2048";
/// Random bytes put into a file at a time.
const BYTES: usize = 64;

/// What damaging files came to.
#[derive(Clone, Debug, Default)]
pub struct Damages {
    pub damages: u64,
    /// Every record was read, intact.
    pub unharmed: u64,
    /// It opened with fewer records, all of them intact.
    pub fewer: u64,
    /// Records in those that were gone.
    pub records_gone: u64,
    /// It gave out records with other bytes than were written.
    pub corrupt: u64,
    pub refused: u64,
    pub crashed: u64,
    pub hung: u64,
}

/// Fills a store and closes it.
pub fn fill(engine: &str, folder: &str, records: &str, value_bytes: &str) -> Result<(), Failure> {
    let (records, bytes): (u64, usize) = (records.parse()?, value_bytes.parse()?);
    let store = Store::open(engine, Path::new(folder))?;
    for key in 0..records {
        store.step(&[(key, value(key, bytes))], &[])?;
    }
    Ok(())
}

/// Damages every file `times` times each way.
pub fn run(engine: &str, folder: &Path, times: u64, random: &mut Random) -> Result<Damages, Failure> {
    let (good, bad) = (folder.join("good"), folder.join("bad"));
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("a folder that is not text");
    process::run(&["fill", engine, &text(&good)?, &RECORDS.to_string(), VALUE_BYTES])?;
    let mut result = Damages::default();
    for file in files(&good)? {
        for cut in [true, false] {
            for _ in 0..times {
                copy(&good, &bad)?;
                harm(&bad.join(&file), cut, random)?;
                result.take(process::look(engine, &text(&bad)?)?);
            }
        }
    }
    Ok(result)
}

impl Damages {
    fn take(&mut self, look: Look) {
        self.damages += 1;
        match look {
            Look::Opened(records) if records.values().any(|is_intact| !is_intact) => self.corrupt += 1,
            Look::Opened(records) if records.len() as u64 == RECORDS => self.unharmed += 1,
            Look::Opened(records) => {
                self.fewer += 1;
                self.records_gone += RECORDS.saturating_sub(records.len() as u64);
            }
            Look::Refused(_) => self.refused += 1,
            Look::Crashed(_) => self.crashed += 1,
            Look::Hung => self.hung += 1,
        }
    }
}

fn harm(path: &Path, cut: bool, random: &mut Random) -> Result<(), Failure> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let at = random.below(length);
    if cut {
        file.set_len(at)?;
    } else {
        let bytes: Vec<u8> = (0..BYTES).map(|_| random.next() as u8).collect();
        let room = usize::try_from(length - at)?.min(BYTES);
        file.write_all_at(&bytes[..room], at)?;
    }
    Ok(())
}

/// The files below a folder, relative to it.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?.into_iter().map(|file| name.join(file)));
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    for file in files(from)? {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().ok_or("no folder")?)?;
        fs::copy(from.join(&file), target)?;
    }
    Ok(())
}
