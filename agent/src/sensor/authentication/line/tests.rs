//! Golden lines, honest and hostile.

use super::*;

/// The login of a line, in one line: `action service success user(id?exists) acting terminal command method source`.
fn told(line: &str) -> Option<String> {
    let entry = parse(line.as_bytes())?;
    let login = entry.authentication;
    let mut text = format!("{} {} {} user={}", login.action.name(), login.service, login.success, login.user_name);
    for (key, value) in [
        ("by", login.acting_user_name.to_string()),
        ("tty", login.terminal.to_string()),
        ("command", login.command.to_string()),
        ("method", login.method.to_string()),
        ("from", login.source.map(|source| source.to_string()).unwrap_or_default()),
        ("port", login.source_port.map(|port| port.to_string()).unwrap_or_default()),
        ("uid", login.user_id.map(|id| id.to_string()).unwrap_or_default()),
        ("exists", login.user_exists.map(|exists| exists.to_string()).unwrap_or_default()),
        ("pid", entry.pid.map(|pid| pid.to_string()).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            text.push_str(&format!(" {key}={value}"));
        }
    }
    Some(text)
}

#[test]
fn lines_are_read() {
    for (line, expected) in [
        (
            "2026-11-23T04:21:03.123456+01:00 web1 sshd[640]: Accepted publickey for ada from 10.0.0.9 port 51044 ssh2: ED25519 SHA256:x",
            "logon sshd true user=ada method=publickey from=10.0.0.9 port=51044 exists=true pid=640",
        ),
        (
            "Nov 23 04:21:03 web1 sshd[640]: Failed password for root from 198.51.100.23 port 22 ssh2",
            "logon sshd false user=root method=password from=198.51.100.23 port=22 exists=true pid=640",
        ),
        (
            "Nov  3 04:21:03 web1 sshd-session[7]: Failed password for invalid user admin from 2001:db8::1 port 4 ssh2",
            "logon sshd false user=admin method=password from=2001:db8::1 port=4 exists=false pid=7",
        ),
        (
            "Nov 23 04:21:03 web1 sshd[640]: Invalid user oracle from 198.51.100.23 port 3333",
            "logon sshd false user=oracle from=198.51.100.23 port=3333 exists=false pid=640",
        ),
        (
            "Nov 23 04:21:03 web1 sshd[640]: pam_unix(sshd:session): session closed for user ada",
            "logoff sshd true user=ada exists=true pid=640",
        ),
        (
            "Nov 23 04:21:03 web1 sudo:      ada : TTY=pts/0 ; PWD=/home/ada ; USER=root ; COMMAND=/usr/bin/id -u",
            "logon sudo true user=root by=ada tty=pts/0 command=/usr/bin/id -u exists=true",
        ),
        (
            "Nov 23 04:21:03 web1 sudo[9]: ada : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
            "logon sudo false user=root by=ada tty=pts/0 command=/bin/sh pid=9",
        ),
        (
            "Nov 23 04:21:03 web1 sudo: ada : user NOT in sudoers ; TTY=unknown ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
            "logon sudo false user=root by=ada command=/bin/sh",
        ),
        (
            "Nov 23 04:21:03 web1 sudo: ada : PWD=/ ; USER=root ; COMMAND=/bin/sh",
            "logon sudo true user=root by=ada command=/bin/sh exists=true",
        ),
        (
            "Nov 23 04:21:03 web1 su[77]: (to root) ada on pts/3",
            "logon su true user=root by=ada tty=pts/3 exists=true pid=77",
        ),
        (
            "Nov 23 04:21:03 web1 su[77]: FAILED SU (to root) ada on pts/3",
            "logon su false user=root by=ada tty=pts/3 pid=77",
        ),
        (
            "Nov 23 04:21:03 web1 su[77]: pam_unix(su-l:session): session closed for user root",
            "logoff su true user=root exists=true pid=77",
        ),
        (
            "Nov 23 04:21:03 web1 login[5]: FAILED LOGIN (1) on '/dev/tty1' FOR 'ada', Authentication failure",
            "logon login false user=ada tty=tty1 pid=5",
        ),
        (
            "Nov 23 04:21:03 web1 login[5]: pam_unix(login:session): session opened for user ada(uid=1000) by LOGIN(uid=0)",
            "logon login true user=ada by=LOGIN uid=1000 exists=true pid=5",
        ),
        (
            "Nov 23 04:21:03 web1 CRON[8]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
            "logon cron true user=root uid=0 exists=true pid=8",
        ),
        (
            "Nov 23 04:21:03 web1 CRON[8]: pam_unix(cron:session): session closed for user root",
            "logoff cron true user=root exists=true pid=8",
        ),
        (
            "Nov 23 04:21:03 web1 vsftpd[6]: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=bob rhost=192.0.2.1  user=bob",
            "logon vsftpd false user=bob by=bob tty=ftp from=192.0.2.1 pid=6",
        ),
    ] {
        assert_eq!(told(line).as_deref(), Some(expected), "{line}");
    }
}

