//! Features of a process start.

use crate::event::{ByteString, ProcessId, ProcessStart, StreamKind};
use crate::feature::arguments::ArgumentShape;
use crate::feature::context::{Context, ParentEntry, ProcessEntry, SessionEntry};
use crate::feature::definition::{count, features, flag, fraction, logarithm, number};
use crate::feature::path::{PathClass, depth, file_name, has_hidden_component};
use crate::feature::program::{ProgramKinds, imitates_system_program, is_called_otherwise, name_of};
use crate::feature::row::Row;
use crate::feature::text::{Histogram, hash, hash_pair};

/// Window in which discovery commands are counted.
const DISCOVERY_WINDOW_MS: i64 = 30_000;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

features! {
    ExecutableInSystemDirectory = flag(
        "executable_in_system_directory",
        "the executable lies where packages install programs (/usr, /bin, /opt …); missing when its path is unknown",
        "runs from a system directory",
        "runs from outside the system directories",
    ),
    ExecutableInHome = flag(
        "executable_in_home",
        "the executable lies in somebody's home; missing when its path is unknown",
        "runs from a home directory",
        "does not run from a home directory",
    ),
    ExecutableInTemporaryDirectory = flag(
        "executable_in_temporary_directory",
        "the executable lies where everybody may write (/tmp, /var/tmp, /dev/shm …); missing when its path is unknown",
        "runs from a directory where everybody may write",
        "does not run from a temporary directory",
    ),
    ExecutableInSharedMemory = flag(
        "executable_in_shared_memory",
        "the executable lies in memory only (/dev/shm, memfd); missing when its path is unknown",
        "runs from shared memory, without a file on disk",
        "does not run from shared memory",
    ),
    ExecutableDeleted = flag(
        "executable_deleted",
        "the executable had been unlinked when it was looked at; missing when nobody could look",
        "its executable is deleted",
        "its executable is still there",
    ),
    ExecutableHidden = flag(
        "executable_hidden",
        "a name in the executable's path begins with a dot; missing when its path is unknown",
        "runs from a hidden file or directory",
        "runs from no hidden place",
    ),
    ExecutablePathDepth = count(
        "executable_path_depth",
        "names",
        "names in the executable's path; missing when it is unknown",
        "executable lies {} levels deep",
    ),
    NameLength = count(
        "name_length",
        "bytes",
        "length of the program's name; missing when neither path nor arguments are known",
        "its name has {}",
    ),
    NameEntropy = number(
        "name_entropy",
        "bits per byte",
        "Shannon entropy of the program's name; missing when it is unknown",
        "name entropy {} bits per byte",
    ),
    NameDigitFraction = fraction(
        "name_digit_fraction",
        "digits per byte",
        "digits in the program's name; missing when it is unknown",
        "{} of its name are digits",
    ),
    NameImitatesSystemProgram = flag(
        "name_imitates_system_program",
        "a system program's name on an executable outside the system directories, or a kernel thread's name on any; \
         missing when the path is unknown",
        "it bears a system program's name but is not that program",
        "its name imitates no system program",
    ),
    CalledOtherwise = flag(
        "called_otherwise",
        "the first argument names another program than the executable, beyond links and versions; missing when either \
         is unknown",
        "it calls itself by another name than its executable's",
        "it calls itself by its executable's name",
    ),
    IsShell = flag("is_shell", "a shell (sh, bash …); missing when the name is unknown", "it is a shell", "it is no shell"),
    IsInterpreter = flag(
        "is_interpreter",
        "an interpreter of a scripting language; missing when the name is unknown",
        "it is a script interpreter",
        "it is no script interpreter",
    ),
    IsDiscoveryTool = flag(
        "is_discovery_tool",
        "a program that tells about system, users, processes or network; missing when the name is unknown",
        "it is a discovery tool",
        "it is no discovery tool",
    ),
    IsNetworkTool = flag(
        "is_network_tool",
        "a program that speaks to other hosts; missing when the name is unknown",
        "it is a network tool",
        "it is no network tool",
    ),
    IsBuildOrPackageTool = flag(
        "is_build_or_package_tool",
        "a compiler, linker, build driver or package manager; missing when the name is unknown",
        "it is a build or package tool",
        "it is no build or package tool",
    ),
    IsTextTool = flag(
        "is_text_tool",
        "a program that shows, searches or edits text; missing when the name is unknown",
        "it is a text tool",
        "it is no text tool",
    ),
    ChangesFiles = flag(
        "changes_files",
        "a program that makes or changes files (tee, install, cp …), or a command line that redirects output; missing \
         when neither name nor arguments are known",
        "its command writes or changes files",
        "its command changes no files",
    ),
    ChangesSchedule = flag(
        "changes_schedule",
        "a program that runs others at set times or at boot, or manages them; missing when the name is unknown",
        "it manages scheduled or started programs",
        "it does not manage scheduled programs",
    ),
    ArgumentCount = logarithm(
        "argument_count",
        "arguments",
        "arguments including the name; missing when unknown",
        "{} arguments",
    ),
    ArgumentBytes = logarithm(
        "argument_bytes",
        "bytes",
        "length of all arguments; missing when unknown",
        "arguments of {}",
    ),
    LongestArgument = logarithm(
        "longest_argument",
        "bytes",
        "length of the longest argument after the name; missing when unknown",
        "an argument of {}",
    ),
    ArgumentEntropy = number(
        "argument_entropy",
        "bits per byte",
        "Shannon entropy of the arguments after the name; missing without any",
        "argument entropy {} bits per byte",
    ),
    ArgumentDigitFraction = fraction(
        "argument_digit_fraction",
        "digits per byte",
        "digits in the arguments after the name; missing without any",
        "{} of its arguments are digits",
    ),
    ArgumentSpecialFraction = fraction(
        "argument_special_fraction",
        "punctuation per byte",
        "punctuation in the arguments after the name; missing without any",
        "{} of its arguments are punctuation",
    ),
    ArgumentNonAsciiFraction = fraction(
        "argument_non_ascii_fraction",
        "bytes per byte",
        "bytes beyond ASCII in the arguments after the name; missing without any",
        "{} of its arguments are not ASCII",
    ),
    ArgumentEncodedRun = logarithm(
        "argument_encoded_run",
        "bytes",
        "longest run of characters that base64 or hexadecimal data consist of; missing when arguments are unknown",
        "an unbroken run of {} as in encoded data",
    ),
    ArgumentShellOperators = logarithm(
        "argument_shell_operators",
        "operators",
        "pipes, redirections, separators and substitutions in the arguments; missing when unknown",
        "{} shell operators in its arguments",
    ),
    InlineScript = flag(
        "inline_script",
        "a shell or interpreter is given its program on the command line; missing when arguments are unknown",
        "its program is given on the command line",
        "no program given on the command line",
    ),
    InteractiveShell = flag(
        "interactive_shell",
        "a shell is told to be interactive; missing when arguments are unknown",
        "a shell told to be interactive",
        "not told to be interactive",
    ),
    MentionsNetworkAddress = flag(
        "mentions_network_address",
        "an IP address, localhost or a URL in the arguments; missing when unknown",
        "its arguments name a network address",
        "its arguments name no network address",
    ),
    MentionsRemoteShell = flag(
        "mentions_remote_shell",
        "a construct in the arguments that ties streams to the network (/dev/tcp, nc -e, mkfifo …); missing when unknown",
        "its arguments tie a program's streams to the network",
        "its arguments tie no streams to the network",
    ),
    MentionsPersistence = flag(
        "mentions_persistence",
        "a place in the arguments from which systems start programs or admit users (cron, systemd, profiles, \
         authorized_keys, ld.so.preload …); missing when unknown",
        "its arguments name a place from which programs start by themselves",
        "its arguments name no place of persistence",
    ),
    MentionsSystemInformation = flag(
        "mentions_system_information",
        "a file in the arguments that tells about accounts or the system (/etc/passwd …); missing when unknown",
        "its arguments name a file about accounts or the system",
        "its arguments name no file about accounts or the system",
    ),
    MentionsTemporaryPath = flag(
        "mentions_temporary_path",
        "a directory in the arguments where everybody may write; missing when unknown",
        "its arguments name a temporary directory",
        "its arguments name no temporary directory",
    ),
    ParentIsShell = flag(
        "parent_is_shell",
        "the parent is a shell; missing when unknown",
        "started by a shell",
        "not started by a shell",
    ),
    ParentIsInterpreter = flag(
        "parent_is_interpreter",
        "the parent is an interpreter of a scripting language; missing when unknown",
        "started by a script interpreter",
        "not started by a script interpreter",
    ),
    ParentIsBuildOrPackageTool = flag(
        "parent_is_build_or_package_tool",
        "the parent is a compiler, build driver or package manager; missing when unknown",
        "started by a build or package tool",
        "not started by a build or package tool",
    ),
    ParentServesNetwork = flag(
        "parent_serves_network",
        "the parent is a network tool or a network service; missing when unknown",
        "started by a network tool or service",
        "not started by a network tool or service",
    ),
    GrandparentIsShellOrInterpreter = flag(
        "grandparent_is_shell_or_interpreter",
        "the parent's parent is a shell or interpreter; missing when unknown",
        "its grandparent is a shell or interpreter",
        "its grandparent is no shell or interpreter",
    ),
    AncestorCount = count(
        "ancestor_count",
        "processes",
        "ancestors that are known, at most 8; missing when none is",
        "{} known ancestors",
    ),
    AncestorInTemporaryDirectory = flag(
        "ancestor_in_temporary_directory",
        "an ancestor's executable lies where everybody may write; missing when no ancestor is known",
        "an ancestor runs from a directory where everybody may write",
        "no ancestor runs from a temporary directory",
    ),
    SocketInput = flag(
        "socket_input",
        "standard input is a socket; missing when unknown",
        "standard input is a socket",
        "standard input is no socket",
    ),
    SocketOutput = flag(
        "socket_output",
        "standard output or error is a socket; missing when unknown",
        "standard output is a socket",
        "standard output is no socket",
    ),
    PipedInput = flag(
        "piped_input",
        "standard input is a pipe; missing when unknown",
        "standard input is a pipe",
        "standard input is no pipe",
    ),
    HasTerminal = flag(
        "has_terminal",
        "it has a controlling terminal; missing when unknown",
        "it has a terminal",
        "it has no terminal",
    ),
    UserIsRoot = flag(
        "user_is_root",
        "the effective user is root; missing when unknown",
        "it runs as root",
        "it does not run as root",
    ),
    UserDiffersFromParent = flag(
        "user_differs_from_parent",
        "the effective user is another than the parent's; missing when either is unknown",
        "it runs as another user than its parent",
        "it runs as its parent's user",
    ),
    ParentAge = logarithm(
        "parent_age",
        "milliseconds",
        "time since the parent was created; missing when the parent is unknown",
        "its parent was {} old",
    ),
    SincePreviousSibling = logarithm(
        "since_previous_sibling",
        "milliseconds",
        "time since the same parent started a program before; missing for the first",
        "{} after its parent's previous start",
    ),
    HostStarts1s = logarithm(
        "host_starts_1s",
        "starts",
        "process starts on the host within 1 s",
        "{} process starts on this host in 1 s",
    ),
    HostStarts60s = logarithm(
        "host_starts_60s",
        "starts",
        "process starts on the host within 60 s",
        "{} process starts on this host in 60 s",
    ),
    SiblingStarts1s = logarithm(
        "sibling_starts_1s",
        "starts",
        "starts by the same parent within 1 s; missing when the parent is unknown",
        "{} starts by the same parent in 1 s",
    ),
    SiblingStarts10s = logarithm(
        "sibling_starts_10s",
        "starts",
        "starts by the same parent within 10 s; missing when the parent is unknown",
        "{} starts by the same parent in 10 s",
    ),
    SiblingStarts60s = logarithm(
        "sibling_starts_60s",
        "starts",
        "starts by the same parent within 60 s; missing when the parent is unknown",
        "{} starts by the same parent in 60 s",
    ),
    SiblingExecutables10s = logarithm(
        "sibling_executables_10s",
        "executables",
        "distinct programs started by the same parent within 10 s, at most 64; missing when the parent is unknown",
        "{} distinct programs started by the same parent in 10 s",
    ),
    SiblingExecutables60s = logarithm(
        "sibling_executables_60s",
        "executables",
        "distinct programs started by the same parent within 60 s, at most 64; missing when the parent is unknown",
        "{} distinct programs started by the same parent in 60 s",
    ),
    SiblingFailures60s = fraction(
        "sibling_failures_60s",
        "exits",
        "children of the same parent that failed, of those that ended within 60 s; missing when none ended",
        "{} of the same parent's recent children failed",
    ),
    ParentDiscovery30s = logarithm(
        "parent_discovery_30s",
        "commands",
        "distinct discovery commands among the parent's descendants (3 generations) within 30 s, at most 64; missing \
         when the parent is unknown",
        "{} distinct discovery commands below the same parent in 30 s",
    ),
    GrandparentDiscovery30s = logarithm(
        "grandparent_discovery_30s",
        "commands",
        "the same below the parent's parent; missing when that is unknown",
        "{} distinct discovery commands below the same grandparent in 30 s",
    ),
    SessionDiscovery30s = logarithm(
        "session_discovery_30s",
        "commands",
        "distinct discovery commands in the same POSIX session within 30 s, at most 64; missing when that is unknown",
        "{} distinct discovery commands in the same session in 30 s",
    ),
    SessionStarts60s = logarithm(
        "session_starts_60s",
        "starts",
        "process starts in the same POSIX session within 60 s; missing when that is unknown",
        "{} process starts in the same session in 60 s",
    ),
    ExecutableSeenBefore = logarithm(
        "executable_seen_before",
        "starts",
        "earlier starts of this executable in this epoch, roughly; missing when its path is unknown",
        "this executable was seen {} times before on this host",
    ),
    PairSeenBefore = logarithm(
        "pair_seen_before",
        "starts",
        "earlier starts of this executable by this parent's executable in this epoch, roughly; missing when either is \
         unknown",
        "its parent's program was seen to start it {} times before on this host",
    ),
    LineageOpenConnections = logarithm(
        "lineage_open_connections",
        "connections",
        "connections known to be open of this process and its parent, at most 64; missing when neither had any yet",
        "{} open connections of this process and its parent",
    ),
}

