//! `picketctl token …`

use picket_proto::v1;

use crate::ctl::arguments::TokenVerb;
use crate::ctl::client::Client;
use crate::ctl::command::{object, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::output::Output;

pub(super) async fn run(client: &mut Client, verb: &TokenVerb, output: &mut Output<'_>) -> Result<(), CtlError> {
    let TokenVerb::Create { valid_for, max_uses } = verb;
    let valid_for_s = u32::try_from(valid_for.as_secs())
        .ok()
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| CtlError::Argument("--valid-for is 1 second to 30 days".to_owned()))?;
    let request = v1::CreateTokenRequest { valid_for_s, max_uses: *max_uses };
    let answer = client.create_token(request).await?.into_inner();
    // The token alone, so that it can be piped into a file.
    let text = answer.join_token.clone();
    let result = object([
        ("join_token", answer.join_token.into()),
        ("expires", time_text(answer.expires_unix_s)),
        ("max_uses", (*max_uses).into()),
    ]);
    output.one(&text, result)
}
