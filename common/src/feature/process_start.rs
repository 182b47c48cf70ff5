//! Features of a process start.

use crate::event::{ByteString, ProcessId, ProcessStart, StreamKind};
use crate::feature::arguments::ArgumentShape;
use crate::feature::context::{Context, ParentEntry, ProcessEntry, ProcessTraits, SessionEntry};
use crate::feature::limits::{AGE_MAX_MS, SEEN_MAX};
use crate::feature::path::{PathClass, depth, file_name, has_hidden_component, without_deleted_mark};
pub(super) use crate::feature::process_start::definitions::DEFINITIONS;
use crate::feature::process_start::definitions::Feature;
use crate::feature::program::{ProgramKinds, imitates_system_program, is_called_otherwise, name_of};
use crate::feature::row::Row;
use crate::feature::text::{Histogram, hash, hash_pair};

mod definitions;

/// Window in which discovery commands are counted.
const DISCOVERY_WINDOW_MS: i64 = 30_000;
/// Window in which a burst of them fits.
const DISCOVERY_BURST_MS: i64 = 3_000;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// Everything about a start that the context needs too.
struct Facts<'a> {
    start: &'a ProcessStart,
    /// Empty when unknown.
    path: &'a [u8],
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
        let path = without_deleted_mark(start.executable.as_bytes());
        let first_argument = start.arguments.first().map(|argument| argument.as_bytes());
        let name = name_of(path, first_argument);
        let kinds = ProgramKinds::of(name);
        let is_known = !path.is_empty();
        Self {
            start,
            path,
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

    /// Names the executable together with its parent's.
    fn parent_child_pair(&self) -> Option<u64> {
        self.parent.executable.zip(self.executable).map(|(parent, executable)| hash_pair(parent, executable))
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
            traits: self.traits(),
        }
    }

    fn traits(&self) -> ProcessTraits {
        let arguments = self.arguments.as_ref();
        ProcessTraits {
            hidden: has_hidden_component(self.path),
            called_otherwise: self.called().is_some_and(|called| is_called_otherwise(self.path, called)),
            inline_script: arguments.is_some_and(|arguments| arguments.inline_script),
            network_address: arguments.is_some_and(|arguments| arguments.network_address || arguments.url),
            has_terminal: self.start.has_terminal,
        }
    }

    /// The first argument.
    fn called(&self) -> Option<&'a [u8]> {
        self.start.arguments.first().map(ByteString::as_bytes)
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
    for seen in [facts.executable, facts.parent_child_pair()].into_iter().flatten() {
        context.seen.note(seen);
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
    let path = facts.path;
    if let Some(class) = facts.path_class {
        row.flag(Feature::ExecutableInSystemDirectory, class == PathClass::System);
        row.flag(Feature::ExecutableInHome, class == PathClass::Home);
        row.flag(Feature::ExecutableInTemporaryDirectory, class.is_world_writable());
        row.flag(Feature::ExecutableInSharedMemory, class == PathClass::SharedMemory);
        row.flag(Feature::ExecutableHidden, has_hidden_component(path));
        row.count(Feature::ExecutablePathDepth, depth(path));
        let called = facts.called();
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
    row.flag(Feature::MentionsNetworkAddress, shape.network_address);
    row.flag(Feature::MentionsUrl, shape.url);
    row.flag(Feature::MentionsHiddenFile, shape.hidden_file);
    row.logarithm(Feature::MentionedDiscoveryTools, shape.discovery_names as u64);
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
    row.logarithm_if_known(Feature::ParentAge, start.parent.map(|parent| parent_age_ms(start, parent).min(AGE_MAX_MS)));
}

fn parent_age_ms(start: &ProcessStart, parent: ProcessId) -> u64 {
    let age = start.process.start_time.0.saturating_sub(parent.start_time.0);
    u64::try_from(age).unwrap_or(0) / NANOSECONDS_PER_MILLISECOND
}

fn fill_host(context: &mut Context, now: i64, row: &mut Row) {
    let host = &mut context.host;
    host.starts_1s.add(now, 1);
    host.starts_10s.add(now, 1);
    row.logarithm(Feature::HostStarts1s, host.starts_1s.sum(now));
    row.logarithm(Feature::HostStarts10s, host.starts_10s.sum(now));
}

fn fill_siblings(context: &mut Context, now: i64, parent: ProcessId, facts: &Facts<'_>, row: &mut Row) {
    let entry = context.parents.touch(parent, ParentEntry::default);
    entry.starts_1s.add(now, 1);
    entry.starts_10s.add(now, 1);
    if !facts.name.is_empty() {
        entry.executables.add(now, hash(facts.name));
        entry.child_kinds = entry.child_kinds.union(facts.kinds);
    }
    let previous = entry.latest_start.replace(now).map(|latest| now.saturating_sub(latest));
    let previous = previous.and_then(|elapsed| u64::try_from(elapsed).ok());
    row.logarithm_if_known(Feature::SincePreviousSibling, previous.map(|ns| ns / NANOSECONDS_PER_MILLISECOND));
    row.fraction(Feature::SiblingShareOfHost10s, entry.starts_10s.sum(now), context.host.starts_10s.sum(now));
    row.logarithm(Feature::SiblingStarts1s, entry.starts_1s.sum(now));
    row.logarithm(Feature::SiblingStarts10s, entry.starts_10s.sum(now));
    row.logarithm(Feature::SiblingExecutables10s, entry.executables.count(now, 10_000));
    row.fraction(Feature::SiblingFailures60s, entry.failed_exits_60s.sum(now), entry.exits_60s.sum(now));
    fill_repeats(context, now, parent, facts, row);
    fill_discovery(context, now, parent, facts, row);
}

/// A program that the same parent starts again and again: a loop, whatever it waits for.
fn fill_repeats(context: &mut Context, now: i64, parent: ProcessId, facts: &Facts<'_>, row: &mut Row) {
    let Some(executable) = facts.executable else { return };
    let series = context.repeats.touch((parent, executable), Box::default);
    series.add(now, None);
    row.logarithm(Feature::Repeats, series.len());
    if let Some(rhythm) = series.rhythm() {
        row.logarithm_of(Feature::RepeatInterval, rhythm.interval);
        row.number(Feature::RepeatDeviation, rhythm.deviation);
    }
}

/// Counts a discovery command for the parent and its ancestors, so that one run through `sh -c` is counted where the
/// next one will look. An ancestor counts each branch below it once: what is many commands in one place is for the
/// ancestors (a service manager, a terminal multiplexer) one of many things they started, and none of the others' business.
fn fill_discovery(context: &mut Context, now: i64, parent: ProcessId, facts: &Facts<'_>, row: &mut Row) {
    let mut lineage = [None; super::context::LINEAGE_DEPTH];
    for (slot, ancestor) in lineage.iter_mut().zip(context.lineage(parent)) {
        *slot = Some(ancestor);
    }
    if let Some(command) = facts.discovery() {
        for ancestor in lineage.into_iter().flatten() {
            let discovery = &mut context.parents.touch(ancestor, ParentEntry::default).discovery;
            let is_known_above = discovery.count(now, DISCOVERY_WINDOW_MS) > 0;
            discovery.add(now, command);
            if is_known_above {
                break;
            }
        }
    }
    let [parent, grandparent, ..] = lineage.map(|ancestor| ancestor.map(|ancestor| context.parents.peek(&ancestor)));
    // What takes no part in a burst is not suspect because it happens beside one.
    let takes_part = facts.discovery().is_some();
    let count = |entry: Option<&ParentEntry>, window| {
        entry.filter(|_| takes_part).map_or(0, |entry| entry.discovery.count(now, window))
    };
    row.logarithm_if_known(Feature::ParentDiscovery3s, parent.map(|entry| count(entry, DISCOVERY_BURST_MS)));
    row.logarithm_if_known(Feature::ParentDiscovery30s, parent.map(|entry| count(entry, DISCOVERY_WINDOW_MS)));
    row.logarithm_if_known(Feature::GrandparentDiscovery3s, grandparent.map(|entry| count(entry, DISCOVERY_BURST_MS)));
}

fn fill_session(context: &mut Context, now: i64, session: u32, facts: &Facts<'_>, row: &mut Row) {
    let entry = context.sessions.touch(session, SessionEntry::default);
    entry.starts_10s.add(now, 1);
    let mut discovery = 0;
    if let Some(command) = facts.discovery() {
        entry.discovery.add(now, command);
        discovery = entry.discovery.count(now, DISCOVERY_WINDOW_MS);
    }
    row.logarithm(Feature::SessionStarts10s, entry.starts_10s.sum(now));
    row.logarithm(Feature::SessionDiscovery30s, discovery);
}

fn fill_history(context: &mut Context, facts: &Facts<'_>, row: &mut Row) {
    let executable = facts.executable.map(|executable| context.seen.note(executable).min(SEEN_MAX));
    row.logarithm_if_known(Feature::ExecutableSeenBefore, executable);
    let pair = facts.parent_child_pair().map(|pair| context.seen.note(pair).min(SEEN_MAX));
    row.logarithm_if_known(Feature::PairSeenBefore, pair);
}

fn fill_connections(context: &Context, start: &ProcessStart, row: &mut Row) {
    let open = |process: ProcessId| context.owners.peek(&process).map(|owner| owner.open_connections() as u64);
    let own = open(start.process);
    let parent = start.parent.and_then(open);
    if own.is_some() || parent.is_some() {
        row.logarithm(Feature::LineageOpenConnections, own.unwrap_or(0) + parent.unwrap_or(0));
    }
}
