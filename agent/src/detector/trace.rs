//! Every scored vector as a JSON line, for the test that the server computes the same bits.
//!
//! `{"epoch":…, "sequence":…, "subject":"…", "values":[bits as u32, …], "score_bits":u64, "model_digest":"…"}`

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use picket_common::feature::FeatureVector;
use picket_common::id::Digest;
use serde_json::json;

pub(crate) struct Trace {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Trace {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    pub(crate) fn write(&mut self, vector: &FeatureVector<'_>, score: f64, model: Digest) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                self.file.insert(BufWriter::new(file))
            }
        };
        let line = json!({
            "epoch": vector.event.epoch.0,
            "sequence": vector.event.sequence.0,
            "subject": vector.subject.name(),
            "values": vector.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
            "score_bits": score.to_bits(),
            "model_digest": model.to_string(),
        });
        serde_json::to_writer(&mut *file, &line)?;
        file.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}
