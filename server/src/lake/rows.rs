//! Events to rows.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Date32Builder, Int16Builder, Int32Builder, Int64Builder, ListBuilder,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use picket_common::event::{Event, EventClass, Timestamp};
use picket_common::id::HostId;

use super::schema::{self, Cell, Column, ColumnKind, Row};

/// How far `event_day` may lie before the day of reception. A host's clock, or a recording, may say anything; without a
/// bound one host could make a partition for every day there is.
pub const EVENT_DAYS_BEFORE_MAX: i64 = 30;
/// How far `event_day` may lie after the day of reception.
pub const EVENT_DAYS_AFTER_MAX: i64 = 1;

const NANOSECONDS_PER_DAY: i64 = 86_400 * 1_000_000_000;

/// Rows of one class's table, under construction.
pub(super) struct RowBuilder {
    class: EventClass,
    columns: Vec<ColumnBuilder>,
}

struct ColumnBuilder {
    column: &'static Column,
    values: Values,
}

enum Values {
    Text(StringBuilder),
    TextList(ListBuilder<StringBuilder>),
    Long(Int64Builder),
    Integer(Int32Builder),
    Short(Int16Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl RowBuilder {
    pub(super) fn new(class: EventClass) -> Self {
        let columns = schema::columns(class).map(|column| ColumnBuilder { column, values: Values::new(column.kind) });
        Self { class, columns: columns.collect() }
    }

    /// Adds an event of this table's class; `host_text` is `host` as text.
    pub(super) fn push(&mut self, host_text: &str, received: Timestamp, event: &Event) {
        debug_assert_eq!(event.body.class(), self.class);
        let row = Row { host: host_text, day: event_day(event.time, received), event };
        for ColumnBuilder { column, values } in &mut self.columns {
            values.push((column.cell)(&row));
        }
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let arrays = self.columns.iter_mut().map(|column| column.values.finish()).collect();
        RecordBatch::try_new(schema::schema(self.class), arrays)
    }
}

/// The partition an event goes to, in days since 1970.
pub(super) fn event_day(time: Timestamp, received: Timestamp) -> i32 {
    let today = received.0.div_euclid(NANOSECONDS_PER_DAY);
    let day = time.0.div_euclid(NANOSECONDS_PER_DAY);
    // 64 bits of nanoseconds are ±106,752 days.
    day.clamp(today - EVENT_DAYS_BEFORE_MAX, today + EVENT_DAYS_AFTER_MAX) as i32
}

/// A host id as tables hold it.
pub(super) fn host_text(host: HostId) -> String {
    host.to_string()
}

impl Values {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text => Self::Text(StringBuilder::new()),
            ColumnKind::TextList => {
                Self::TextList(ListBuilder::new(StringBuilder::new()).with_field(Arc::new(schema::list_field())))
            }
            ColumnKind::Long => Self::Long(Int64Builder::new()),
            ColumnKind::Integer => Self::Integer(Int32Builder::new()),
            ColumnKind::Short => Self::Short(Int16Builder::new()),
            ColumnKind::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnKind::Timestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.data_type()))
            }
            ColumnKind::Date => Self::Date(Date32Builder::new()),
        }
    }

    /// Adds a value. A cell that is not of the column's kind becomes NULL; a test holds that there is none.
    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(builder), cell) => push_text(builder, cell),
            (Self::TextList(builder), Cell::TextList(list)) => push_list(builder, list.iter().map(Cell::Text)),
            (Self::TextList(builder), Cell::OwnedTextList(list)) => {
                push_list(builder, list.into_iter().map(Cell::Text))
            }
            (Self::TextList(builder), Cell::NameList(list)) => push_list(builder, list.into_iter().map(Cell::Name)),
            (Self::TextList(builder), _) => builder.append_null(),
            (Self::Long(builder), Cell::Long(value)) => builder.append_value(value),
            (Self::Long(builder), _) => builder.append_null(),
            (Self::Integer(builder), Cell::Integer(value)) => builder.append_value(value),
            (Self::Integer(builder), _) => builder.append_null(),
            (Self::Short(builder), Cell::Short(value)) => builder.append_value(value),
            (Self::Short(builder), _) => builder.append_null(),
            (Self::Boolean(builder), Cell::Boolean(value)) => builder.append_value(value),
            (Self::Boolean(builder), _) => builder.append_null(),
            (Self::Timestamp(builder), Cell::Long(value)) => builder.append_value(value),
            (Self::Timestamp(builder), _) => builder.append_null(),
            (Self::Date(builder), Cell::Integer(value)) => builder.append_value(value),
            (Self::Date(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => ArrayBuilder::finish(builder),
            Self::TextList(builder) => ArrayBuilder::finish(builder),
            Self::Long(builder) => ArrayBuilder::finish(builder),
            Self::Integer(builder) => ArrayBuilder::finish(builder),
            Self::Short(builder) => ArrayBuilder::finish(builder),
            Self::Boolean(builder) => ArrayBuilder::finish(builder),
            Self::Timestamp(builder) => ArrayBuilder::finish(builder),
            Self::Date(builder) => ArrayBuilder::finish(builder),
        }
    }
}

fn push_list<'a>(builder: &mut ListBuilder<StringBuilder>, cells: impl Iterator<Item = Cell<'a>>) {
    cells.for_each(|cell| push_text(builder.values(), cell));
    builder.append(true);
}

fn push_text(builder: &mut StringBuilder, cell: Cell<'_>) {
    // Writing into the builder's own buffer cannot fail.
    let written = match cell {
        Cell::Text(text) => write!(builder, "{text}"),
        Cell::Name(name) => builder.write_str(name),
        Cell::OwnedName(name) => builder.write_str(&name),
        Cell::Address(address, 0) => write!(builder, "{address}"),
        Cell::Address(address, scope) => write!(builder, "{address}%{scope}"),
        _ => return builder.append_null(),
    };
    debug_assert!(written.is_ok());
    builder.append_value("");
}