/// Everything about a start that the context needs too.
struct Facts<'a> {
    start: &'a ProcessStart,
    name: &'a [u8],
    kinds: ProgramKinds,
    path_class: Option<PathClass>,
    executable: Option<u64>,
    arguments: Option<ArgumentShape>,
    parent: ParentFacts,
}

/// What is known of the parent, from the event or from its own start.
#[derive(Default)]
struct ParentFacts {
    kinds: Option<ProgramKinds>,
    executable: Option<u64>,
    user_id: Option<u32>,
    /// Of the parent's parent.
    grandparent_kinds: Option<ProgramKinds>,
}

impl<'a> Facts<'a> {
    fn of(context: &Context, start: &'a ProcessStart) -> Self {
        let path = start.executable.as_bytes();
        let first_argument = start.arguments.first().map(|argument| argument.as_bytes());
        let name = name_of(path, first_argument);
        let kinds = ProgramKinds::of(name);
        let is_known = !path.is_empty();
        Self {
            start,
            name,
            kinds,
            path_class: is_known.then(|| PathClass::of(path)),
            executable: is_known.then(|| hash(path)),
            arguments: (!start.arguments.is_empty()).then(|| ArgumentShape::of(&start.arguments, kinds)),
            parent: ParentFacts::of(context, start),
        }
    }

