//! Tables that an earlier version made.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use deltalake::DeltaTableBuilder;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::protocol::SaveMode;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use picket_common::event::{EventBody, Timestamp};

use super::*;
use crate::lake::rows::RowBuilder;

/// What the table of process activities had before cgroups, scripts and processor times.
const NEW_COLUMNS: [&str; 7] =
    ["cpu_time_ns", "cgroup_id", "cgroup", "container_id", "executable_device", "executable_inode", "script"];

/// The rows of these events without the columns that are new.
fn old_rows(events: &[Event]) -> RecordBatch {
    let mut builder = RowBuilder::new(EventClass::ProcessActivity);
    for event in events {
        builder.push(&host(1).to_string(), Timestamp(events::TIME), event);
    }
    let rows = builder.finish().unwrap();
    let old = |name: &str| !NEW_COLUMNS.contains(&name);
    let indices: Vec<usize> = (0..rows.num_columns()).filter(|index| old(rows.schema().field(*index).name())).collect();
    assert_eq!(indices.len() + NEW_COLUMNS.len(), rows.num_columns());
    rows.project(&indices).unwrap()
}

async fn make_old_table(folder: &Path, events: &[Event]) {
    fs::create_dir_all(folder).unwrap();
    let rows = old_rows(events);
    let url = deltalake::ensure_table_uri(folder.to_string_lossy()).unwrap();
    let columns: StructType = (&Schema::new(rows.schema().fields().clone())).try_into_kernel().unwrap();
    let mut table = DeltaTableBuilder::from_url(url)
        .unwrap()
        .build()
        .unwrap()
        .create()
        .with_table_name("process_activity")
        .with_columns(columns.fields().cloned())
        .with_partition_columns([schema::PARTITION_COLUMN])
        .with_save_mode(SaveMode::ErrorIfExists)
        .await
        .unwrap();
    let mut writer = RecordBatchWriter::for_table(&table).unwrap();
    writer.write(rows).await.unwrap();
    writer.flush_and_commit(&mut table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_get_the_columns_that_are_new_and_keep_their_rows() {
    let folder = TempDir::new().unwrap();
    let old: Vec<Event> = (2..9).chain(22..29).map(|sequence| events::plausible(1, sequence)).collect();
    make_old_table(&folder.path().join("lake/process_activity"), &old).await;

    let state = State::open(folder).await;
    let mut expected: Vec<_> = old.into_iter().map(|event| (host(1), event)).collect();
    assert_eq!(state.read(EventFilter::default()).await, expected);
    let names = |rows: Vec<serde_json::Value>| -> Vec<String> {
        rows.iter().map(|row| row["column_name"].as_str().unwrap().to_owned()).collect()
    };
    let described = names(state.sql("DESCRIBE process_activity").await);
    assert!(NEW_COLUMNS.iter().all(|name| described.iter().any(|other| other == name)), "{described:?}");

    // What is pinned before the columns came is read too.
    let mut pinned = state.lake.table_versions();
    pinned.0.insert(EventClass::ProcessActivity, 1);
    let read: Vec<_> = state.lake.read_events(&pinned, EventFilter::default()).try_collect().await.unwrap();
    assert_eq!(read, expected);

    let mut new = events::plausible(1, 43);
    if let EventBody::ProcessStart(start) = &mut new.body {
        start.cgroup = "/system.slice/cron.service".into();
        start.script = "/etc/cron.daily/backup".into();
    }
    state.append(1, 0, std::slice::from_ref(&new)).await;
    state.lake.commit().await.unwrap();
    expected.push((host(1), new));
    assert_eq!(state.read(EventFilter::default()).await, expected);
    let versions = state.lake.table_versions();
    let state = state.reopen().await;
    assert_eq!(state.lake.table_versions(), versions, "nothing is added twice");
    assert_eq!(state.read(EventFilter::default()).await, expected);
}
