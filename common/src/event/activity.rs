//! Bodies of what is neither a process nor a connection: logins, files, DNS, risky calls of the kernel.

use std::net::{IpAddr, SocketAddr};

use crate::event::{ByteString, ProcessId, Protocol};

/// Somebody logged in, tried to, became another user, or logged out.
#[derive(Clone, Debug, PartialEq)]
pub struct Authentication {
    /// Which of these.
    pub action: AuthenticationAction,
    /// Account that was asked for; empty when unknown.
    pub user_name: ByteString,
    /// User id of that account.
    pub user_id: Option<u32>,
    /// Whether that account exists.
    pub user_exists: Option<bool>,
    /// Whether it was let in (out).
    pub success: bool,
    /// Service: `sshd`, `sudo`, `su`, `login`, `cron` …
    pub service: ByteString,
    /// How: `password`, `publickey` …; empty when unknown.
    pub method: ByteString,
    /// Account that asked (who ran `sudo` or `su`); empty when there is none or it is unknown.
    pub acting_user_name: ByteString,
    /// Terminal, such as `pts/0`; empty when there is none or it is unknown.
    pub terminal: ByteString,
    /// Command that was asked for (`sudo`); empty when unknown.
    pub command: ByteString,
    /// Where from.
    pub source: Option<IpAddr>,
    /// Port of the other end.
    pub source_port: Option<u16>,
    /// The process that decided.
    pub process: Option<ProcessId>,
}

/// What somebody did in an [`Authentication`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthenticationAction {
    /// OCSF Logon.
    Logon,
    /// OCSF Logoff.
    Logoff,
}

/// A file or folder changed.
#[derive(Clone, Debug, PartialEq)]
pub struct FileActivity {
    /// How.
    pub action: FileAction,
    /// Its absolute path; before the change, for a rename.
    pub path: ByteString,
    /// Its absolute path after a rename; else empty.
    pub new_path: ByteString,
    /// Whether it is a folder.
    pub is_directory: Option<bool>,
    /// Type and permission bits (`st_mode`) after the change.
    pub mode: Option<u32>,
    /// Its owner's user id after the change.
    pub owner_id: Option<u32>,
    /// The process that did it, when it could be learned.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// That process's effective user id.
    pub user_id: Option<u32>,
}

/// What happened to a file, in OCSF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAction {
    /// It was made (or linked, or moved here from where nobody watches).
    Create,
    /// It was closed after it was open for writing.
    Update,
    /// It has another name.
    Rename,
    /// A name of it was removed (or moved to where nobody watches).
    Delete,
    /// Permissions, owner, times or extended attributes changed.
    SetAttributes,
}

/// A DNS message that this host sent or received.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsActivity {
    /// Query or response.
    pub action: DnsAction,
    /// Name that is asked for, with dots, without the last one; bytes that are not printable are themselves.
    pub name: ByteString,
    /// Type that is asked for: 1 A, 28 AAAA, 16 TXT …
    pub query_type: u16,
    /// Response code, extended bits included: 0 no error, 3 no such name … Of responses only.
    pub response_code: Option<u16>,
    /// Answers as text (addresses, names), at most [`DNS_ANSWERS_MAX`](crate::event::limits::DNS_ANSWERS_MAX). Of responses only.
    pub answers: Vec<ByteString>,
    /// Whether there were more answers.
    pub answers_truncated: bool,
    /// The server that is asked.
    pub server: Option<SocketAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Transaction id.
    pub transaction_id: u16,
    /// The process that asks, when it could be learned.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// Owner of the socket.
    pub user_id: Option<u32>,
    /// From query to response, nanoseconds.
    pub duration_ns: Option<u64>,
}

/// Which DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsAction {
    /// OCSF Query.
    Query,
    /// OCSF Response.
    Response,
}

/// A process did something to the kernel, to another process or to its own rights that few programs have reason to.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelActivity {
    /// What.
    pub action: KernelAction,
    /// Name of what it was done to, see [`KernelAction`]; empty when unknown.
    pub object: ByteString,
    /// The number that goes with it, see [`KernelAction`].
    pub value: Option<u64>,
    /// The process it was done to, where there is one.
    pub target: Option<ProcessId>,
    /// Whether the kernel did it.
    pub success: Option<bool>,
    /// The process that did it.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// That process's effective user id.
    pub user_id: Option<u32>,
}

/// What was done in a [`KernelActivity`], with the meaning of its `object` and `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelAction {
    /// A kernel module was loaded: its name; the kernel's taint flags for it.
    ModuleLoad,
    /// A kernel module was removed: its name.
    ModuleUnload,
    /// A process was attached to (`ptrace`): name of the target's program; the request.
    PtraceAttach,
    /// A BPF program was loaded: its name; its type (`enum bpf_prog_type`).
    BpfProgramLoad,
    /// A program without a file was started: its name; nothing.
    MemfdExec,
    /// Another process's memory was written (`process_vm_writev`): name of the target's program; bytes.
    MemoryWrite,
    /// New namespaces were made or others entered: their kinds; the `CLONE_NEW…` flags.
    NamespaceChange,
    /// A process that was not root became root: nothing; the user id it had.
    BecomeRoot,
    /// A process gained capabilities: their names; the set that is new.
    CapabilityGain,
}