    /// What makes this start a discovery command, if it is one: the tool's name or the file it is pointed at.
    fn discovery(&self) -> Option<u64> {
        if self.kinds.has(ProgramKinds::DISCOVERY) {
            return Some(hash(self.name));
        }
        self.arguments.as_ref().and_then(|arguments| arguments.system_information)
    }

    fn entry(&self) -> ProcessEntry {
        ProcessEntry {
            parent: self.start.parent,
            executable: self.executable,
            kinds: self.kinds,
            path_class: self.path_class,
            user_id: self.start.user_id,
            socket_streams: self.start.standard_streams.contains(&StreamKind::Socket),
            parent_kinds: self.parent.kinds,
        }
    }
}

impl ParentFacts {
    fn of(context: &Context, start: &ProcessStart) -> Self {
        let known = start.parent.and_then(|parent| context.processes.peek(&parent));
        let ancestor = |generation: usize| {
            start.ancestors.get(generation).map(|path| path.as_bytes()).filter(|path| !path.is_empty())
        };
        let kinds_of = |path: &[u8]| ProgramKinds::of(file_name(path));
        Self {
            // What the parent was called counts more than its path: it knows multi-call programs.
            kinds: known
                .filter(|entry| entry.executable.is_some())
                .map(|entry| entry.kinds)
                .or_else(|| ancestor(0).map(kinds_of)),
            executable: ancestor(0).map(hash).or_else(|| known.and_then(|entry| entry.executable)),
            user_id: known.and_then(|entry| entry.user_id),
            grandparent_kinds: ancestor(1).map(kinds_of).or_else(|| known.and_then(|entry| entry.parent_kinds)),
        }
    }
}

