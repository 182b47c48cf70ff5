//! Columns as an enemy makes them, in frames that are right in everything else.

use picket_common::batch::limits::BATCH_EVENTS_MAX;
use picket_common::batch::{BatchErrorKind, decode};
use picket_proto::v1::BatchColumns;
use prost::Message;

use super::{GOLDEN_FRAME, GOLDEN_FRAME_V2, columns, field, forge, forge_version, refused};

#[test]
fn a_small_frame_cannot_ask_for_much_memory() {
    // Every event refers to the same eight ancestors of 4096 bytes: 4096 events would take 140 MB.
    let count = BATCH_EVENTS_MAX;
    let mut message = BatchColumns {
        string_bytes: vec![b'a'; 8 * 4096],
        string_lengths: vec![4096; 8],
        list_lengths: vec![8],
        list_strings: vec![1; 8],
        process_pids: vec![1],
        process_start_times: vec![1, 1],
        context_working_directories: vec![0],
        context_user_ids: vec![0],
        context_group_ids: vec![0],
        context_user_names: vec![0],
        context_session_ids: vec![0],
        context_terminals: vec![0],
        context_streams: vec![0],
        context_ancestors: vec![1],
        event_kinds: vec![0; count],
        event_origins: vec![0; count],
        event_times: vec![1; count + 1],
        start_processes: vec![2; count],
        start_parents: vec![0; count],
        start_executables: vec![0; count],
        start_arguments: vec![0; count],
        start_contexts: vec![2; count],
        start_flags: vec![0; count],
        ..BatchColumns::default()
    };
    (message.start_processes[0], message.start_contexts[0]) = (1, 1);
    let frame = forge(&message.encode_to_vec(), count);
    assert!(frame.len() < 1000, "{}", frame.len());
    let (kind, text) = refused(&frame);
    assert_eq!(kind, BatchErrorKind::TooLarge);
    assert!(text.contains("bytes of strings"), "{text}");

    // The same with as many events as are allowed is a batch.
    message.event_kinds.truncate(1);
    message.event_origins.truncate(1);
    message.event_times.truncate(2);
    for column in [
        &mut message.start_processes,
        &mut message.start_parents,
        &mut message.start_executables,
        &mut message.start_arguments,
        &mut message.start_contexts,
        &mut message.start_flags,
    ] {
        column.truncate(1);
    }
    assert_eq!(decode(&forge(&message.encode_to_vec(), 1)).unwrap().1.len(), 1);
}

