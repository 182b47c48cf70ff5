//! The way to the server, and its clock.

use std::time::{Duration, SystemTime};

use super::{Area, Check};
use crate::identity::Identity;
use crate::uplink::probe::{self, Reached};

/// Clocks may differ by so much before events are hard to put in order …
const CLOCK_WARN: Duration = Duration::from_secs(5);
/// … and by so much before certificates are refused.
const CLOCK_FAIL: Duration = Duration::from_secs(300);
/// Nothing was enrolled before this: seconds since 1970, in 2025.
const CLOCK_EARLIEST_S: u64 = 1_735_689_600;

const CLOCK: &str = "clock";
const SET_CLOCK: &str = "let the host keep time: chrony, systemd-timesyncd or ntpd";

/// How far the server can be reached, and what time it is there.
pub(super) async fn checks(server: &str, identity: Option<&Identity>) -> Vec<Check> {
    let now = SystemTime::now();
    let (mut checks, time) = match identity {
        _ if server.is_empty() => (Vec::new(), None),
        None => (Vec::new(), None),
        Some(identity) => reach(server, identity).await,
    };
    checks.push(clock(now, time));
    checks
}

async fn reach(server: &str, identity: &Identity) -> (Vec<Check>, Option<SystemTime>) {
    let reached = probe::reach(server, identity).await;
    let ok = |name| Check::ok(Area::Server, name, server);
    let fail = |name, why: &str, advice: &str| Check::fail(Area::Server, name, format!("{server}: {why}"), advice);
    let (tcp, tls, calls) = ("server: TCP", "server: TLS", "server: gRPC");
    match reached {
        Reached::Nothing(why) => {
            let advice =
                "check the name and the port (`uplink.server`), the route, and firewalls; is the server running?";
            (vec![fail(tcp, &why, advice)], None)
        }
        Reached::Tcp(why) => {
            let advice = "the server is another one, or does not take this host's certificate (`picketctl host list`): if that is \
                          so, enrol again with a new join token: `picket-agent enroll --force`";
            (vec![ok(tcp), fail(tls, &why, advice)], None)
        }
        Reached::Tls(why) => {
            let advice = "look into the server's log; something between may not let HTTP/2 through";
            (vec![ok(tcp), ok(tls), fail(calls, &why, advice)], None)
        }
        Reached::Calls(time) => (vec![ok(tcp), ok(tls), ok(calls)], time),
    }
}

/// Whether this host's clock is right, by the server's where it is known.
pub(super) fn clock(now: SystemTime, server: Option<SystemTime>) -> Check {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if since.as_secs() < CLOCK_EARLIEST_S {
        return Check::fail(Area::Host, CLOCK, "it is before 2025", SET_CLOCK);
    }
    let Some(server) = server else {
        return Check::ok(Area::Host, CLOCK, "plausible; the server's is not known");
    };
    let (apart, way) = match now.duration_since(server) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let found = format!("{} s {way} the server's", apart.as_secs());
    if apart > CLOCK_FAIL {
        Check::fail(Area::Host, CLOCK, found, SET_CLOCK)
    } else if apart > CLOCK_WARN {
        Check::warn(Area::Host, CLOCK, found, SET_CLOCK)
    } else {
        Check::ok(Area::Host, CLOCK, found)
    }
}
