//! Columns of logins, files, DNS and risky calls of the kernel.

use picket_common::event::{Authentication, DnsActivity, EventBody, FileActivity, KernelActivity};

use super::ColumnKind::{Boolean, Integer, Long, Text, TextList};
use super::{
    Cell, Column, Row, address, column, count, flag, flow_information, known, long, optional, pid, port, process_start,
};

pub(super) const AUTHENTICATION: &[Column] = &[
    column("user_name", Text, "Account that was asked for", |row| {
        authentication(row).map_or(Cell::Null, |authentication| Cell::Text(&authentication.user_name))
    }),
    column("success", Boolean, "Whether it was let in", |row| {
        flag(authentication(row).map(|authentication| authentication.success))
    }),
    column("service", Text, "Service: sshd, sudo …", |row| {
        authentication(row).map_or(Cell::Null, |authentication| Cell::Text(&authentication.service))
    }),
    column("source_address", Text, "Where from", |row| {
        authentication(row).and_then(|login| login.source).map_or(Cell::Null, |source| Cell::Address(source, 0))
    }),
    column("pid", Long, "Process that decided", |row| {
        authentication(row).and_then(|login| login.process).map_or(Cell::Null, |process| long(process.pid))
    }),
    column("process_start_ns", Long, "When that process was created, ns since 1970", |row| {
        let process = authentication(row).and_then(|login| login.process);
        process.map_or(Cell::Null, |process| Cell::Long(process.start_time.0))
    }),
    column("user_id", Long, "User id of the account", |row| {
        authentication(row).map_or(Cell::Null, |login| optional(login.user_id))
    }),
    column("user_exists", Boolean, "Whether the account exists", |row| {
        flag(authentication(row).and_then(|login| login.user_exists))
    }),
    column("method", Text, "How: password, publickey …", |row| {
        authentication(row).map_or(Cell::Null, |login| known(&login.method))
    }),
    column("acting_user_name", Text, "Account that asked, as who ran sudo", |row| {
        authentication(row).map_or(Cell::Null, |login| known(&login.acting_user_name))
    }),
    column("terminal", Text, "Terminal, such as pts/0", |row| {
        authentication(row).map_or(Cell::Null, |login| known(&login.terminal))
    }),
    column("command", Text, "Command that was asked for (sudo)", |row| {
        authentication(row).map_or(Cell::Null, |login| known(&login.command))
    }),
    column("source_port", Integer, "Port of the other end", |row| {
        port(authentication(row).and_then(|login| login.source_port))
    }),
];

pub(super) const FILE_ACTIVITY: &[Column] = &[
    column("path", Text, "Absolute path; of a rename, the old one", |row| {
        file(row).map_or(Cell::Null, |file| Cell::Text(&file.path))
    }),
    column("new_path", Text, "Absolute path after a rename", |row| {
        file(row).map_or(Cell::Null, |file| known(&file.new_path))
    }),
    column("is_directory", Boolean, "Whether it is a folder", |row| flag(file(row).and_then(|file| file.is_directory))),
    column("mode", Long, "Type and permission bits (st_mode) after the change", |row| {
        file(row).map_or(Cell::Null, |file| optional(file.mode))
    }),
    column("owner_id", Long, "The file's owner after the change", |row| {
        file(row).map_or(Cell::Null, |file| optional(file.owner_id))
    }),
    column("pid", Long, "Process that did it", |row| pid(file(row).and_then(|file| file.process))),
    column("process_start_ns", Long, "When that process was created, ns since 1970", |row| {
        process_start(file(row).and_then(|file| file.process))
    }),
    column("executable", Text, "That process' executable", |row| {
        file(row).map_or(Cell::Null, |file| known(&file.executable))
    }),
    column("user_id", Long, "That process' effective user id", |row| {
        file(row).map_or(Cell::Null, |file| optional(file.user_id))
    }),
];