/// Takes in a process that ran before the agent did.
pub(super) fn seed(context: &mut Context, start: &ProcessStart) {
    let facts = Facts::of(context, start);
    let entry = facts.entry();
    if let Some(executable) = facts.executable {
        context.seen.note(executable);
    }
    context.note_process(start.process, entry);
}

/// Takes in a process start and fills its vector.
pub(super) fn extract(context: &mut Context, now: i64, start: &ProcessStart, row: &mut Row) {
    let facts = Facts::of(context, start);
    fill_executable(&facts, row);
    fill_kinds(&facts, row);
    if let Some(arguments) = &facts.arguments {
        fill_arguments(arguments, row);
    }
    fill_ancestry(&facts, row);
    fill_credentials(&facts, row);
    fill_host(context, now, row);
    if let Some(parent) = start.parent {
        fill_siblings(context, now, parent, &facts, row);
    }
    if let Some(session) = start.session_id {
        fill_session(context, now, session, &facts, row);
    }
    fill_history(context, &facts, row);
    fill_connections(context, start, row);
    context.note_process(start.process, facts.entry());
}

fn fill_executable(facts: &Facts<'_>, row: &mut Row) {
    row.flag_if_known(Feature::ExecutableDeleted, facts.start.executable_deleted);
    let path = facts.start.executable.as_bytes();
    if let Some(class) = facts.path_class {
        row.flag(Feature::ExecutableInSystemDirectory, class == PathClass::System);
        row.flag(Feature::ExecutableInHome, class == PathClass::Home);
        row.flag(Feature::ExecutableInTemporaryDirectory, class.is_world_writable());
        row.flag(Feature::ExecutableInSharedMemory, class == PathClass::SharedMemory);
        row.flag(Feature::ExecutableHidden, has_hidden_component(path));
        row.count(Feature::ExecutablePathDepth, depth(path));
        let called = facts.start.arguments.first().map(ByteString::as_bytes);
        let imitates = imitates_system_program(facts.name, called, class, facts.kinds);
        row.flag(Feature::NameImitatesSystemProgram, imitates);
        row.flag_if_known(Feature::CalledOtherwise, called.map(|called| is_called_otherwise(path, called)));
    }
    if !facts.name.is_empty() {
        let histogram = Histogram::of(facts.name);
        row.count(Feature::NameLength, facts.name.len());
        row.number(Feature::NameEntropy, histogram.entropy().unwrap_or(f64::NAN));
        row.fraction(Feature::NameDigitFraction, histogram.count(|byte| byte.is_ascii_digit()), histogram.total());
    }
}

