//! `picketctl label …`

use std::fs::File;
use std::io::Read;
use std::path::Path;

use picket_common::id::EventId;
use picket_proto::v1;

use crate::ctl::arguments::{LabelVerb, VerdictArgument};
use crate::ctl::client::Client;
use crate::ctl::command::{object, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::label_file;
use crate::ctl::output::{Output, Row, columns};
use crate::ctl::progress::Progress;
use crate::label::{LABELS_PER_CALL_MAX, Label, LabelParts, Verdict};

/// Labels of one page of a listing.
const PAGE_SIZE_MAX: u64 = 10_000;
const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// Labels that were checked here.
#[derive(Default)]
pub(super) struct Prepared {
    labels: Vec<Label>,
    dry_run: bool,
}

impl Prepared {
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    pub(super) fn report(&self, output: &mut Output<'_>) -> Result<(), CtlError> {
        let count = self.labels.len();
        output.one(&format!("{count} labels are well-formed; nothing was added"), object([("labels", count.into())]))
    }
}

/// Reads and checks what is to be added, if anything is.
pub(super) fn prepare(verb: &LabelVerb) -> Result<Prepared, CtlError> {
    match verb {
        LabelVerb::List { .. } => Ok(Prepared::default()),
        LabelVerb::Add { events, verdict, technique, group, source } => {
            let verdict = match verdict {
                VerdictArgument::Benign => Verdict::Benign,
                VerdictArgument::Malicious => Verdict::Malicious,
            };
            let label = |text: &String| {
                let event: EventId =
                    text.parse().map_err(|error| CtlError::Argument(format!("{text:?} is {error}")))?;
                Label::new(LabelParts { event, verdict, technique, group, source })
                    .map_err(|error| CtlError::Argument(error.to_string()))
            };
            Ok(Prepared { labels: events.iter().map(label).collect::<Result<_, _>>()?, dry_run: false })
        }
        LabelVerb::Import { file, format, source, dry_run } => {
            let name = file.to_string_lossy();
            let format = match format {
                Some(format) => *format,
                None => label_file::format_of(&name)?,
            };
            let input = open(file)?;
            Ok(Prepared { labels: label_file::read(input, format, source)?, dry_run: *dry_run })
        }
    }
}

fn open(file: &Path) -> Result<Box<dyn Read>, CtlError> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let opened = File::open(file).map_err(|source| CtlError::File { path: file.to_owned(), source })?;
    Ok(Box::new(opened))
}

pub(super) async fn run(
    client: &mut Client,
    verb: &LabelVerb,
    prepared: Prepared,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    match verb {
        LabelVerb::List { limit } => list(client, *limit, output).await,
        LabelVerb::Add { .. } | LabelVerb::Import { .. } => add(client, &prepared.labels, output).await,
    }
}

async fn add(client: &mut Client, labels: &[Label], output: &mut Output<'_>) -> Result<(), CtlError> {
    let progress = Progress::new();
    let mut added = 0;
    for chunk in labels.chunks(LABELS_PER_CALL_MAX) {
        progress.set("add labels", added, labels.len() as u64);
        let request = v1::AddLabelsRequest { labels: chunk.iter().map(wire).collect() };
        let answer = client.add_labels(request).await;
        let answer = answer.map_err(|mut status| {
            if added > 0 {
                // Each call is all or nothing; the ones before this stay.
                let message = format!("{} (the first {added} labels were added)", status.message());
                status = tonic::Status::new(status.code(), message);
            }
            status
        })?;
        added += answer.into_inner().added;
    }
    drop(progress);
    output.one(&format!("{added} labels added"), object([("added", added.into())]))
}

fn wire(label: &Label) -> v1::Label {
    let event = label.event();
    let verdict = match label.verdict() {
        Verdict::Benign => v1::Verdict::Benign,
        Verdict::Malicious => v1::Verdict::Malicious,
    };
    v1::Label {
        event: Some(v1::EventReference {
            host_id: event.host.to_string(),
            epoch: event.key.epoch.0,
            sequence: event.key.sequence.0,
        }),
        verdict: verdict.into(),
        technique: label.technique().to_owned(),
        source: label.source().to_owned(),
        group: label.group().unwrap_or_default().to_owned(),
        ..v1::Label::default()
    }
}

async fn list(client: &mut Client, limit: u64, output: &mut Output<'_>) -> Result<(), CtlError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut page_token = String::new();
    while (rows.len() as u64) < limit {
        let page_size = (limit - rows.len() as u64).min(PAGE_SIZE_MAX) as u32;
        let request = v1::ListLabelsRequest { page_size, page_token };
        let answer = client.list_labels(request).await?.into_inner();
        rows.extend(answer.labels.into_iter().map(row));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let shown = columns([
        ("label", "label_id"),
        ("event", "event_id"),
        ("verdict", "verdict"),
        ("technique", "technique"),
        ("group", "group"),
        ("author", "author"),
        ("source", "source"),
        ("created", "created"),
    ]);
    output.rows(&shown, rows)
}

fn row(label: v1::Label) -> Row {
    let verdict = match label.verdict() {
        v1::Verdict::Benign => Verdict::Benign.name(),
        v1::Verdict::Malicious => Verdict::Malicious.name(),
        v1::Verdict::Unspecified => "",
    };
    let event = label.event.unwrap_or_default();
    object([
        ("label_id", label.label_id.into()),
        ("event_id", format!("{}/{}/{}", event.host_id, event.epoch, event.sequence).into()),
        ("verdict", verdict.into()),
        ("technique", label.technique.into()),
        ("group", label.group.into()),
        ("author", label.author.into()),
        ("source", label.source.into()),
        ("created", time_text(label.created_unix_ns / NANOSECONDS_PER_SECOND)),
    ])
}