pub(super) const DNS_ACTIVITY: &[Column] = &[
    column("query_name", Text, "Name that is asked for", |row| {
        dns(row).map_or(Cell::Null, |dns| Cell::Text(&dns.name))
    }),
    column("query_type", Integer, "Type that is asked for: 1 A, 28 AAAA, 16 TXT …", |row| {
        dns(row).map_or(Cell::Null, |dns| Cell::Integer(dns.query_type.into()))
    }),
    column("response_code", Integer, "0 no error, 3 no such name …", |row| {
        port(dns(row).and_then(|dns| dns.response_code))
    }),
    column("answers", TextList, "Addresses and names in the response", |row| {
        dns(row).map_or(Cell::Null, |dns| Cell::TextList(&dns.answers))
    }),
    column("answers_truncated", Boolean, "Whether there were more answers", |row| {
        flag(dns(row).map(|dns| dns.answers_truncated))
    }),
    column("server_address", Text, "Address of the server; after a % its IPv6 scope", |row| {
        dns(row).and_then(|dns| dns.server).map_or(Cell::Null, |server| address(&server))
    }),
    column("server_port", Integer, "Port of the server", |row| {
        port(dns(row).and_then(|dns| dns.server).map(|server| server.port()))
    }),
    column("server_flow_information", Long, "IPv6 flow information of the server, when it is not 0", |row| {
        dns(row).and_then(|dns| dns.server).map_or(Cell::Null, |server| flow_information(&server))
    }),
    column("protocol", Text, "tcp or udp", |row| dns(row).map_or(Cell::Null, |dns| Cell::Name(dns.protocol.name()))),
    column("transaction_id", Integer, "Transaction id", |row| port(dns(row).map(|dns| dns.transaction_id))),
    column("pid", Long, "Process that asks", |row| pid(dns(row).and_then(|dns| dns.process))),
    column("process_start_ns", Long, "When that process was created, ns since 1970", |row| {
        process_start(dns(row).and_then(|dns| dns.process))
    }),
    column("executable", Text, "That process' executable", |row| {
        dns(row).map_or(Cell::Null, |dns| known(&dns.executable))
    }),
    column("user_id", Long, "Owner of the socket", |row| dns(row).map_or(Cell::Null, |dns| optional(dns.user_id))),
    column("duration_ns", Long, "From query to response, nanoseconds", |row| {
        dns(row).map_or(Cell::Null, |dns| count(dns.duration_ns))
    }),
];

pub(super) const KERNEL_ACTIVITY: &[Column] = &[
    column("object", Text, "What it was done to: a module, a BPF program, kinds of namespace …", |row| {
        kernel(row).map_or(Cell::Null, |kernel| known(&kernel.object))
    }),
    column("value", Long, "The number that goes with it (its 64 bits): a request, a type, flags …", |row| {
        kernel(row).map_or(Cell::Null, |kernel| count(kernel.value))
    }),
    column("target_pid", Long, "Process it was done to", |row| pid(kernel(row).and_then(|kernel| kernel.target))),
    column("target_start_ns", Long, "When that process was created, ns since 1970", |row| {
        process_start(kernel(row).and_then(|kernel| kernel.target))
    }),
    column("success", Boolean, "Whether the kernel did it", |row| flag(kernel(row).and_then(|kernel| kernel.success))),
    column("pid", Long, "Process that did it", |row| pid(kernel(row).and_then(|kernel| kernel.process))),
    column("process_start_ns", Long, "When that process was created, ns since 1970", |row| {
        process_start(kernel(row).and_then(|kernel| kernel.process))
    }),
    column("executable", Text, "That process' executable", |row| {
        kernel(row).map_or(Cell::Null, |kernel| known(&kernel.executable))
    }),
    column("user_id", Long, "That process' effective user id", |row| {
        kernel(row).map_or(Cell::Null, |kernel| optional(kernel.user_id))
    }),
];

fn authentication<'a>(row: &Row<'a>) -> Option<&'a Authentication> {
    match &row.event.body {
        EventBody::Authentication(authentication) => Some(authentication),
        _ => None,
    }
}

fn file<'a>(row: &Row<'a>) -> Option<&'a FileActivity> {
    match &row.event.body {
        EventBody::FileActivity(file) => Some(file),
        _ => None,
    }
}

fn dns<'a>(row: &Row<'a>) -> Option<&'a DnsActivity> {
    match &row.event.body {
        EventBody::DnsActivity(dns) => Some(dns),
        _ => None,
    }
}

fn kernel<'a>(row: &Row<'a>) -> Option<&'a KernelActivity> {
    match &row.event.body {
        EventBody::KernelActivity(kernel) => Some(kernel),
        _ => None,
    }
}
