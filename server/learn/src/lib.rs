//! Learning: from rows with labels to a model and what it is worth.
//!
//! ```text
//! rows, labels, groups ─▶ train ─▶ ModelDraft ─▶ (signed elsewhere) ─▶ scores ─▶ evaluate ─▶ Report
//! ```
//!
//! Rows come from the server's data sets, or from tables of users ([`table`]).
//!
//! No files, no clock, no network, no randomness but the seed's: the same rows and the same seed give the same bytes. It is
//! a package of its own so that it is compiled with optimisation even where the server around it is not.

pub mod compare;
pub mod evaluate;
pub mod exchange;
pub mod gate;
pub mod random;
pub mod select;
pub mod table;
pub mod train;
