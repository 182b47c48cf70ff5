#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

async fn auth() -> (TempDir, Auth) {
    let folder = TempDir::new().unwrap();
    let auth = Auth::new(Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap());
    (folder, auth)
}

#[tokio::test]
async fn each_role_may_do_what_the_ones_before_it_may() {
    let (_folder, auth) = auth().await;
    for has in Role::ALL {
        let token = auth.create_token(has.name(), has, NOW).await.unwrap();
        for needed in Role::ALL {
            let outcome = auth.authorize(Some(&token), needed).await;
            if needed <= has {
                assert_eq!(outcome.unwrap(), Operator { name: has.name().into(), role: has });
            } else {
                assert!(matches!(outcome, Err(AuthError::Forbidden { .. })), "{has} must not do what {needed} may");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_valid_token_is_refused() {
    let (_folder, auth) = auth().await;
    let token = auth.create_token("ada", Role::Admin, NOW).await.unwrap();
    assert!(matches!(auth.authorize(None, Role::Viewer).await, Err(AuthError::Missing)));
    let mut flipped = token.to_string();
    let last = flipped.pop().unwrap();
    flipped.push(if last == '0' { '1' } else { '0' });
    for text in ["", "picket_", "x", &token[1..], &token[..token.len() - 1], &token.to_uppercase(), &flipped] {
        assert!(matches!(auth.authorize(Some(text), Role::Viewer).await, Err(AuthError::Invalid)), "{text}");
    }
    auth.metastore.revoke_api_token(1, NOW).await.unwrap();
    assert!(matches!(auth.authorize(Some(&token), Role::Viewer).await, Err(AuthError::Invalid)));
}

#[tokio::test]
async fn the_first_start_makes_one_administrator() {
    let (folder, auth) = auth().await;
    let path = folder.path().join("admin.token");
    auth.ensure_admin(&path, NOW).await.unwrap();
    let token = fs::read_to_string(&path).unwrap();
    assert_eq!(auth.authorize(Some(&token), Role::Admin).await.unwrap().name, "admin");
    auth.ensure_admin(&path, NOW).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), token);
    assert_eq!(auth.metastore.api_tokens().await.unwrap().len(), 1);

    auth.metastore.revoke_api_token(1, NOW).await.unwrap();
    auth.ensure_admin(&path, NOW).await.unwrap();
    let renewed = fs::read_to_string(&path).unwrap();
    assert_ne!(renewed, token, "a revoked token does not come back");
    auth.authorize(Some(&renewed), Role::Admin).await.unwrap();
}

#[tokio::test]
async fn a_token_that_was_written_but_not_kept_becomes_valid() {
    let (folder, auth) = auth().await;
    let path = folder.path().join("admin.token");
    let text = token_text(&[5; TOKEN_BYTES]);
    secret::write_private(&path, text.as_bytes()).unwrap();
    auth.ensure_admin(&path, NOW).await.unwrap();
    auth.authorize(Some(&text), Role::Admin).await.unwrap();
}

#[tokio::test]
async fn a_name_is_short_and_printable() {
    let (_folder, auth) = auth().await;
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(auth.create_token(name, Role::Viewer, NOW).await, Err(AuthError::Name)));
    }
}
