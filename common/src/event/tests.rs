//! Tests of the event model.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::limits::STRING_BYTES_MAX;
use super::*;

proptest! {
    #[test]
    fn escaped_bytes_are_read_back(bytes in vec(any::<u8>(), 0..60)) {
        let string = ByteString::truncated(&bytes);
        prop_assert_eq!(ByteString::unescape(&string.to_string()), Some(string));
    }

    #[test]
    fn escaped_text_is_read_back(text in any::<String>()) {
        let string = ByteString::from(text.as_str());
        prop_assert_eq!(ByteString::unescape(&string.to_string()), Some(string));
    }

    #[test]
    fn reading_escapes_never_panics(text in any::<String>(), tail in "[\\\\x0-9a-g]{0,12}") {
        if let Some(string) = ByteString::unescape(&format!("{text}{tail}")) {
            prop_assert_eq!(ByteString::unescape(&string.to_string()), Some(string));
        }
    }
}

#[test]
fn escapes_are_as_documented() {
    for (bytes, shown) in [
        (b"/usr/bin/ls".as_slice(), "/usr/bin/ls"),
        (b"", ""),
        ("größe ✓".as_bytes(), "größe ✓"),
        (b"C:\\x41", "C:\\\\x41"),
        (b"a\tb\nc\0", "a\\x09b\\x0ac\\x00"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"\x7f", "\\x7f"),
        ("\u{9b}2J".as_bytes(), "\\xc2\\x9b2J"),
        ("\u{202e}fdp.exe".as_bytes(), "\\xe2\\x80\\xaefdp.exe"),
        ("l\u{200b}s".as_bytes(), "l\\xe2\\x80\\x8bs"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"ok\xc3(", "ok\\xc3("),
        (b"cut \xe2\x82", "cut \\xe2\\x82"),
    ] {
        assert_eq!(ByteString::truncated(bytes).to_string(), shown);
        assert_eq!(ByteString::unescape(shown), Some(bytes.into()), "{shown}");
    }
    assert_eq!(format!("{:?}", ByteString::from("a\"\n")), "\"a\"\\x0a\"");
}

#[test]
fn no_character_that_acts_on_a_screen_is_shown() {
    for character in '\0'..=char::MAX {
        let shown = ByteString::from(character.encode_utf8(&mut [0; 4]) as &str).to_string();
        let acts = character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!acts || shown.starts_with("\\x"), "{character:?}");
    }
}

#[test]
fn malformed_escapes_are_refused() {
    for text in ["\\", "a\\", "\\x", "\\x4", "\\xg0", "\\x+1", "\\n", "\\X41"] {
        assert_eq!(ByteString::unescape(text), None, "{text}");
    }
    assert_eq!(ByteString::unescape("\\x4A\\x4a"), Some("JJ".into()));
}

#[test]
fn strings_keep_to_their_limit() {
    let long = vec![b'a'; STRING_BYTES_MAX + 1];
    assert_eq!(ByteString::truncated(&long).len(), STRING_BYTES_MAX);
    assert_eq!(ByteString::from(long.as_slice()).len(), STRING_BYTES_MAX);
    assert_eq!(ByteString::exact(&long), None);
    assert_eq!(ByteString::exact(&long[1..]).map(|string| string.len()), Some(STRING_BYTES_MAX));
    assert_eq!(ByteString::unescape(&"a".repeat(STRING_BYTES_MAX + 1)), None);
    assert!(ByteString::default().is_empty());
}

/// Names and codes are read back and told apart; codes fit the bits that columns give them.
macro_rules! assert_named {
    ($($type:ident),+) => {$({
        let names: BTreeSet<&str> = $type::ALL.into_iter().map($type::name).collect();
        assert_eq!(names.len(), $type::ALL.len());
        for (code, value) in (0..).zip($type::ALL) {
            assert_eq!(value.code(), code, "{value:?}");
            assert_eq!($type::from_code(code), Some(value));
            assert_eq!($type::from_name(value.name()), Some(value));
        }
        assert_eq!($type::from_code($type::ALL.len() as u64), None);
        assert_eq!($type::from_name(""), None);
    })+};
}

#[test]
fn names_and_codes_are_read_back() {
    assert_named!(Origin, StreamKind, Protocol, Direction, ConnectionOutcome, LossStage, LossReason, EventKind);
    assert_named!(AuthenticationAction, FileAction, DnsAction, KernelAction);
    // Those that share a column's value with others.
    let shared = [StreamKind::ALL.len(), Protocol::ALL.len(), ConnectionOutcome::ALL.len(), LossStage::ALL.len()];
    assert!(shared.into_iter().chain([FileAction::ALL.len()]).all(|values| values <= 8));
    assert!(AuthenticationAction::ALL.len() <= 2 && DnsAction::ALL.len() <= 2 && KernelAction::ALL.len() <= 16);
}

#[test]
fn kinds_are_told_by_class_and_activity() {
    for (class, activity, kind) in [
        ("process_activity", "start", EventKind::ProcessStart),
        ("process_activity", "exit", EventKind::ProcessExit),
        ("network_activity", "open", EventKind::ConnectionOpen),
        ("network_activity", "close", EventKind::ConnectionClose),
        ("network_activity", "listen", EventKind::ConnectionListen),
        ("network_activity", "traffic", EventKind::ConnectionSummary),
        ("authentication", "logon", EventKind::Authentication),
        ("authentication", "logoff", EventKind::Authentication),
        ("file_activity", "set_attributes", EventKind::FileActivity),
        ("dns_activity", "query", EventKind::DnsActivity),
        ("kernel_activity", "module_load", EventKind::KernelActivity),
        ("sensor_loss", "loss", EventKind::SensorLoss),
        ("agent_activity", "start", EventKind::AgentStart),
        ("agent_activity", "change", EventKind::AgentChange),
    ] {
        assert_eq!(EventKind::from_class_and_activity(class, activity), Some(kind));
        assert_eq!(kind.class().name(), class);
    }
    assert_eq!(EventKind::from_class_and_activity("process_activity", "open"), None);
    assert_eq!(EventKind::from_class_and_activity("file_activity", "query"), None);
}

#[test]
fn sizes_count_every_string_once() {
    let exit = ProcessExit {
        process: ProcessId { pid: 1, start_time: Timestamp(0) },
        executable: "abc".into(),
        exit_code: None,
        signal: None,
        duration_ns: None,
        cpu_time_ns: None,
    };
    let event = |body| Event {
        key: EventKey { epoch: Epoch(0), sequence: crate::id::Sequence(0) },
        time: Timestamp(0),
        origin: Origin::Agent,
        body,
    };
    assert_eq!(event(EventBody::ProcessExit(exit)).size(), Ok(EventSize { strings: 1, string_bytes: 3 }));

    let sensor = SensorMode { name: "process".into(), origin: Origin::AgentPolling, reason: "not root".into() };
    let mut start = AgentStart { agent_version: "1".into(), boot_id: "b".into(), sensors: vec![sensor; 2] };
    let size = |start: &AgentStart| event(EventBody::AgentStart(Box::new(start.clone()))).size();
    assert_eq!(size(&start), Ok(EventSize { strings: 6, string_bytes: 2 + 2 * 15 }));
    start.sensors[1].reason = ByteString::truncated(&[b'r'; 513]);
    assert_eq!(size(&start), Err(LimitError { what: "bytes of agent text", value: 513, limit: 512 }));
    start.sensors.resize(33, start.sensors[0].clone());
    assert_eq!(size(&start), Err(LimitError { what: "sensors", value: 33, limit: 32 }));
}