#[test]
fn what_those_outside_control_forges_nothing() {
    for (line, expected) in [
        // A user name that looks like the rest of the line: the address is the one that sshd wrote last.
        (
            "Nov 23 04:21:03 web1 sshd[640]: Failed password for invalid user x from 10.0.0.1 port 1 ssh2 from 198.51.100.23 port 22 ssh2",
            "logon sshd false user=x from 10.0.0.1 port 1 ssh2 method=password from=198.51.100.23 port=22 exists=false pid=640",
        ),
        (
            "Nov 23 04:21:03 web1 sshd[640]: Invalid user Accepted password for root from 10.0.0.1 from 198.51.100.23 port 1",
            "logon sshd false user=Accepted password for root from 10.0.0.1 from=198.51.100.23 port=1 exists=false pid=640",
        ),
        (
            "Nov 23 04:21:03 web1 sshd[640]: Invalid user  from 198.51.100.23 port 1",
            "logon sshd false user= from=198.51.100.23 port=1 exists=false pid=640",
        ),
        // A folder's name that holds fields of sudo: who asked, for whom and whether stays right.
        (
            "Nov 23 04:21:03 web1 sudo: eve : 1 incorrect password attempt ; TTY=pts/1 ; PWD=/tmp/a ; USER=nobody ; USER=root ; COMMAND=/bin/sh",
            "logon sudo false user=root by=eve tty=pts/1 command=/bin/sh",
        ),
        (
            "Nov 23 04:21:03 web1 sudo: eve : TTY=pts/1 ; PWD=/tmp ; USER=root ; COMMAND=/bin/echo ; USER=nobody ; COMMAND=x",
            "logon sudo true user=root by=eve tty=pts/1 command=/bin/echo ; USER=nobody ; COMMAND=x exists=true",
        ),
    ] {
        assert_eq!(told(line).as_deref(), Some(expected), "{line}");
    }
    let wrong_bytes =
        b"Nov 23 04:21:03 web1 sshd[1]: Failed password for invalid user \xff\x1b[2J from 192.0.2.1 port 9 ssh2";
    let entry = parse(wrong_bytes).unwrap();
    assert_eq!(entry.authentication.user_name.to_string(), "\u{fffd}\\x1b[2J");
}

#[test]
fn other_lines_say_nothing() {
    for line in [
        "",
        " ",
        "Nov 23 04:21:03",
        "Nov 23 04:21:03 web1",
        "Nov 23 04:21:03 web1 sshd[640]",
        "Nov 23 04:21:03 web1 sshd[640]: ",
        "Nov 23 04:21:03 web1 sshd[x]: Accepted password for ada from 10.0.0.9 port 1 ssh2",
        "Nov 23 04:21:03 web1 sshd[640]: Server listening on 0.0.0.0 port 22.",
        "Nov 23 04:21:03 web1 sshd[640]: Accepted password for ada from somewhere port 1 ssh2",
        "Nov 23 04:21:03 web1 sshd[640]: pam_unix(sshd:session): session opened for user ada(uid=1000) by (uid=0)",
        "Nov 23 04:21:03 web1 sshd[640]: pam_unix(sshd:auth): authentication failure; rhost=1.2.3.4  user=root",
        "Nov 23 04:21:03 web1 logger: Accepted password for root from 10.0.0.9 port 1 ssh2",
        "Nov 23 04:21:03 web1 systemd-logind[1]: New session 3 of user ada.",
        "Nov 23 04:21:03 web1 sudo: pam_unix(sudo:session): session opened for user root(uid=0) by ada(uid=1000)",
        "sshd[640]: Accepted password for ada from 10.0.0.9 port 1 ssh2",
    ] {
        assert_eq!(told(line), None, "{line}");
    }
}

#[test]
fn times_are_read_where_they_are_whole() {
    let time = |line: &str| parse(line.as_bytes()).unwrap().time;
    assert_eq!(
        time("2026-11-23T04:21:03.5+01:00 h su[7]: (to root) ada on pts/3"),
        Some(Timestamp(1_795_404_063_500_000_000))
    );
    assert_eq!(time("Nov 23 04:21:03 h su[7]: (to root) ada on pts/3"), None);
}

proptest::proptest! {
    #[test]
    fn no_line_breaks_the_parser(
        head in "(Nov 23 04:21:03|2026-11-23T04:21:03Z) h (sshd\\[1\\]|sudo|su|login|CRON\\[2\\]): ",
        body in "(Accepted |Failed |Invalid user | : |TTY=|USER=|COMMAND=|\\(to |pam_unix\\(|:session\\): | for | from | port |[ -~é]){0,12}",
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
    ) {
        parse(format!("{head}{body}").as_bytes());
        parse(&noise);
        parse(&[head.as_bytes(), &noise].concat());
    }
}
