//! Model files over the wire.

use bytes::Bytes;
use picket_common::id::Digest;
use tonic::Code;

use super::server::TestServer;

#[tokio::test]
async fn a_model_comes_in_chunks_from_any_offset() {
    let file: Bytes = (0..200_000_u32).map(|byte| (byte % 251) as u8).collect();
    let digest = Digest::of(&file).to_string();
    let server = TestServer::builder().model(file.clone()).start().await;
    let agent = server.enroll().await;
    for offset in [0, 1, 65_536, 199_999, 200_000] {
        let chunks = agent.fetch(&digest, offset as u64).await.unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= 64 * 1024));
        assert_eq!(chunks.concat(), file[offset..], "from {offset}");
    }
    assert_eq!(agent.fetch(&digest, 200_001).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(agent.fetch(&digest, u64::MAX).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(agent.fetch("a model", 0).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(agent.fetch(&Digest::of(b"other").to_string(), 0).await.unwrap_err().code(), Code::NotFound);
    server.stop().await;
}
