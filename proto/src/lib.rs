//! The wire contract of Picket: messages and gRPC services of `picket/v1/*.proto`.
//!
//! Generated code only, checked in, so that building needs no `protoc`; `tests/generated_code.rs` makes it and fails
//! when it differs. Without the default feature `grpc` there are only the messages.

/// Version 1 of the contract.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::too_many_lines, rustdoc::all)]
pub mod v1 {
    include!("gen/picket.v1.rs");
}
