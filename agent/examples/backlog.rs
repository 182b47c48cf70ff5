//! What a long backlog costs: fills a buffer, opens it again, empties it, and prints the memory of each part.
//!
//! `cargo run -p picket-agent --example backlog -- FOLDER [MEBIBYTES [KIBIBYTES_PER_BATCH [sled|redb]]]`

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use picket_agent::buffer::{Buffer, BufferConfig, NewRecord, Priority, StoreKind};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("the folder to use is missing")?;
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (mebibytes, batch_kibibytes) = (number(1, 2_048)?, number(2, 40)?);
    let (bytes, batch_bytes) = ((mebibytes as u64) << 20, batch_kibibytes << 10);
    let folder = Path::new(folder);
    let store = match arguments.get(3).map_or("sled", String::as_str) {
        "sled" => StoreKind::Sled,
        "redb" => StoreKind::Redb,
        other => return Err(format!("no store is called {other}").into()),
    };
    let config = BufferConfig { bytes_max: 2 * bytes, store };
    report("begin", Instant::now())?;

    let begun = Instant::now();
    let (mut buffer, _) = Buffer::open(folder, config)?;
    let mut state = 1_u64;
    let mut payload = vec![0; batch_bytes];
    while buffer.stats().bytes < bytes {
        for byte in &mut payload {
            // Incompressible, as batches are.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
        let record = NewRecord { priority: Priority::Normal, items: 1, tag: &[7; 70], payload: &payload };
        buffer.append(record, |_| Vec::new())?;
    }
    println!("{} batches, {} bytes of them on disk", buffer.stats().records, buffer.stats().disk_bytes);
    report("filled", begun)?;
    drop(buffer);

    report("closed", Instant::now())?;
    let begun = Instant::now();
    let (mut buffer, damage) = Buffer::open(folder, config)?;
    report(if damage.is_none() { "opened" } else { "damaged" }, begun)?;
    let begun = Instant::now();
    loop {
        let lease = buffer.lease(8, 4 << 20)?;
        if lease.records.is_empty() {
            break;
        }
        for record in lease.records {
            buffer.commit(record.info.number, &[])?;
        }
    }
    report("emptied", begun)
}

/// Prints memory now and at most since the last call.
fn report(what: &str, begun: Instant) -> Result<(), Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    println!(
        "{what:8} {:7.1} s  resident {:>10}, at most {:>10}",
        begun.elapsed().as_secs_f64(),
        line("VmRSS:"),
        line("VmHWM:")
    );
    std::fs::write("/proc/self/clear_refs", "5")?;
    Ok(())
}
