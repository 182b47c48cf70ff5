//! Columns of what agents say of themselves.

use picket_common::event::{AgentChange, AgentStart, EventBody, SensorLoss};

use super::ColumnKind::{Long, Text, TextList};
use super::{Cell, Column, Row, column, known};

pub(super) const SENSOR_LOSS: &[Column] = &[
    column("stage", Text, "Where events were lost: sensor, pipeline, buffer, server", |row| {
        loss(row).map_or(Cell::Null, |loss| Cell::Name(loss.stage.name()))
    }),
    column(
        "reason",
        Text,
        "Why: queue_full, agent_killed, buffer_full, write_failed, store_damaged, rejected, throttled, log_rotated",
        |row| loss(row).map_or(Cell::Null, |loss| Cell::Name(loss.reason.name())),
    ),
    column("count", Long, "How many", |row| loss(row).map_or(Cell::Null, |loss| Cell::Long(loss.count.cast_signed()))),
    column("lost_epoch", Long, "In which epoch; not always the one that reports it", |row| {
        loss(row).map_or(Cell::Null, |loss| Cell::Long(loss.epoch.0.cast_signed()))
    }),
];

pub(super) const AGENT_ACTIVITY: &[Column] = &[
    column("agent_version", Text, "The agent's version", |row| {
        agent(row).map_or(Cell::Null, |agent| Cell::Text(&agent.agent_version))
    }),
    column("boot_id", Text, "The kernel's boot id", |row| {
        agent(row).map_or(Cell::Null, |agent| Cell::Text(&agent.boot_id))
    }),
    column("sensor_names", TextList, "Its sensors", |row| {
        agent(row)
            .map_or(Cell::Null, |agent| Cell::OwnedTextList(agent.sensors.iter().map(|sensor| &sensor.name).collect()))
    }),
    column("sensor_origins", TextList, "How each of them sees", |row| {
        agent(row).map_or(Cell::Null, |agent| {
            Cell::NameList(agent.sensors.iter().map(|sensor| sensor.origin.name()).collect())
        })
    }),
    column("sensor_reasons", TextList, "Why each of them sees no better; empty for the best way", |row| {
        agent(row).map_or(Cell::Null, |agent| {
            Cell::OwnedTextList(agent.sensors.iter().map(|sensor| &sensor.reason).collect())
        })
    }),
    column("subject", Text, "What changed: budget, configuration, sensor.file …", |row| {
        change(row).map_or(Cell::Null, |change| Cell::Text(&change.subject))
    }),
    column("before", Text, "What it was", |row| change(row).map_or(Cell::Null, |change| known(&change.before))),
    column("after", Text, "What it is now", |row| change(row).map_or(Cell::Null, |change| known(&change.after))),
    column("reason", Text, "Why", |row| change(row).map_or(Cell::Null, |change| known(&change.reason))),
];

fn change<'a>(row: &Row<'a>) -> Option<&'a AgentChange> {
    match &row.event.body {
        EventBody::AgentChange(change) => Some(change),
        _ => None,
    }
}

fn loss<'a>(row: &Row<'a>) -> Option<&'a SensorLoss> {
    match &row.event.body {
        EventBody::SensorLoss(loss) => Some(loss),
        _ => None,
    }
}

fn agent<'a>(row: &Row<'a>) -> Option<&'a AgentStart> {
    match &row.event.body {
        EventBody::AgentStart(agent) => Some(agent),
        _ => None,
    }
}