fn fill_kinds(facts: &Facts<'_>, row: &mut Row) {
    if facts.name.is_empty() {
        return;
    }
    let kinds = facts.kinds;
    row.flag(Feature::IsShell, kinds.has(ProgramKinds::SHELL));
    row.flag(Feature::IsInterpreter, kinds.has(ProgramKinds::INTERPRETER));
    row.flag(Feature::IsDiscoveryTool, kinds.has(ProgramKinds::DISCOVERY));
    row.flag(Feature::IsNetworkTool, kinds.has(ProgramKinds::NETWORK));
    row.flag(Feature::IsBuildOrPackageTool, kinds.has(ProgramKinds::BUILD.union(ProgramKinds::PACKAGE)));
    row.flag(Feature::IsTextTool, kinds.has(ProgramKinds::TEXT));
    row.flag(Feature::ChangesSchedule, kinds.has(ProgramKinds::SCHEDULER));
    let redirects = facts.arguments.as_ref().is_some_and(|arguments| arguments.redirects_output);
    row.flag(Feature::ChangesFiles, redirects || kinds.has(ProgramKinds::FILE));
}

fn fill_arguments(shape: &ArgumentShape, row: &mut Row) {
    row.logarithm(Feature::ArgumentCount, shape.count as u64);
    row.logarithm(Feature::ArgumentBytes, shape.bytes as u64);
    row.logarithm(Feature::LongestArgument, shape.longest as u64);
    row.number(Feature::ArgumentEntropy, shape.entropy.unwrap_or(f64::NAN));
    row.fraction(Feature::ArgumentDigitFraction, shape.digits, shape.content_bytes);
    row.fraction(Feature::ArgumentSpecialFraction, shape.specials, shape.content_bytes);
    row.fraction(Feature::ArgumentNonAsciiFraction, shape.non_ascii, shape.content_bytes);
    row.logarithm(Feature::ArgumentEncodedRun, shape.longest_encoded_run as u64);
    row.logarithm(Feature::ArgumentShellOperators, shape.shell_operators as u64);
    row.flag(Feature::InlineScript, shape.inline_script);
    row.flag(Feature::InteractiveShell, shape.interactive);
    row.flag(Feature::MentionsNetworkAddress, shape.network_address || shape.url);
    row.flag(Feature::MentionsRemoteShell, shape.remote_shell);
    row.flag(Feature::MentionsPersistence, shape.persistence_location);
    row.flag(Feature::MentionsSystemInformation, shape.system_information.is_some());
    row.flag(Feature::MentionsTemporaryPath, shape.temporary_path);
}

