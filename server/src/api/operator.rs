//! Which operator calls.

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::auth::{Auth, Operator, Role};

/// The operator behind `authorization: Bearer …`, if its role allows what `needed` may.
///
/// Errors: UNAUTHENTICATED (no or no valid token), PERMISSION_DENIED (role), INTERNAL.
pub async fn authorize(auth: &Auth, metadata: &MetadataMap, needed: Role) -> Result<Operator, Status> {
    let token = metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    Ok(auth.authorize(token, needed).await?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::clock::UnixSeconds;
    use crate::metastore::Metastore;

    #[tokio::test]
    async fn refusals_are_typed() {
        let folder = tempfile::TempDir::new().unwrap();
        let auth = Auth::new(Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap());
        let token = auth.create_token("ada", Role::Analyst, UnixSeconds(0)).await.unwrap();
        let mut metadata = MetadataMap::new();
        let refused =
            async |metadata: &MetadataMap, needed| authorize(&auth, metadata, needed).await.unwrap_err().code();
        assert_eq!(refused(&metadata, Role::Viewer).await, Code::Unauthenticated);
        metadata.insert("authorization", format!("Basic {}", *token).parse().unwrap());
        assert_eq!(refused(&metadata, Role::Viewer).await, Code::Unauthenticated);
        metadata.insert("authorization", format!("Bearer {}", *token).parse().unwrap());
        assert_eq!(refused(&metadata, Role::Engineer).await, Code::PermissionDenied);
        assert_eq!(authorize(&auth, &metadata, Role::Analyst).await.unwrap().name, "ada");
    }
}
