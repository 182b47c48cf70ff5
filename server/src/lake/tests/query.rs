//! SQL: what it answers, and what it refuses.

use serde_json::json;

use super::*;

async fn filled() -> State {
    let state = State::new().await;
    state.fill(1, 7, 400, 50).await;
    state.lake.commit().await.unwrap();
    state
}

async fn refusal(state: &State, sql: &str) -> LakeError {
    match try_sql(&state.lake, sql).await {
        Ok(rows) => panic!("{sql} was answered with {} rows", rows.len()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn plain_sql_answers() {
    let state = filled().await;
    let rows = state.sql("SELECT count(*) AS n FROM process_activity WHERE activity = 'start'").await;
    assert_eq!(rows, [json!({"n": 140})]);
    let rows = state
        .sql("SELECT pid, executable, arguments, parent_pid, standard_input, \"time\" FROM process_activity WHERE sequence = 3")
        .await;
    assert_eq!(
        rows,
        [json!({
            "pid": 1003, "executable": "/usr/bin/python3.11", "arguments": ["ls", "-l", "/home/user/project/3"],
            "parent_pid": 1, "standard_input": "terminal", "time": "2026-11-22T00:00:00.003703Z",
        })]
    );
    let rows = state
        .sql(
            "SELECT remote_address, remote_port, sum(bytes_sent) AS sent FROM network_activity \
              WHERE time >= '2026-11-22T00:00:00Z' AND event_day = DATE '2026-11-22' AND host_id LIKE '0101%' \
              GROUP BY 1, 2 ORDER BY sent DESC LIMIT 1",
        )
        .await;
    assert_eq!(rows[0]["remote_port"], 443);
    let rows = state
        .sql(
            "WITH starts AS (SELECT * FROM process_activity WHERE array_to_string(arguments, ' ') LIKE '%project/3%') \
              SELECT count(*) AS n FROM starts s JOIN network_activity c ON c.pid = s.pid AND c.host_id = s.host_id",
        )
        .await;
    assert_eq!(rows.len(), 1);
    assert!(state.sql("EXPLAIN SELECT * FROM sensor_loss").await.len() >= 2);
    assert!(
        state.sql("EXPLAIN ANALYZE SELECT count(*) FROM sensor_loss").await[0]["plan"]
            .as_str()
            .unwrap()
            .contains("metrics")
    );
    assert_eq!(state.sql("DESCRIBE sensor_loss").await.len(), schema::columns(EventClass::SensorLoss).count());
    assert!(state.sql("SHOW TABLES").await.len() >= 5);
    assert_eq!(state.sql("SELECT * FROM authentication WHERE false").await, [] as [serde_json::Value; 0]);
}

#[tokio::test]
async fn everything_but_reading_is_refused() {
    let state = filled().await;
    let target = state.folder.path().join("stolen");
    let copy = format!("COPY process_activity TO '{}' STORED AS CSV", target.display());
    let explain_copy = format!("EXPLAIN ANALYZE {copy}");
    for sql in [
        "DELETE FROM process_activity",
        "INSERT INTO sensor_loss SELECT * FROM sensor_loss",
        "UPDATE process_activity SET pid = 0",
        "DROP TABLE process_activity",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "EXPLAIN ANALYZE INSERT INTO sensor_loss SELECT * FROM sensor_loss",
        copy.as_str(),
        explain_copy.as_str(),
    ] {
        let error = refusal(&state, sql).await;
        assert!(matches!(error, LakeError::NotAQuery { .. }) && error.is_callers_fault(), "{sql}: {error}");
    }
    for sql in ["SELECT 1 INTO t", "SELECT * FROM '/etc/passwd'", "SELECT * FROM 'file:///etc/passwd.csv'"] {
        let error = refusal(&state, sql).await;
        assert!(error.is_callers_fault(), "{sql}: {error:?}");
    }
    assert!(!target.exists());
    let error = refusal(&state, "DROP TABLE process_activity").await;
    assert_eq!(error.to_string(), "only SELECT, WITH, EXPLAIN, DESCRIBE and SHOW are allowed, not DROP TABLE");
}

#[tokio::test]
async fn mistakes_are_explained() {
    let state = filled().await;
    for (sql, part) in [
        ("SELEC 1", "SELEC"),
        ("SELECT", "found: EOF"),
        ("", "the statement is empty"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT nothing FROM process_activity", "nothing"),
        ("SELECT * FROM processes", "processes"),
        ("SELECT no_such_function(1)", "no_such_function"),
        ("SELECT pid + 'x' FROM process_activity", "x"),
        ("SELECT 1 / 0", "ivide by zero"),
    ] {
        let error = refusal(&state, sql).await;
        assert!(matches!(error, LakeError::Sql(_)) && error.is_callers_fault(), "{sql}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(part), "{sql}: {text}");
        assert!(!text.contains("Error during planning") && !text.contains("backtrace"), "{sql}: {text}");
    }
    let long = format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX));
    assert!(matches!(refusal(&state, &long).await, LakeError::SqlTooLong { .. }));
}

#[tokio::test]
async fn row_limits_cut_and_say_so() {
    let state = filled().await;
    for (limit, rows, truncated) in
        [(10, 10, true), (239, 239, true), (240, 240, false), (1000, 240, false), (0, 0, true)]
    {
        let mut stream =
            state.lake.query("SELECT * FROM process_activity", limit, Duration::from_secs(60)).await.unwrap();
        assert!(stream.schema().column_with_name("pid").is_some());
        let mut found = 0;
        while let Some(batch) = stream.try_next().await.unwrap() {
            found += batch.num_rows();
        }
        assert_eq!((found, stream.truncated()), (rows, truncated), "limit {limit}");
    }
}

#[tokio::test]
async fn long_queries_end_and_memory_is_limited() {
    let state = filled().await;
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000) a WHERE a.value % 7 = 8";
    let error = match state.lake.query(endless, 10, Duration::from_millis(200)).await {
        Ok(stream) => stream.try_collect::<Vec<_>>().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, LakeError::QueryTimeout(_)), "{error}");

    let greedy = format!("SELECT array_agg('{}' || value) FROM generate_series(1, 20000)", "x".repeat(10_000));
    let error = refusal(&state, &greedy).await;
    assert!(matches!(error, LakeError::QueryMemory { .. }), "{error:?}");
    // And the next one is answered.
    assert_eq!(state.sql("SELECT 1 AS one").await, [json!({"one": 1})]);
}

#[tokio::test]
async fn a_dropped_result_frees_its_place() {
    let state = filled().await;
    for _ in 0..QUERIES_MAX * 3 {
        let stream = state.lake.query("SELECT * FROM process_activity", 1000, Duration::from_secs(60)).await.unwrap();
        drop(stream);
    }
    assert_eq!(state.sql("SELECT 1 AS one").await, [json!({"one": 1})]);
}

/// Rows come first, and then a value that cannot be computed.
#[tokio::test]
async fn an_error_in_the_middle_is_told() {
    let state = filled().await;
    let sql = "SELECT 1 / (50000 - value) FROM generate_series(1, 60000)";
    let mut stream = state.lake.query(sql, 1_000_000, Duration::from_secs(60)).await.unwrap();
    let mut rows = 0;
    let error = loop {
        match stream.try_next().await {
            Ok(Some(batch)) => rows += batch.num_rows(),
            Ok(None) => panic!("ended after {rows} rows"),
            Err(error) => break error,
        }
    };
    assert!(rows > 0 && matches!(error, LakeError::Sql(_)), "{rows} {error:?}");
}

/// Planning recurses over an expression: without the limit on tokens these overflow the stack and end the process.
#[tokio::test]
async fn long_expressions_do_not_overflow_the_stack() {
    let state = filled().await;
    let terms = SQL_TOKENS_MAX / 2 - 10;
    for sql in [
        format!("SELECT {} FROM process_activity", vec!["pid"; terms].join("+")),
        format!("SELECT * FROM process_activity WHERE {}", vec!["seeded"; terms].join(" OR ")),
        vec!["SELECT 1"; SQL_TOKENS_MAX / 4].join(" UNION ALL "),
    ] {
        assert!(!state.sql(&sql).await.is_empty() || sql.contains(" OR "), "{sql}");
    }
    for sql in [
        format!("SELECT {}", vec!["1"; SQL_BYTES_MAX / 2 - 10].join("+")),
        vec!["SELECT 1"; 3000].join(" UNION ALL "),
        format!("SELECT {}1", "NOT ".repeat(1400)),
        format!("SELECT {}1", "- ".repeat(1400)),
        format!("SELECT {}1{}", "abs(".repeat(480), ")".repeat(480)),
        format!("SELECT {}1{}", "(".repeat(700), ")".repeat(700)),
    ] {
        let error = refusal(&state, &sql).await;
        assert!(matches!(error, LakeError::Sql(_) | LakeError::SqlTooLong { .. }), "{error}");
    }
}

/// The memory limit does not see single values: what makes a large one from nothing is not there.
#[tokio::test]
async fn functions_that_make_large_values_are_absent() {
    let state = filled().await;
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT lpad('x', 2000000000)",
        "SELECT rpad('x', 2000000000)",
        "SELECT array_repeat('x', 2000000000)",
        "SELECT list_repeat('x', 2000000000)",
        "SELECT array_resize([1], 2000000000)",
        "SELECT range(1, 2000000000)",
        "SELECT generate_series(1, 2000000000)",
        "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT count(*) FROM t",
    ] {
        assert!(matches!(refusal(&state, sql).await, LakeError::Sql(_)), "{sql}");
    }
    assert_eq!(state.sql("SELECT value FROM generate_series(1, 3)").await.len(), 3, "as a table it is a stream");
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_that_rows_are_missing() {
    let state = State::new().await;
    state.fill(1, 1, 4000, 2000).await;
    state.lake.commit().await.unwrap();
    let sql = "SELECT a.* FROM process_activity a, generate_series(1, 50) b";
    let limit = Duration::from_secs(4);
    let mut stream = state.lake.query(sql, usize::MAX, limit).await.unwrap();
    assert!(stream.try_next().await.unwrap().is_some());
    // The query ends while it waits for its reader.
    wait_until(|| state.lake.inner.queries.available_permits() == QUERIES_MAX).await;
    let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, LakeError::QueryTimeout(_)), "{error}");
}

#[tokio::test]
async fn times_are_found_to_the_microsecond() {
    use picket_common::event::Timestamp;
    let state = State::new().await;
    // Its own file, whose statistics say what is in it.
    let event = Event { time: Timestamp(events::TIME + 1_999_999), ..events::plausible(1, 2) };
    state.append(1, 0, std::slice::from_ref(&event)).await;
    state.lake.commit().await.unwrap();
    for condition in [
        "time = '2026-11-22T00:00:00.001999Z'",
        "time >= '2026-11-22T00:00:00.001999Z'",
        "time > '2026-11-22T00:00:00.001998Z'",
        "time <= '2026-11-22T00:00:00.001999Z'",
        "time < '2026-11-22T00:00:00.002Z' AND time_nanoseconds = 999",
        "time BETWEEN '2026-11-22T00:00:00.0019985Z' AND '2026-11-22T00:00:00.0019995Z'",
    ] {
        let sql = format!("SELECT time, pid FROM process_activity WHERE {condition}");
        assert_eq!(state.sql(&sql).await.len(), 1, "{condition}");
    }
    assert_eq!(state.sql("SELECT sum(count) AS count FROM sensor_loss").await.len(), 1);
}
