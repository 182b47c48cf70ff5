//! The gRPC services: decode, call one service, encode.
