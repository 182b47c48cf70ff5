//! Reads a log of any known format line by line; a bad line is counted and noted, and the rest is read all the same.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Read as _};

use picket_common::import::{ImportedEvent, Importer, LINE_BYTES_MAX, LineError, LogFormat};

/// Most bad lines that are noted with their reason; all are counted.
const BAD_LINES_NOTED: usize = 10;

/// Lines that gave no event although they should have.
#[derive(Clone, Debug, Default)]
pub(crate) struct BadLines {
    /// How many.
    pub(crate) count: u64,
    /// The first of them, with their number.
    pub(crate) first: Vec<(u64, LineError)>,
}

/// See the module documentation.
pub(crate) struct LogReader<R> {
    input: R,
    importer: Importer,
    buffer: Vec<u8>,
    line: u64,
    ready: Vec<ImportedEvent>,
    queue: VecDeque<ImportedEvent>,
    bad: BadLines,
    events: u64,
    is_at_end: bool,
}

impl<R: BufRead> LogReader<R> {
    /// Reads a log of `format`; `None`: the format is what the first line that has one looks like.
    pub(crate) fn new(input: R, format: Option<LogFormat>) -> Self {
        Self {
            input,
            importer: Importer::new(format),
            buffer: Vec::new(),
            line: 0,
            ready: Vec::new(),
            queue: VecDeque::new(),
            bad: BadLines::default(),
            events: 0,
            is_at_end: false,
        }
    }

    /// The next event; none at the end.
    pub(crate) fn next_event(&mut self) -> io::Result<Option<ImportedEvent>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                self.events += 1;
                return Ok(Some(event));
            }
            if self.is_at_end {
                return Ok(None);
            }
            self.read_line()?;
            self.queue.extend(self.ready.drain(..));
        }
    }

    fn read_line(&mut self) -> io::Result<()> {
        self.buffer.clear();
        // One byte more than a line may have, and its end.
        let limit = LINE_BYTES_MAX as u64 + 2;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            self.is_at_end = true;
            self.importer.finish(&mut self.ready);
            return Ok(());
        }
        self.line += 1;
        if self.buffer.len() as u64 == limit && self.buffer.last() != Some(&b'\n') {
            self.skip_rest_of_line()?;
        }
        if let Err(error) = self.importer.line(&self.buffer, &mut self.ready) {
            self.bad.count += 1;
            if self.bad.first.len() < BAD_LINES_NOTED {
                self.bad.first.push((self.line, error));
            }
        }
        Ok(())
    }

    fn skip_rest_of_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.input.fill_buf()?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(available.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// What could not be read so far.
    pub(crate) fn bad(&self) -> &BadLines {
        &self.bad
    }

    /// Well-formed lines about something no event is made of.
    pub(crate) fn skipped(&self) -> u64 {
        self.importer.skipped()
    }
}

/// One line for each that is noted, and one for the rest.
impl fmt::Display for BadLines {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, reason) in &self.first {
            writeln!(out, "line {line}: {reason}")?;
        }
        let rest = self.count - self.first.len() as u64;
        if rest > 0 {
            writeln!(out, "and {rest} more lines that could not be read")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (Vec<ImportedEvent>, BadLines) {
        let mut reader = LogReader::new(text, None);
        let mut events = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            events.push(event);
        }
        (events, reader.bad().clone())
    }

    const GOOD: &str = r#"{"ts":1.5,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":2,"proto":"tcp","conn_state":"SF"}"#;

    #[test]
    fn a_line_that_is_too_long_is_one_bad_line() {
        let long = format!("{{\"x\":\"{}\"}}", "a".repeat(3 << 20));
        let (events, bad) = read(format!("{GOOD}\n{long}\n{GOOD}\n").as_bytes());
        assert_eq!((events.len(), bad.count), (2, 1));
        assert_eq!(bad.first, [(2, LineError::TooLong)]);
        // As long as a line may be, with and without its end.
        for padding in [LINE_BYTES_MAX - GOOD.len(), LINE_BYTES_MAX - GOOD.len() + 1] {
            let line = format!("{GOOD}{}", " ".repeat(padding));
            let is_good = line.len() <= LINE_BYTES_MAX;
            assert_eq!(read(line.as_bytes()).0.len(), usize::from(is_good));
            let (events, bad) = read(format!("{line}\n{GOOD}\n").as_bytes());
            assert_eq!((events.len(), bad.count), (1 + usize::from(is_good), u64::from(!is_good)));
        }
    }

    #[test]
    fn bad_lines_are_counted_and_the_first_named() {
        let rubbish = "rubbish\n".repeat(30);
        let (events, bad) = read(format!("{GOOD}\n{rubbish}{GOOD}").as_bytes());
        assert_eq!((events.len(), bad.count, bad.first.len()), (2, 30, 10));
        let text = bad.to_string();
        assert!(text.starts_with("line 2: not JSON") || text.starts_with("line 2: "), "{text}");
        assert!(text.ends_with("and 20 more lines that could not be read\n"), "{text}");
    }
}
