//! Generates `src/gen` from `picket/v1/*.proto` with `protox` (no system `protoc`) and fails when it differs.
//! `PICKET_REGENERATE=1 cargo test -p picket-proto` writes the new code instead.

use std::path::{Path, PathBuf};

const FILES: [&str; 6] = ["admin", "batch", "enrollment", "fleet", "ingest", "model"];

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos: Vec<PathBuf> = FILES.iter().map(|name| root.join(format!("picket/v1/{name}.proto"))).collect();
    let descriptors = protox::compile(&protos, [root]).expect("the protos compile");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .btree_map(".")
        .bytes(".picket.v1.DeliverRequest.batch")
        .bytes(".picket.v1.FetchModelResponse.chunk")
        .compile_fds(descriptors)
        .expect("code is generated");

    let generated = std::fs::read_to_string(out.path().join("picket.v1.rs")).expect("generated code");
    let committed_path = root.join("src/gen/picket.v1.rs");
    if std::env::var_os("PICKET_REGENERATE").is_some() {
        std::fs::write(&committed_path, &generated).expect("src/gen is writable");
    }
    let committed = std::fs::read_to_string(&committed_path).expect("src/gen/picket.v1.rs");
    assert!(
        generated == committed,
        "src/gen differs from the protos: run PICKET_REGENERATE=1 cargo test -p picket-proto"
    );
}
