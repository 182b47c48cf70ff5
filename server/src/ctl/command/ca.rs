//! `picketctl ca …`

use picket_proto::v1;

use crate::ctl::arguments::CaVerb;
use crate::ctl::client::Client;
use crate::ctl::command::{object, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, columns};

pub(super) async fn run(client: &mut Client, verb: &CaVerb, output: &mut Output<'_>) -> Result<(), CtlError> {
    match verb {
        CaVerb::List => list(client, output).await,
        CaVerb::Rotate => rotate(client, output).await,
        CaVerb::Retire { force } => retire(client, *force, output).await,
    }
}

async fn list(client: &mut Client, output: &mut Output<'_>) -> Result<(), CtlError> {
    let answer = client.list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
    let shown = columns([
        ("SHA-256", "sha256"),
        ("role", "role"),
        ("issuing", "issuing"),
        ("valid until", "not_after"),
        ("hosts", "hosts"),
        ("that trust it", "hosts_trusting"),
        ("with its certificate", "hosts_certified"),
    ]);
    let rows = answer.authorities.into_iter().map(|authority| {
        object([
            ("sha256", authority.sha256.into()),
            ("role", authority.role.into()),
            ("issuing", authority.issuing.into()),
            ("not_after", time_text(authority.not_after_unix_s)),
            ("hosts", answer.hosts.into()),
            ("hosts_trusting", authority.hosts_trusting.into()),
            ("hosts_certified", authority.hosts_certified.into()),
        ])
    });
    output.rows(&shown, rows.collect())
}

async fn rotate(client: &mut Client, output: &mut Output<'_>) -> Result<(), CtlError> {
    let sha256 = client.rotate_authority(v1::RotateAuthorityRequest {}).await?.into_inner().sha256;
    let text = format!(
        "{sha256} is to take over; both are accepted. Replace copies of ca.pem, and when `picketctl ca list` shows every host \
         with its certificate: picketctl ca retire"
    );
    output.one(&text, object([("sha256", sha256.into())]))
}

async fn retire(client: &mut Client, force: bool, output: &mut Output<'_>) -> Result<(), CtlError> {
    let sha256 = client.retire_authority(v1::RetireAuthorityRequest { force }).await?.into_inner().sha256;
    output.one(&format!("{sha256} is refused from now on"), object([("sha256", sha256.into())]))
}
