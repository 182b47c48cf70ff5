//! Operators: who may call what.