fn fill_ancestry(facts: &Facts<'_>, row: &mut Row) {
    if let Some(kinds) = facts.parent.kinds {
        row.flag(Feature::ParentIsShell, kinds.has(ProgramKinds::SHELL));
        row.flag(Feature::ParentIsInterpreter, kinds.has(ProgramKinds::INTERPRETER));
        row.flag(Feature::ParentIsBuildOrPackageTool, kinds.has(ProgramKinds::BUILD.union(ProgramKinds::PACKAGE)));
        row.flag(Feature::ParentServesNetwork, kinds.has(ProgramKinds::NETWORK.union(ProgramKinds::SERVICE)));
    }
    if let Some(kinds) = facts.parent.grandparent_kinds {
        let of_interest = ProgramKinds::SHELL.union(ProgramKinds::INTERPRETER);
        row.flag(Feature::GrandparentIsShellOrInterpreter, kinds.has(of_interest));
    }
    let ancestors = &facts.start.ancestors;
    if !ancestors.is_empty() {
        let temporary = |path: &[u8]| PathClass::of(path).is_world_writable();
        row.count(Feature::AncestorCount, ancestors.len());
        row.flag(
            Feature::AncestorInTemporaryDirectory,
            ancestors.iter().any(|ancestor| temporary(ancestor.as_bytes())),
        );
    }
}

fn fill_credentials(facts: &Facts<'_>, row: &mut Row) {
    let start = facts.start;
    let [input, output, error] = start.standard_streams;
    let is = |stream: StreamKind, kind: StreamKind| (stream != StreamKind::Unknown).then_some(stream == kind);
    row.flag_if_known(Feature::SocketInput, is(input, StreamKind::Socket));
    row.flag_if_known(Feature::PipedInput, is(input, StreamKind::Pipe));
    let (output, error) = (is(output, StreamKind::Socket), is(error, StreamKind::Socket));
    row.flag_if_known(
        Feature::SocketOutput,
        match (output, error) {
            (None, None) => None,
            (output, error) => Some(output.unwrap_or(false) || error.unwrap_or(false)),
        },
    );
    row.flag_if_known(Feature::HasTerminal, start.has_terminal);
    row.flag_if_known(Feature::UserIsRoot, start.user_id.map(|user| user == 0));
    let users = start.user_id.zip(facts.parent.user_id);
    row.flag_if_known(Feature::UserDiffersFromParent, users.map(|(own, parent)| own != parent));
    row.logarithm_if_known(Feature::ParentAge, start.parent.map(|parent| parent_age_ms(start, parent)));
}

fn parent_age_ms(start: &ProcessStart, parent: ProcessId) -> u64 {
    let age = start.process.start_time.0.saturating_sub(parent.start_time.0);
    u64::try_from(age).unwrap_or(0) / NANOSECONDS_PER_MILLISECOND
}

