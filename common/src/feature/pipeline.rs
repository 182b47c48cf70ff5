//! The pipeline: one event in, at most one vector out.

use crate::event::{AuthenticationAction, Event, EventBody};
use crate::feature::context::{Context, ContextLimits};
use crate::feature::row::Row;
use crate::feature::{FeatureVector, Subject, connection, process_start};

/// Computes the vectors of one host and epoch. Feed it the events in order of their sequence number; begin a new one
/// for each epoch.
#[derive(Debug)]
pub struct FeaturePipeline {
    context: Context,
    process_start: Row,
    connection: Row,
}

impl FeaturePipeline {
    /// A pipeline that remembers nothing yet.
    pub fn new(limits: ContextLimits) -> Self {
        Self {
            context: Context::new(limits),
            process_start: Row::new(process_start::DEFINITIONS.len()),
            connection: Row::new(connection::DEFINITIONS.len()),
        }
    }

    /// Takes in an event. A process start that was not merely found running, and the end of a connection, give a
    /// vector; everything else only adds to the picture.
    pub fn observe(&mut self, event: &Event) -> Option<FeatureVector<'_>> {
        let now = self.context.advance(event.time);
        let (subject, row) = match &event.body {
            EventBody::ProcessStart(start) if start.seeded => {
                process_start::seed(&mut self.context, start);
                return None;
            }
            EventBody::ProcessStart(start) => {
                self.process_start.clear();
                process_start::extract(&mut self.context, now, start, &mut self.process_start);
                (Subject::ProcessStart, &self.process_start)
            }
            EventBody::ConnectionClose(close) => {
                self.connection.clear();
                connection::extract(&mut self.context, now, close, &mut self.connection);
                (Subject::Connection, &self.connection)
            }
            EventBody::ProcessExit(exit) => {
                let failed = match (exit.exit_code, exit.signal) {
                    (_, Some(_)) => Some(true),
                    (Some(code), None) => Some(code != 0),
                    (None, None) => None,
                };
                self.context.note_exit(now, exit.process, failed);
                return None;
            }
            EventBody::ConnectionOpen(connection) => {
                self.context.note_open(connection);
                return None;
            }
            EventBody::Authentication(login) => {
                if login.action == AuthenticationAction::Logon {
                    self.context.note_login(now, login.success);
                }
                return None;
            }
            // A summary stands for connections like one that was seen by itself: it is no subject, and tells nothing new.
            EventBody::ConnectionSummary(_)
            | EventBody::ConnectionListen(_)
            | EventBody::FileActivity(_)
            | EventBody::DnsActivity(_)
            | EventBody::KernelActivity(_)
            | EventBody::SensorLoss(_)
            | EventBody::AgentStart(_)
            | EventBody::AgentChange(_) => return None,
        };
        Some(FeatureVector { subject, event: event.key, time: event.time, values: row.values() })
    }

    /// Things that were forgotten because a table was full.
    pub fn evictions(&self) -> u64 {
        self.context.evictions()
    }

    /// How often the host's clock was set back so far that the windows started anew.
    pub fn clock_resets(&self) -> u64 {
        self.context.clock_resets()
    }
}
