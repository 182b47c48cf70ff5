//! How large an event is, and whether that is within the limits.

use super::{ByteString, Event, EventBody, limits};

/// What the strings of one event amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSize {
    /// Number of strings, empty ones too.
    pub strings: usize,
    /// Bytes of all strings together.
    pub string_bytes: usize,
}

/// An event that exceeds [`limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event has {value} {what}, the limit is {limit}")]
pub struct LimitError {
    /// What there is too much of.
    pub what: &'static str,
    /// How much of it.
    pub value: usize,
    /// How much is allowed.
    pub limit: usize,
}

impl Event {
    /// Checks the event against [`limits`] and measures it.
    ///
    /// # Errors
    /// The first limit that is exceeded.
    pub fn size(&self) -> Result<EventSize, LimitError> {
        let mut size = EventSize::default();
        match &self.body {
            EventBody::ProcessStart(start) => {
                within("arguments", start.arguments.len(), limits::ARGUMENTS_MAX)?;
                within("ancestors", start.ancestors.len(), limits::ANCESTORS_MAX)?;
                start.arguments.iter().for_each(|argument| size.add(argument));
                within("bytes of arguments", size.string_bytes, limits::ARGUMENTS_BYTES_MAX)?;
                start.ancestors.iter().for_each(|ancestor| size.add(ancestor));
                size.add(&start.executable);
                size.add(&start.working_directory);
                size.add(&start.user_name);
                size.add(&start.cgroup);
                size.add(&start.script);
            }
            EventBody::ProcessExit(exit) => size.add(&exit.executable),
            EventBody::ConnectionOpen(connection) | EventBody::ConnectionListen(connection) => {
                size.add(&connection.executable);
            }
            EventBody::ConnectionClose(close) => size.add(&close.connection.executable),
            EventBody::ConnectionSummary(summary) => size.add(&summary.close.connection.executable),
            EventBody::Authentication(authentication) => {
                size.add(&authentication.user_name);
                size.add(&authentication.service);
                size.add(&authentication.method);
                size.add(&authentication.acting_user_name);
                size.add(&authentication.terminal);
                size.add(&authentication.command);
            }
            EventBody::FileActivity(file) => {
                [&file.path, &file.new_path, &file.executable].into_iter().for_each(|text| size.add(text));
            }
            EventBody::DnsActivity(dns) => {
                within("answers", dns.answers.len(), limits::DNS_ANSWERS_MAX)?;
                dns.answers.iter().chain([&dns.name, &dns.executable]).for_each(|text| size.add(text));
            }
            EventBody::KernelActivity(kernel) => {
                size.add(&kernel.object);
                size.add(&kernel.executable);
            }
            EventBody::SensorLoss(_) => {}
            EventBody::AgentStart(start) => {
                within("sensors", start.sensors.len(), limits::SENSORS_MAX)?;
                let sensors = start.sensors.iter().flat_map(|sensor| [&sensor.name, &sensor.reason]);
                [&start.agent_version, &start.boot_id]
                    .into_iter()
                    .chain(sensors)
                    .try_for_each(|text| size.add_own(text))?;
            }
            EventBody::AgentChange(change) => {
                let texts = [&change.subject, &change.before, &change.after, &change.reason];
                texts.into_iter().try_for_each(|text| size.add_own(text))?;
            }
        }
        Ok(size)
    }
}

impl EventSize {
    fn add(&mut self, text: &ByteString) {
        self.strings += 1;
        self.string_bytes += text.len();
    }

    /// Adds a text that an agent says of itself.
    fn add_own(&mut self, text: &ByteString) -> Result<(), LimitError> {
        within("bytes of agent text", text.len(), limits::AGENT_TEXT_BYTES_MAX)?;
        self.add(text);
        Ok(())
    }
}

fn within(what: &'static str, value: usize, limit: usize) -> Result<(), LimitError> {
    if value > limit {
        return Err(LimitError { what, value, limit });
    }
    Ok(())
}
