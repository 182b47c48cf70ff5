//! Events as JSON.

use picket_common::event::json::{JsonError, from_json, to_json};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::any_event;

proptest! {
    #[test]
    fn events_round_trip_through_json_text(event in any_event()) {
        let text = to_json(&event).to_string();
        prop_assert!(!text.contains(|character: char| character.is_control()), "{}", text);
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(from_json(&value), Ok(event));
    }
}

fn exit() -> Value {
    json!({
        "epoch": 1, "sequence": 2, "time_unix_ns": 3, "origin": "replay", "class": "process_activity",
        "activity": "exit", "process": {"pid": 4, "start_time_unix_ns": -5}, "executable": "/bin/true",
        "exit_code": 0, "signal": null, "host_id": "ignored",
    })
}

#[test]
fn null_and_foreign_keys_are_accepted() {
    let event = from_json(&exit()).unwrap();
    let written = to_json(&event);
    assert_eq!(written["exit_code"], 0);
    assert_eq!(written.get("signal"), None);
    assert_eq!(written.get("host_id"), None);
}

#[test]
fn errors_name_the_field() {
    let missing = |field: &str| JsonError::Missing { field: field.to_owned() };
    let malformed = |field: &str, expected| JsonError::Malformed { field: field.to_owned(), expected };
    let with = |path: &str, value: Value| {
        let mut event = exit();
        *event.pointer_mut(path).unwrap() = value;
        from_json(&event).unwrap_err()
    };
    assert_eq!(from_json(&json!([])), Err(JsonError::NotAnObject));
    assert_eq!(from_json(&json!({})), Err(missing("class")));
    assert_eq!(with("/process/pid", Value::Null), missing("process.pid"));
    assert_eq!(
        with("/process/pid", json!(4_294_967_296_u64)),
        malformed("process.pid", "a whole number from 0 to 2^32 - 1")
    );
    assert_eq!(with("/process", json!(4)), malformed("process", "an object"));
    assert_eq!(with("/activity", json!("open")), malformed("activity", "an activity of the event's class"));
    assert_eq!(with("/origin", json!("agent_magic")), malformed("origin", "a known name"));
    for text in ["\\", "\\x4", "\\xzz", "\\n"] {
        assert_eq!(
            with("/executable", json!(text)),
            malformed("executable", "an escaped string of at most 4096 bytes"),
            "{text}"
        );
    }
    assert_eq!(
        with("/executable", json!("a".repeat(4097))),
        malformed("executable", "an escaped string of at most 4096 bytes")
    );
}

#[test]
fn limits_hold_for_json_too() {
    let mut start = json!({
        "epoch": 1, "sequence": 2, "time_unix_ns": 3, "origin": "replay", "class": "process_activity",
        "activity": "start", "process": {"pid": 4, "start_time_unix_ns": 5}, "executable": "", "arguments": [],
        "arguments_truncated": false, "working_directory": "", "user_name": "", "ancestors": [], "seeded": false,
        "standard_streams": ["null", "pipe", "socket"],
    });
    from_json(&start).unwrap();
    start["arguments"] = json!(vec!["a"; 65]);
    let error = from_json(&start).unwrap_err();
    assert_eq!(error.to_string(), "event has 65 arguments, the limit is 64");
    start["arguments"] = json!(["a".repeat(4096), "b".repeat(4096), "c"]);
    let error = from_json(&start).unwrap_err();
    assert_eq!(error.to_string(), "event has 8193 bytes of arguments, the limit is 8192");
    start["arguments"] = json!(["ok", 7]);
    let error = from_json(&start).unwrap_err();
    assert_eq!(
        error.to_string(),
        "event has a malformed \"arguments[1]\": expected an escaped string of at most 4096 bytes"
    );
    start["arguments"] = json!([]);
    start["standard_streams"] = json!(["null"]);
    let error = from_json(&start).unwrap_err();
    assert_eq!(error.to_string(), "event has a malformed \"standard_streams\": expected three kinds of stream");
}
