use proptest::prelude::*;

use super::*;
use crate::event::{ByteString, ConnectionClose, ConnectionOutcome, Direction, DnsAction, ProcessStart, Protocol};

/// Events, and the bad lines with their number.
fn read(format: Option<LogFormat>, log: &[u8]) -> (Vec<ImportedEvent>, Vec<(usize, LineError)>, Importer) {
    let mut importer = Importer::new(format);
    let (mut events, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in log.split(|byte| *byte == b'\n').enumerate() {
        if let Err(error) = importer.line(line, &mut events) {
            bad.push((index + 1, error));
        }
    }
    importer.finish(&mut events);
    (events, bad, importer)
}

fn close(event: &ImportedEvent) -> &ConnectionClose {
    let EventBody::ConnectionClose(close) = &event.event.body else { panic!("{event:?}") };
    close
}

fn start(event: &ImportedEvent) -> &ProcessStart {
    let EventBody::ProcessStart(start) = &event.event.body else { panic!("{event:?}") };
    start
}

/// Written from Zeek's documentation of its log formats.
const ZEEK_CONN: &str = concat!(
    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t2026-01-02-03-04-05\n",
    "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tresp_bytes\tconn_state\t",
    "local_orig\tlocal_resp\torig_pkts\tresp_pkts\n",
    "#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tinterval\tcount\tcount\tstring\tbool\tbool\tcount\tcount\n",
    "1767323045.250000\tCa1\t192.0.2.10\t50000\t198.51.100.7\t443\ttcp\t1.500000\t700\t9000\tSF\tT\tF\t12\t15\n",
    "1767323046.000000\tCa2\t203.0.113.9\t40000\t192.0.2.10\t22\ttcp\t-\t-\t-\tREJ\tF\tT\t1\t1\n",
    "1767323047.000000\tCa3\t192.0.2.10\t3\t192.0.2.1\t1\ticmp\t-\t-\t-\tOTH\tT\tT\t1\t0\n",
    "#close\t2026-01-02-04-00-00\n",
);

#[test]
fn zeek_connections_are_seen_from_their_local_end() {
    let (events, bad, importer) = read(None, ZEEK_CONN.as_bytes());
    assert_eq!((importer.format(), importer.skipped(), bad), (Some(LogFormat::Zeek), 1, vec![]));
    let [out, inbound] = &events[..] else { panic!("{events:?}") };
    assert_eq!((out.host.as_str(), out.event.origin), ("192.0.2.10", Origin::Zeek));
    assert_eq!(out.event.time, Timestamp(1_767_323_046_750_000_000), "the end");
    let sent = close(out);
    assert_eq!((sent.connection.direction, sent.connection.protocol), (Direction::Outbound, Protocol::Tcp));
    assert_eq!(sent.connection.remote, "198.51.100.7:443".parse().unwrap());
    assert_eq!((sent.bytes_sent, sent.bytes_received), (Some(700), Some(9_000)));
    assert_eq!((sent.segments_sent, sent.segments_received), (Some(12), Some(15)));
    assert_eq!((sent.duration_ns, sent.outcome), (Some(1_500_000_000), ConnectionOutcome::Closed));
    let refused = close(inbound);
    assert_eq!((refused.connection.direction, refused.outcome), (Direction::Inbound, ConnectionOutcome::Refused));
    assert_eq!(refused.connection.local, "192.0.2.10:22".parse().unwrap());
    assert_eq!((refused.bytes_sent, refused.duration_ns), (None, None));
    assert_ne!(sent.connection.cookie, refused.connection.cookie);
    assert_eq!([out, inbound].map(|event| event.event.key.sequence), [Sequence(0), Sequence(1)]);
}

#[test]
fn zeek_json_says_the_same_as_its_tables() {
    let json = concat!(
        r#"{"ts":1767323045.25,"uid":"Ca1","id.orig_h":"192.0.2.10","id.orig_p":50000,"id.resp_h":"198.51.100.7","#,
        r#""id.resp_p":443,"proto":"tcp","duration":1.5,"orig_bytes":700,"resp_bytes":9000,"conn_state":"SF","#,
        r#""local_orig":true,"local_resp":false,"orig_pkts":12,"resp_pkts":15}"#,
    );
    let (events, bad, _) = read(None, json.as_bytes());
    assert_eq!(bad, []);
    assert_eq!(events[0], read(None, ZEEK_CONN.as_bytes()).0[0]);
    // Times as ISO 8601 are an option of Zeek's JSON.
    let (iso, _, _) = read(None, json.replace("1767323045.25", "\"2026-01-02T03:04:05.250000Z\"").as_bytes());
    assert_eq!(iso, events);
}

#[test]
fn zeek_dns_keeps_bytes_and_answers() {
    let log = concat!(
        "#separator \\x09\n#path\tdns\n",
        "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\ttrans_id\trtt\tquery\tqtype\trcode\tanswers\n",
        "1.5\tC1\t192.0.2.10\t5353\t192.0.2.1\t53\tudp\t77\t0.25\ta\\x09b.example\t16\t0\tx.example,192.0.2.8\n",
        "2.5\tC2\t192.0.2.10\t5353\t192.0.2.1\t53\tudp\t78\t-\tlost.example\t1\t-\t-\n",
    );
    let (events, bad, _) = read(None, log.as_bytes());
    assert_eq!(bad, []);
    let dns = |event: &ImportedEvent| match &event.event.body {
        EventBody::DnsActivity(dns) => dns.clone(),
        body => panic!("{body:?}"),
    };
    let (answered, lost) = (dns(&events[0]), dns(&events[1]));
    assert_eq!((answered.action, answered.query_type, answered.response_code), (DnsAction::Response, 16, Some(0)));
    assert_eq!(answered.name.as_bytes(), b"a\tb.example");
    assert_eq!(answered.answers, ["x.example", "192.0.2.8"].map(ByteString::from));
    assert_eq!((answered.server, answered.duration_ns), (Some("192.0.2.1:53".parse().unwrap()), Some(250_000_000)));
    assert_eq!((lost.action, lost.response_code, lost.answers.len()), (DnsAction::Query, None, 0));
}

#[test]
fn zeek_rows_that_do_not_fit_their_header_are_named() {
    let log =
        format!("1.5\ta\tb\n{ZEEK_CONN}1.5\ttoo\tfew\n{}", ZEEK_CONN.lines().nth(8).unwrap().replace("443", "70000"));
    let (events, bad, _) = read(Some(LogFormat::Zeek), log.as_bytes());
    assert_eq!(events.len(), 2);
    let port = LineError::Malformed { field: "id.resp_p", expected: "a whole number in its range" };
    assert_eq!(bad, [(1, LineError::NoHeader), (14, LineError::FieldCount { found: 3, expected: 15 }), (15, port)]);
}

/// Written from Suricata's documentation of EVE.
const EVE: &str = concat!(
    r#"{"timestamp":"2026-01-02T03:04:10.000000+0100","flow_id":77,"event_type":"flow","src_ip":"192.0.2.10","src_port":50000,"dest_ip":"198.51.100.7","dest_port":443,"proto":"TCP","flow":{"pkts_toserver":12,"pkts_toclient":15,"bytes_toserver":700,"bytes_toclient":9000,"start":"2026-01-02T03:04:05.000000+0100","end":"2026-01-02T03:04:06.500000+0100","state":"closed","reason":"timeout"},"tcp":{"fin":true,"psh":true}}"#,
    "\n",
    r#"{"timestamp":"2026-01-02T03:04:05.100000+0100","flow_id":77,"event_type":"alert","src_ip":"192.0.2.10","src_port":50000,"dest_ip":"198.51.100.7","dest_port":443,"proto":"TCP","alert":{"signature":"test"}}"#,
    "\n",
    r#"{"timestamp":"2026-01-02T03:04:05.100000+0100","event_type":"stats","stats":{}}"#,
    "\n",
    r#"{"timestamp":"2026-01-02T03:04:05.100000+0100","flow_id":9,"event_type":"dns","src_ip":"192.0.2.10","src_port":1,"dest_ip":"192.0.2.1","dest_port":53,"proto":"UDP","dns":{"type":"answer","id":5,"rrname":"none.example","rrtype":"TXT","rcode":"NXDOMAIN"}}"#,
);

#[test]
fn suricata_flows_alerts_and_dns_are_events() {
    let (events, bad, importer) = read(None, EVE.as_bytes());
    assert_eq!((importer.format(), importer.skipped(), bad), (Some(LogFormat::Suricata), 1, vec![]));
    let [flow, alert, dns] = &events[..] else { panic!("{events:?}") };
    assert_eq!((flow.event.origin, flow.host.as_str()), (Origin::Suricata, "192.0.2.10"));
    assert_eq!(flow.event.time, Timestamp(1_767_319_446_500_000_000));
    let closed = close(flow);
    assert_eq!((closed.bytes_sent, closed.bytes_received), (Some(700), Some(9_000)));
    assert_eq!((closed.duration_ns, closed.outcome), (Some(1_500_000_000), ConnectionOutcome::Closed));
    let EventBody::ConnectionOpen(open) = &alert.event.body else { panic!("{alert:?}") };
    assert_eq!(open.cookie, closed.connection.cookie, "the same connection");
    let EventBody::DnsActivity(dns) = &dns.event.body else { panic!("{dns:?}") };
    assert_eq!((dns.query_type, dns.response_code, dns.transaction_id), (16, Some(3), 5));
}

/// Written from the audit documentation: a shell starts a program whose argument needed hexadecimal digits; records of
/// two events are mixed; a program that did not start; a login.
const AUDIT: &str = concat!(
    "type=SYSCALL msg=audit(1767323045.100:10): arch=c000003e syscall=59 success=yes exit=0 ppid=1 pid=400 auid=1000 uid=0 gid=0 euid=0 egid=0 tty=pts0 ses=3 comm=\"sh\" exe=\"/usr/bin/dash\" key=(null)\n",
    "type=EXECVE msg=audit(1767323045.100:10): argc=3 a0=\"sh\" a1=\"-c\" a2=6C73202D6C\n",
    "type=CWD msg=audit(1767323045.100:10): cwd=\"/root\"\n",
    "type=SYSCALL msg=audit(1767323045.200:11): arch=c000003e syscall=59 success=yes exit=0 ppid=400 pid=401 uid=0 euid=4294967295 egid=0 tty=(none) exe=\"/usr/bin/ls\"\n",
    "type=PATH msg=audit(1767323045.100:10): item=0 name=\"/bin/sh\"\n",
    "type=PROCTITLE msg=audit(1767323045.100:10): proctitle=7368002D63006C73202D6C\n",
    "type=EXECVE msg=audit(1767323045.200:11): argc=2 a0=\"ls\" a1_len=6 a1[0]=\"-la\" a1[1]=\"bcd\"\n",
    "type=PROCTITLE msg=audit(1767323045.200:11): proctitle=6C73\n",
    "type=SYSCALL msg=audit(1767323045.300:12): arch=c000003e syscall=59 success=no exit=-2 ppid=400 pid=402 uid=0 euid=0 egid=0 tty=pts0 exe=\"/usr/bin/dash\"\n",
    "type=EXECVE msg=audit(1767323045.300:12): argc=1 a0=\"nothing\"\n",
    "type=CONFIG_CHANGE msg=audit(1767323045.300:13): op=set res=1\n",
    "node=web1 type=USER_LOGIN msg=audit(1767323046.000:14): pid=900 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct=\"admin\" exe=\"/usr/sbin/sshd\" hostname=? addr=203.0.113.5 terminal=sshd res=failed'",
);

#[test]
fn auditd_records_become_program_starts_with_their_parents() {
    let (events, bad, importer) = read(None, AUDIT.as_bytes());
    assert_eq!((importer.format(), importer.skipped(), bad), (Some(LogFormat::Auditd), 1, vec![]));
    let [shell, list, login] = &events[..] else { panic!("{events:?}") };
    let (first, second) = (start(shell), start(list));
    assert_eq!((shell.event.origin, shell.event.time), (Origin::Auditd, Timestamp(1_767_323_045_100_000_000)));
    assert_eq!(first.arguments, ["sh", "-c", "ls -l"].map(ByteString::from));
    assert_eq!(
        (first.executable.to_string(), first.working_directory.to_string()),
        ("/usr/bin/dash".into(), "/root".into())
    );
    assert_eq!((first.user_id, first.has_terminal, first.parent), (Some(0), Some(true), None));
    assert_eq!(second.arguments, ["ls", "-labcd"].map(ByteString::from));
    assert_eq!((second.parent, second.ancestors.clone()), (Some(first.process), vec!["/usr/bin/dash".into()]));
    assert_eq!((second.user_id, second.has_terminal), (None, Some(false)));
    let EventBody::Authentication(login_body) = &login.event.body else { panic!("{login:?}") };
    assert_eq!((login.host.as_str(), login_body.success), ("web1", false));
    assert_eq!((login_body.user_name.to_string(), login_body.service.to_string()), ("admin".into(), "sshd".into()));
    assert_eq!(login_body.source, Some("203.0.113.5".parse().unwrap()));
}

#[test]
fn a_megabyte_of_arguments_is_cut_to_the_limits_of_an_event() {
    let head = AUDIT.lines().next().unwrap();
    let long = "41".repeat(400_000);
    let many: String = (1..2_000).map(|index| format!(" a{index}=\"x\"")).collect();
    for tail in [format!(" a1={long}"), many] {
        let log = format!("{head}\ntype=EXECVE msg=audit(1767323045.100:10): argc=2 a0=\"sh\"{tail}\n");
        let (events, bad, _) = read(None, log.as_bytes());
        assert_eq!(bad, []);
        let start = start(&events[0]);
        assert!(start.arguments_truncated && start.arguments.len() <= 64);
        events[0].event.size().unwrap();
    }
}

#[test]
fn hostile_fields_arrive_as_bytes_and_lines_are_bounded() {
    let field = "\\u001b[2J".repeat(150_000);
    let json = EVE.lines().last().unwrap().replace("none.example", &field);
    let (events, bad, _) = read(None, &json.as_bytes()[..LINE_BYTES_MAX.min(json.len())]);
    assert!(events.is_empty() && bad.len() == 1, "cut within a text: {bad:?}");
    let json = EVE.lines().last().unwrap().replace("none.example", &field[..900_000]);
    let (events, bad, _) = read(None, json.as_bytes());
    assert_eq!(bad, []);
    let EventBody::DnsActivity(dns) = &events[0].event.body else { panic!("{events:?}") };
    assert_eq!(dns.name.len(), crate::event::limits::STRING_BYTES_MAX);
    assert!(!dns.name.to_string().contains('\u{1b}'), "shown escaped");
    let long = vec![b'x'; LINE_BYTES_MAX + 1];
    assert_eq!(Importer::new(None).line(&long, &mut Vec::new()), Err(LineError::TooLong));
    assert_eq!(Importer::new(Some(LogFormat::Zeek)).line(b"\xff", &mut Vec::new()), Err(LineError::NotUtf8));
}

#[test]
fn pickets_own_lines_keep_their_keys_and_hosts() {
    let event = read(None, EVE.as_bytes()).0.remove(0).event;
    let mut value = crate::event::json::to_json(&event);
    value["host_id"] = "h".into();
    let (events, bad, importer) = read(None, format!("{value}\n{{}}").as_bytes());
    assert_eq!(importer.format(), Some(LogFormat::Events));
    assert_eq!(events, [ImportedEvent { host: "h".to_owned(), event }]);
    assert!(matches!(bad[..], [(2, LineError::Event(_))]), "{bad:?}");
}

#[test]
fn what_is_of_no_format_is_refused_until_something_is() {
    let (events, bad, _) = read(None, format!("hello\n[1]\n\n{EVE}").as_bytes());
    assert_eq!(events.len(), 3);
    assert_eq!(bad, [(1, LineError::UnknownFormat), (2, LineError::UnknownFormat)]);
}

#[test]
fn audit_events_that_never_end_are_bounded() {
    let mut importer = Importer::new(Some(LogFormat::Auditd));
    let mut events = Vec::new();
    for serial in 0..10_000 {
        let line = format!("type=EXECVE msg=audit(1767323045.100:{serial}): argc=1 a0=\"sh\"");
        importer.line(line.as_bytes(), &mut events).unwrap();
    }
    importer.finish(&mut events);
    assert!(events.is_empty(), "starts without a system call");
}

/// A good line, cut, repeated or with some bytes changed.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&'static str> = ZEEK_CONN.lines().chain(EVE.lines()).chain(AUDIT.lines()).collect();
    (
        prop::sample::select(lines),
        any::<prop::sample::Index>(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    )
        .prop_map(|(line, cut, changes)| {
            let mut bytes = line.as_bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes
        })
}

proptest! {
    #[test]
    fn whatever_comes_is_an_event_within_limits_or_an_error(
        format in prop::sample::select(vec![None, Some(LogFormat::Zeek), Some(LogFormat::Suricata), Some(LogFormat::Auditd), Some(LogFormat::Events)]),
        lines in prop::collection::vec(prop_oneof![mangled(), prop::collection::vec(any::<u8>(), 0..200)], 0..40),
    ) {
        let mut importer = Importer::new(format);
        let mut events = Vec::new();
        for line in &lines {
            importer.line(line, &mut events).ok();
        }
        importer.finish(&mut events);
        for event in &events {
            prop_assert!(event.event.size().is_ok());
        }
    }
}
