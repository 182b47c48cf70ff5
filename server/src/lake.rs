//! The lake: Delta tables of Parquet.
