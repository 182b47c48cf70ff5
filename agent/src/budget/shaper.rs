//! What a rung leaves out of the stream of observations, before they are numbered.

use std::sync::Arc;
use std::time::Instant;

use picket_common::event::{EventBody, EventClass};

use crate::budget::connections::ConnectionAggregator;
use crate::budget::control::BudgetControl;
use crate::budget::execs::ExecSampler;
use crate::budget::rung::BudgetRung;
use crate::sensor::Observation;

/// What came of the observations so far.
#[derive(Debug, Default)]
pub(crate) struct Shaped {
    /// To be stored, in order.
    pub(crate) kept: Vec<Observation>,
    /// How many were left out.
    pub(crate) left_out: u64,
}

/// See the module documentation. What goes in comes out, sooner or later, as kept or left out.
pub(crate) struct Shaper {
    control: Arc<BudgetControl>,
    connections: ConnectionAggregator,
    execs: ExecSampler,
}

impl Shaper {
    pub(crate) fn new(control: Arc<BudgetControl>) -> Self {
        Self { control, connections: ConnectionAggregator::default(), execs: ExecSampler::default() }
    }

    /// Takes an observation; one or several, or none, come out.
    pub(crate) fn take(&mut self, observation: Observation, now: Instant, out: &mut Shaped) {
        let rung = self.control.rung();
        let before = out.left_out;
        if rung < BudgetRung::AggregateConnections && !self.connections.is_empty() {
            self.connections.finish(out);
        }
        match (&observation.body, rung) {
            (_, BudgetRung::HeartbeatsOnly) => out.left_out += 1,
            (body, rung) if rung >= BudgetRung::DropFileEvents && is_file_event(body) => out.left_out += 1,
            (EventBody::ConnectionOpen(_) | EventBody::ConnectionClose(_), rung)
                if rung >= BudgetRung::AggregateConnections =>
            {
                self.connections.take(observation, now, out);
            }
            (EventBody::ProcessStart(_) | EventBody::ProcessExit(_), BudgetRung::SampleExecs) => {
                let one_in = self.control.config().exec_sample_one_in;
                if self.execs.keeps(&observation.body, one_in, now) {
                    out.kept.push(observation);
                } else {
                    out.left_out += 1;
                }
            }
            _ => out.kept.push(observation),
        }
        self.control.note_left_out(out.left_out - before);
    }

    /// Gives out what has been held back long enough. Call it now and then.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Shaped) {
        let before = out.left_out;
        if self.control.rung() < BudgetRung::AggregateConnections {
            self.connections.finish(out);
        } else {
            self.connections.release(now, out);
        }
        self.control.note_left_out(out.left_out - before);
    }

    /// Gives out everything that is held back.
    pub(crate) fn finish(&mut self, out: &mut Shaped) {
        let before = out.left_out;
        self.connections.finish(out);
        self.control.note_left_out(out.left_out - before);
    }
}

fn is_file_event(body: &EventBody) -> bool {
    body.class() == EventClass::FileActivity
}