/// The golden columns with one thing changed, and the error that makes.
#[test]
fn columns_are_checked() {
    type Edit = fn(&mut BatchColumns);
    let golden = BatchColumns::decode(columns(GOLDEN_FRAME).as_slice()).unwrap();
    let cases: [(Edit, &str); 44] = [
        (|m| m.string_bytes.truncate(9), "string_bytes ends early"),
        (|m| m.string_bytes.push(0), "string_bytes has more values than the events"),
        (|m| m.string_lengths[0] = 4097, "string_lengths has a string that is too long"),
        (|m| m.string_lengths.push(0), "string_lengths has more values than the events"),
        (|m| m.string_lengths.clear(), "string_lengths ends early or has a bad varint"),
        (|m| m.list_lengths[0] = 65, "list_lengths has a list that is too long"),
        (|m| m.list_strings[0] = 999, "list_strings refers beyond its table"),
        (|m| m.list_strings[0] = u32::MAX, "list_strings refers beyond its table"),
        (|m| m.process_pids[0] = -1, "process_pids has a pid that does not fit 32 bits"),
        (|m| m.process_pids[0] = 1 << 32, "process_pids has a pid that does not fit 32 bits"),
        (|m| m.process_pids[1] = i64::MAX, "process_pids has a pid that does not fit 32 bits"),
        (|m| m.process_start_times.truncate(1), "process_start_times ends early or has a bad varint"),
        (|m| m.context_working_directories[0] = 999, "context_working_directories refers beyond its table"),
        (|m| m.context_user_ids[0] = (1 << 32) + 1, "context_user_ids has a value that does not fit 32 bits"),
        (|m| m.context_group_ids[0] = u64::MAX, "context_group_ids has a value that does not fit 32 bits"),
        (|m| m.context_session_ids[0] = u64::MAX, "context_session_ids has a value that does not fit 32 bits"),
        (|m| m.context_terminals[0] = 3, "context_terminals has an unknown value"),
        (|m| m.context_streams[0] = 512, "context_streams has an unknown kind of stream"),
        (|m| m.context_ancestors[0] = 999, "context_ancestors refers beyond its table"),
        (|m| m.connection_kinds[0] = 2, "connection_kinds has an unknown protocol or direction"),
        (|m| m.connection_kinds[0] = 24, "connection_kinds has an unknown protocol or direction"),
        (|m| m.connection_local_addresses[0] = 0, "connection_local_addresses refers to an address that is too short"),
        (
            |m| m.connection_remote_addresses[0] = 3,
            "connection_remote_addresses refers to an address that is not 4, 16 or 24 bytes long",
        ),
        (|m| m.connection_local_ports[0] = 65536, "connection_local_ports has a value out of range"),
        (|m| m.connection_processes[0] = 999, "connection_processes refers beyond its table"),
        (|m| m.connection_executables[0] = 999, "connection_executables refers beyond its table"),
        (|m| m.connection_user_ids[0] = u64::MAX, "connection_user_ids has a value that does not fit 32 bits"),
        (|m| m.event_kinds[3] = 7, "event_kinds has an unknown event kind"),
        (|m| m.event_kinds.truncate(24), "event_kinds has fewer values than the header has events"),
        (|m| m.event_origins[3] = 200, "event_origins has an unknown origin"),
        (|m| m.event_times.truncate(25), "event_times ends early or has a bad varint"),
        (|m| m.event_times.push(0), "event_times has more values than the events"),
        (|m| m.start_processes[0] = 0, "start_processes has no process"),
        (|m| m.start_contexts[0] = 0, "start_contexts has no context"),
        (|m| m.start_contexts[0] = 2, "start_contexts refers beyond its table"),
        (|m| m.start_flags[0] = 12, "start_flags has unknown flags"),
        (|m| m.exit_flags[0] = 8, "exit_flags has unknown flags"),
        (|m| m.exit_processes[0] = 999, "exit_processes refers beyond its table"),
        (|m| m.open_connections[0] = 0, "open_connections has no connection"),
        (|m| m.close_flags[0] = 256, "close_flags has unknown flags"),
        (|m| m.close_flags[0] = 6, "close_flags has unknown flags"),
        (
            |m| m.authentication_sources[0] = 0,
            "authentication_sources refers to an address that is not 4 or 16 bytes long",
        ),
        (|m| m.loss_kinds[0] = 72, "loss_kinds has an unknown stage or reason"),
        (|m| m.agent_sensor_counts[0] = 33, "agent_sensor_counts has too many sensors"),
    ];
    for (edit, problem) in cases {
        let mut message = golden.clone();
        edit(&mut message);
        assert_ne!(message, golden);
        let expected = (BatchErrorKind::Malformed, format!("batch column {problem}"));
        assert_eq!(refused(&forge(&message.encode_to_vec(), 25)), expected);
    }
}

/// The same for the columns of version 2.
#[test]
fn columns_of_version_2_are_checked() {
    type Edit = fn(&mut BatchColumns);
    let golden = BatchColumns::decode(columns(GOLDEN_FRAME_V2).as_slice()).unwrap();
    let cases: [(Edit, &str); 22] = [
        (|m| m.event_kinds[3] = 13, "event_kinds has an unknown event kind"),
        (|m| m.context_cgroups[0] = 999, "context_cgroups refers beyond its table"),
        (|m| m.start_executable_files[3] = 3, "start_executable_files refers to a file that is not 16 bytes long"),
        (|m| m.start_scripts[0] = 999, "start_scripts refers beyond its table"),
        (|m| m.exit_flags[0] = 32, "exit_flags has unknown flags"),
        (|m| m.exit_flags[0] = 16, "exit_flags has unknown flags"),
        (|m| m.exit_cpu_times[0] = u64::MAX, "exit_cpu_times has a value out of range"),
        (|m| m.listen_connections[0] = 0, "listen_connections has no connection"),
        (|m| m.authentication_flags[0] = 24, "authentication_flags has unknown flags"),
        (|m| m.authentication_flags[0] = 32, "authentication_flags has unknown flags"),
        (
            |m| m.authentication_source_ports[0] = 65_537,
            "authentication_source_ports has a value that does not fit 16 bits",
        ),
        (|m| m.file_flags[0] = 5, "file_flags has unknown flags"),
        (|m| m.file_flags[0] = 24, "file_flags has unknown flags"),
        (|m| m.file_modes[0] = u64::MAX, "file_modes has a value that does not fit 32 bits"),
        (|m| m.dns_flags[0] = 128, "dns_flags has unknown flags"),
        (|m| m.dns_flags[0] = 4, "dns_flags has unknown flags"),
        (|m| m.dns_query_types[0] = 65_536, "dns_query_types has a value out of range"),
        (|m| m.dns_response_codes[1] = 65_537, "dns_response_codes has a value that does not fit 16 bits"),
        (
            |m| m.dns_server_addresses[0] = 3,
            "dns_server_addresses refers to an address that is not 4, 16 or 24 bytes long",
        ),
        (|m| m.kernel_flags[0] = 9, "kernel_flags has unknown flags"),
        (|m| m.kernel_flags[0] = 96, "kernel_flags has unknown flags"),
        (|m| m.change_subjects[0] = 999, "change_subjects refers beyond its table"),
    ];
    for (edit, problem) in cases {
        let mut message = golden.clone();
        edit(&mut message);
        assert_ne!(message, golden, "{problem}");
        let expected = (BatchErrorKind::Malformed, format!("batch column {problem}"));
        assert_eq!(refused(&forge_version(2, &message.encode_to_vec(), 40)), expected);
    }
}