fn fill_host(context: &mut Context, now: i64, row: &mut Row) {
    let host = &mut context.host;
    host.starts_1s.add(now, 1);
    host.starts_60s.add(now, 1);
    row.logarithm(Feature::HostStarts1s, host.starts_1s.sum(now));
    row.logarithm(Feature::HostStarts60s, host.starts_60s.sum(now));
}

fn fill_siblings(context: &mut Context, now: i64, parent: ProcessId, facts: &Facts<'_>, row: &mut Row) {
    let entry = context.parents.touch(parent, ParentEntry::default);
    entry.starts_1s.add(now, 1);
    entry.starts_10s.add(now, 1);
    entry.starts_60s.add(now, 1);
    if !facts.name.is_empty() {
        entry.executables.add(now, hash(facts.name));
        entry.child_kinds = entry.child_kinds.union(facts.kinds);
    }
    let previous = entry.latest_start.replace(now).map(|latest| now.saturating_sub(latest));
    let previous = previous.and_then(|elapsed| u64::try_from(elapsed).ok());
    row.logarithm_if_known(Feature::SincePreviousSibling, previous.map(|ns| ns / NANOSECONDS_PER_MILLISECOND));
    row.logarithm(Feature::SiblingStarts1s, entry.starts_1s.sum(now));
    row.logarithm(Feature::SiblingStarts10s, entry.starts_10s.sum(now));
    row.logarithm(Feature::SiblingStarts60s, entry.starts_60s.sum(now));
    row.logarithm(Feature::SiblingExecutables10s, entry.executables.count(now, 10_000));
    row.logarithm(Feature::SiblingExecutables60s, entry.executables.count(now, 60_000));
    row.fraction(Feature::SiblingFailures60s, entry.failed_exits_60s.sum(now), entry.exits_60s.sum(now));
    fill_discovery(context, now, parent, facts, row);
}

/// Counts a discovery command for the parent and its ancestors, so that one run through `sh -c` is counted where the
/// next one will look.
fn fill_discovery(context: &mut Context, now: i64, parent: ProcessId, facts: &Facts<'_>, row: &mut Row) {
    let mut lineage = [None; super::context::LINEAGE_DEPTH];
    for (slot, ancestor) in lineage.iter_mut().zip(context.lineage(parent)) {
        *slot = Some(ancestor);
    }
    let discovery = facts.discovery();
    let features = [Some(Feature::ParentDiscovery30s), Some(Feature::GrandparentDiscovery30s), None];
    for (ancestor, feature) in lineage.into_iter().flatten().zip(features) {
        if let Some(command) = discovery {
            context.parents.touch(ancestor, ParentEntry::default).discovery.add(now, command);
        }
        if let Some(feature) = feature {
            let entry = context.parents.peek(&ancestor);
            row.logarithm(feature, entry.map_or(0, |entry| entry.discovery.count(now, DISCOVERY_WINDOW_MS)));
        }
    }
}

fn fill_session(context: &mut Context, now: i64, session: u32, facts: &Facts<'_>, row: &mut Row) {
    let entry = context.sessions.touch(session, SessionEntry::default);
    entry.starts_60s.add(now, 1);
    if let Some(command) = facts.discovery() {
        entry.discovery.add(now, command);
    }
    row.logarithm(Feature::SessionStarts60s, entry.starts_60s.sum(now));
    row.logarithm(Feature::SessionDiscovery30s, entry.discovery.count(now, DISCOVERY_WINDOW_MS));
}

fn fill_history(context: &mut Context, facts: &Facts<'_>, row: &mut Row) {
    let Some(executable) = facts.executable else { return };
    row.logarithm(Feature::ExecutableSeenBefore, context.seen.note(executable));
    if let Some(parent) = facts.parent.executable {
        row.logarithm(Feature::PairSeenBefore, context.seen.note(hash_pair(parent, executable)));
    }
}

fn fill_connections(context: &Context, start: &ProcessStart, row: &mut Row) {
    let open = |process: ProcessId| context.owners.peek(&process).map(|owner| owner.open_connections() as u64);
    let own = open(start.process);
    let parent = start.parent.and_then(open);
    if own.is_some() || parent.is_some() {
        row.logarithm(Feature::LineageOpenConnections, own.unwrap_or(0) + parent.unwrap_or(0));
    }
}
