//! Whether the server can be reached, step by step, for `picket-agent doctor`. Nothing is changed there or here.

use std::time::{Duration, SystemTime};

use picket_proto::v1;
use picket_proto::v1::model_service_client::ModelServiceClient;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::identity::{self, Identity};
use crate::uplink::channel::{self, Terms};

/// How long one step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How far a connection came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Not even a connection: the step, and why.
    Nothing(String),
    /// TCP, but no TLS with certificates that both sides take.
    Tcp(String),
    /// TLS, but calls are not answered.
    Tls(String),
    /// Calls are answered; what time it is there, as far as it says.
    Calls(Option<SystemTime>),
}

/// Tries to reach `address` (`host:port`) as `identity`.
pub(crate) async fn reach(address: &str, identity: &Identity) -> Reached {
    match tokio::time::timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Reached::Nothing(error.to_string()),
        Err(_) => return Reached::Nothing(format!("no answer within {} s", STEP_TIMEOUT.as_secs())),
    }
    let connected = match identity::tls::mutual(identity) {
        Ok(config) => channel::connect(address, config, Terms::default()).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(why) => return Reached::Tcp(why),
    };
    let mut client = ModelServiceClient::new(connection.channel);
    // There is no such model: that it says so is the answer.
    let call = client.fetch(v1::FetchModelRequest { model_digest: "0".repeat(64), offset: 0 });
    let status = match tokio::time::timeout(STEP_TIMEOUT, call).await {
        Ok(Ok(answer)) => Status::with_metadata(Code::Ok, "", answer.metadata().clone()),
        Ok(Err(status)) => status,
        Err(_) => return Reached::Tls(format!("no answer within {} s", STEP_TIMEOUT.as_secs())),
    };
    match status.code() {
        Code::Ok | Code::NotFound | Code::InvalidArgument => Reached::Calls(server_time(&status)),
        _ => match connection.witness.refusal() {
            Some(refusal) => Reached::Tcp(format!("the server refused this host's certificate: {refusal}")),
            None => Reached::Tls(format!("{:?}: {}", status.code(), status.message())),
        },
    }
}

/// The `date` of an answer.
fn server_time(status: &Status) -> Option<SystemTime> {
    let date = status.metadata().get("date")?.to_str().ok()?;
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    Some(time::PrimitiveDateTime::parse(date, format).ok()?.assume_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let mut status = Status::not_found("");
        assert_eq!(server_time(&status), None);
        status.metadata_mut().insert("date", "Thu, 01 Jan 1970 00:01:40 GMT".parse().unwrap());
        assert_eq!(server_time(&status), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100)));
    }
}