#[test]
fn every_value_of_every_column_is_needed() {
    for (version, frame, events) in [(1, GOLDEN_FRAME, 25), (2, GOLDEN_FRAME_V2, 40)] {
        let golden = columns(frame);
        for (number, bytes) in fields(&golden) {
            let without: Vec<u8> = fields(&golden)
                .into_iter()
                .filter(|field| field.0 != number)
                .flat_map(|(number, bytes)| field(number, &bytes))
                .collect();
            let (kind, _) = refused(&forge_version(version, &without, events));
            assert_eq!(kind, BatchErrorKind::Malformed, "without field {number}");
            let longer: Vec<u8> =
                fields(&golden)
                    .into_iter()
                    .flat_map(|(other, bytes)| {
                        if other == number { field(other, &[bytes, vec![0]].concat()) } else { field(other, &bytes) }
                    })
                    .collect();
            let (kind, _) = refused(&forge_version(version, &longer, events));
            assert_eq!(kind, BatchErrorKind::Malformed, "with more in field {number} than {bytes:?}");
        }
    }
}

#[test]
fn columns_of_a_later_version_are_refused() {
    let later = columns(GOLDEN_FRAME_V2);
    let unknown = "batch columns are malformed: a field is unknown or has a wrong type";
    assert_eq!(refused(&forge_version(1, &later, 40)).1, unknown);
    let earlier = columns(GOLDEN_FRAME);
    assert_eq!(refused(&forge_version(2, &earlier, 25)).0, BatchErrorKind::Malformed);
}

/// The fields of a message: field number and content.
fn fields(mut message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let (number, _) = prost::encoding::decode_key(&mut message).unwrap();
        let length = prost::encoding::decode_varint(&mut message).unwrap();
        fields.push((number, message.split_off(..usize::try_from(length).unwrap()).unwrap().to_vec()));
    }
    fields
}

#[test]
fn messages_that_no_encoder_writes_are_refused() {
    let golden = columns(GOLDEN_FRAME);
    let with = |extra: &[u8]| refused(&forge(&[&golden, extra].concat(), 25)).1;
    let unknown = "batch columns are malformed: a field is unknown or has a wrong type";
    let order = "batch columns are malformed: fields are repeated or not in ascending order";
    let length = "batch columns are malformed: a field is longer than the payload";
    assert_eq!(with(&field(61, b"later")), unknown);
    assert_eq!(with(&[2, 0]), unknown, "field number 0");
    assert_eq!(with(&field(536_870_911, b"")), unknown);
    assert_eq!(with(&[24 << 3, 1]), unknown, "a value that is not packed");
    assert_eq!(with(&field(24, &[0])), order);
    assert_eq!(with(&field(60, &[0])), order);
    assert_eq!(with(&[0x80]), "batch columns are malformed: a field's key is cut short");
    let cut = refused(&forge(&golden[..golden.len() - 1], 25)).1;
    assert_eq!(cut, length);
    // Field 60 with a length of 2^64 - 1.
    let huge = [0xe2, 0x03, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(refused(&forge(&huge, 1)).1, length);
    assert_eq!(refused(&forge(b"", 1)).0, BatchErrorKind::Malformed);
}
