//! What is looked at in a connection.

use crate::feature::definition::{features, flag, fraction, logarithm, magnitude, number, ratio};

features! {
    Outbound = flag(
        "outbound",
        "this host began it; missing when unknown",
        "this host began the connection",
        "the other end began the connection",
    ),
    Failed = flag(
        "failed",
        "it never was established; missing when unknown",
        "it never was established",
        "it was established",
    ),
    Udp = flag("udp", "UDP rather than TCP", "it is UDP", "it is TCP"),
    Duration = logarithm(
        "duration",
        "milliseconds",
        "from first sight to end; missing when unknown",
        "it lasted {}",
    ),
    BytesSent = magnitude("bytes_sent", "bytes", "payload sent; missing when unknown", "{} sent"),
    SentFraction = fraction(
        "sent_fraction",
        "bytes",
        "payload sent, of all payload; missing when there was none or it is unknown",
        "{} of the bytes were sent",
    ),
    BytesPerSegmentSent = magnitude(
        "bytes_per_segment_sent",
        "bytes",
        "payload per segment sent; missing when unknown or none was sent",
        "{} per segment sent",
    ),
    SendRate = magnitude(
        "send_rate",
        "bytes/s",
        "payload sent over the duration; missing when either is unknown or the duration is zero",
        "{} sent per second",
    ),
    RemoteLoopback = flag(
        "remote_loopback",
        "the other end is this host",
        "the other end is this host",
        "the other end is another host",
    ),
    RemotePrivate = flag(
        "remote_private",
        "the other end has a private, unique local or link-local address",
        "the other end is in a private network",
        "the other end is in no private network",
    ),
    RemoteGlobal = flag(
        "remote_global",
        "the other end has a public address",
        "the other end is on the internet",
        "the other end is not on the internet",
    ),
    SystemPort = flag(
        "system_port",
        "the service's port is below 1024",
        "to a system port",
        "not to a system port",
    ),
    EphemeralPort = flag(
        "ephemeral_port",
        "the service's port is one that clients are given (32768 and above)",
        "to a port that services rarely have",
        "to a port that services have",
    ),
    UserIsRoot = flag(
        "user_is_root",
        "the socket belongs to root; missing when unknown",
        "its socket belongs to root",
        "its socket does not belong to root",
    ),
    OwnerKnown = flag(
        "owner_known",
        "the process that owns the socket was found",
        "its process is known",
        "its process is unknown",
    ),
    OwnerInSystemDirectory = flag(
        "owner_in_system_directory",
        "the owner's executable lies where packages install programs; missing when unknown",
        "its program runs from a system directory",
        "its program runs from outside the system directories",
    ),
    OwnerInTemporaryDirectory = flag(
        "owner_in_temporary_directory",
        "the owner's executable lies where everybody may write; missing when unknown",
        "its program runs from a directory where everybody may write",
        "its program does not run from a temporary directory",
    ),
    OwnerIsShell = flag(
        "owner_is_shell",
        "the owner is a shell; missing when unknown",
        "its program is a shell",
        "its program is no shell",
    ),
    OwnerIsInterpreter = flag(
        "owner_is_interpreter",
        "the owner is an interpreter of a scripting language; missing when unknown",
        "its program is a script interpreter",
        "its program is no script interpreter",
    ),
    OwnerIsNetworkTool = flag(
        "owner_is_network_tool",
        "the owner is a network tool or service; missing when unknown",
        "its program is a network tool or service",
        "its program is no network tool or service",
    ),
    OwnerAge = logarithm(
        "owner_age",
        "milliseconds",
        "time since the owner was created, at most 10 s; missing when unknown",
        "its process was {} old",
    ),
    OwnerSocketStreams = flag(
        "owner_socket_streams",
        "the owner started with a socket as a standard stream; missing when its start was not seen",
        "its process has a socket as a standard stream",
        "its process has ordinary standard streams",
    ),
    OwnerParentIsShell = flag(
        "owner_parent_is_shell",
        "the owner was started by a shell or interpreter; missing when unknown",
        "its process was started by a shell or interpreter",
        "its process was not started by a shell or interpreter",
    ),
    OwnerStartedShell = flag(
        "owner_started_shell",
        "the owner has started a shell; missing when the owner is unknown",
        "its process started a shell",
        "its process started no shell",
    ),
    OwnerIsHidden = flag(
        "owner_is_hidden",
        "a name in the owner's path began with a dot; missing when its start was not seen",
        "its process runs from a hidden file or directory",
        "its process runs from no hidden place",
    ),
    OwnerCalledOtherwise = flag(
        "owner_called_otherwise",
        "the owner was called by another name than its executable's; missing when its start was not seen",
        "its process goes by another name than its executable's",
        "its process goes by its executable's name",
    ),
    OwnerInlineScript = flag(
        "owner_inline_script",
        "the owner is a shell or interpreter that was given its program on the command line; missing when its start was \
         not seen",
        "its process runs a script given on the command line",
        "its process runs no script given on the command line",
    ),
    OwnerMentionsNetworkAddress = flag(
        "owner_mentions_network_address",
        "the owner's arguments name an IP address, localhost or a URL; missing when its start was not seen",
        "its process was told an address",
        "its process was told no address",
    ),
    OwnerHasTerminal = flag(
        "owner_has_terminal",
        "the owner had a controlling terminal; missing when unknown",
        "its process has a terminal",
        "its process has no terminal",
    ),
    OwnerConnections1s = logarithm(
        "owner_connections_1s",
        "connections",
        "connections of the same process within 1 s; missing when the owner is unknown",
        "{} connections of the same process in 1 s",
    ),
    OwnerConnections10s = logarithm(
        "owner_connections_10s",
        "connections",
        "connections of the same process within 10 s; missing when the owner is unknown",
        "{} connections of the same process in 10 s",
    ),
    OwnerConnections60s = logarithm(
        "owner_connections_60s",
        "connections",
        "connections of the same process within 60 s; missing when the owner is unknown",
        "{} connections of the same process in 60 s",
    ),
    OwnerDistinctPorts10s = logarithm(
        "owner_distinct_ports_10s",
        "ports",
        "distinct service ports of the same process within 10 s, at most 64; missing when the owner is unknown",
        "{} distinct ports contacted by the same process in 10 s",
    ),
    OwnerFailedPorts60s = logarithm(
        "owner_failed_ports_60s",
        "ports",
        "distinct service ports at which the same process failed within 60 s, at most 64; missing when the owner is \
         unknown",
        "{} distinct ports at which the same process failed in 60 s",
    ),
    OwnerDistinctAddresses60s = logarithm(
        "owner_distinct_addresses_60s",
        "addresses",
        "distinct remote addresses of the same process within 60 s, at most 64; missing when the owner is unknown",
        "{} distinct addresses contacted by the same process in 60 s",
    ),
    OwnerFailures60s = fraction(
        "owner_failures_60s",
        "connections",
        "failed connections of the same process, of all within 60 s; missing when the owner is unknown",
        "{} of the same process's recent connections failed",
    ),
    OwnerBytesSent60s = magnitude(
        "owner_bytes_sent_60s",
        "bytes",
        "payload the same process sent within 60 s; missing when the owner or the payload is unknown",
        "{} sent by the same process in 60 s",
    ),
    OwnerContacts = logarithm(
        "owner_contacts",
        "contacts",
        "contacts of the same process with the same destination, or of its parent's children together where it has \
         fewer than 3; at most 16; missing when the owner is unknown",
        "{} contacts of the same process with the same destination",
    ),
    OwnerIntervalMean = logarithm(
        "owner_interval_mean",
        "milliseconds",
        "mean time between these contacts; missing for fewer than 3",
        "its process contacts the same destination every {}",
    ),
    OwnerIntervalVariation = number(
        "owner_interval_variation",
        "standard deviations per mean",
        "coefficient of variation of the times between these contacts: 0 is clockwork, 1 is chance; missing for fewer \
         than 3",
        "regularity of its process: times vary by {} of their mean",
    ),
    OwnerSizeVariation = number(
        "owner_size_variation",
        "standard deviations per mean",
        "coefficient of variation of the payload of these contacts; missing for fewer than 3",
        "similarity of its process's contacts: sizes vary by {} of their mean",
    ),
    OwnerAlikeContacts = logarithm(
        "owner_alike_contacts",
        "contacts",
        "those of the same contacts whose payload is within an eighth of this one's; missing when the owner or the \
         payload is unknown",
        "{} contacts alike of its process with the same destination",
    ),
    OwnerAlikeJitter = number(
        "owner_alike_jitter",
        "deviations per median",
        "median absolute deviation of the times between these contacts alike, as a part of their median: 0 is \
         clockwork, 0.05 to 0.3 is a deliberate jitter; missing for fewer than 4",
        "jitter of contacts alike: times deviate by {} of their median",
    ),
    OwnerIntervalDeviation = number(
        "owner_interval_deviation",
        "deviations per median",
        "median absolute deviation of the times between the contacts of owner_contacts, as a part of their median; \
         missing for fewer than 4",
        "steadiness of its process's contacts: times deviate by {} of their median",
    ),
    OwnerIntervalSkew = number(
        "owner_interval_skew",
        "-1 to 1",
        "Bowley's skewness of these times: 0 where short and long ones balance, as a beacon's do; missing for fewer than \
         4 contacts",
        "balance of short and long times between its process's contacts: {}",
    ),
    OwnerShareOfDestination = fraction(
        "owner_share_of_destination",
        "contacts",
        "contacts of the same process, or of its parent's children where it has fewer than 3, among the latest 16 with \
         the same destination; missing when the owner is unknown",
        "{} of the latest contacts with the same destination are its process's",
    ),
    OwnerShareOfHost10s = fraction(
        "owner_share_of_host_10s",
        "connections",
        "connections of the same process, of all of the host within 10 s; missing when the owner is unknown",
        "{} of this host's recent connections are its process's",
    ),
    SizeOverOwnerMedian = ratio(
        "size_over_owner_median",
        "times",
        "payload both ways over the median of the earlier contacts of owner_contacts, each plus one byte; missing for \
         fewer than 3 of known payload",
        "{} times the usual payload between its process and the same destination",
    ),
    ExecutableConnections10s = logarithm(
        "executable_connections_10s",
        "connections",
        "connections of the same executable within 10 s; missing when that is unknown",
        "{} connections of the same program in 10 s",
    ),
    SimilarContacts = logarithm(
        "similar_contacts",
        "contacts",
        "contacts with the same destination that had about the same payload each way (within a quarter of a power of \
         two), at most 16; missing when the payload is unknown",
        "{} contacts alike with the same destination",
    ),
    SimilarIntervalMean = logarithm(
        "similar_interval_mean",
        "milliseconds",
        "mean time between these contacts; missing for fewer than 3",
        "contacts alike with the same destination every {}",
    ),
    SimilarIntervalVariation = number(
        "similar_interval_variation",
        "standard deviations per mean",
        "coefficient of variation of the times between these contacts: 0 is clockwork, 1 is chance; missing for fewer \
         than 3",
        "regularity of contacts alike: times vary by {} of their mean",
    ),
    HostConnections1s = logarithm(
        "host_connections_1s",
        "connections",
        "connections of the host within 1 s",
        "{} connections of this host in 1 s",
    ),
    HostConnections10s = logarithm(
        "host_connections_10s",
        "connections",
        "connections of the host within 10 s",
        "{} connections of this host in 10 s",
    ),
    HostDistinctPorts10s = logarithm(
        "host_distinct_ports_10s",
        "ports",
        "distinct service ports of the host's connections within 10 s, at most 256",
        "{} distinct ports contacted on this host in 10 s",
    ),
    HostFailedPorts10s = logarithm(
        "host_failed_ports_10s",
        "ports",
        "distinct service ports at which the host's connections failed within 10 s, at most 256",
        "{} distinct ports at which this host failed in 10 s",
    ),
    HostFailures10s = fraction(
        "host_failures_10s",
        "connections",
        "failed connections of the host, of all within 10 s",
        "{} of this host's recent connections failed",
    ),
    NeighbouringPorts60s = logarithm(
        "neighbouring_ports_60s",
        "ports",
        "other service ports, not more than 64 away from this one, of the host's connections within 60 s",
        "{} neighbouring ports contacted on this host in 60 s",
    ),
    HostFailedLogins60s = logarithm(
        "host_failed_logins_60s",
        "logins",
        "failed logins on the host within 60 s; missing when nothing reports logins",
        "{} failed logins on this host in 60 s",
    ),
    DestinationConnections1s = logarithm(
        "destination_connections_1s",
        "connections",
        "connections with the same destination (direction, remote address, service port) within 1 s",
        "{} connections with the same destination in 1 s",
    ),
    DestinationConnections10s = logarithm(
        "destination_connections_10s",
        "connections",
        "connections with the same destination within 10 s",
        "{} connections with the same destination in 10 s",
    ),
    DestinationConnections60s = logarithm(
        "destination_connections_60s",
        "connections",
        "connections with the same destination within 60 s",
        "{} connections with the same destination in 60 s",
    ),
    DestinationFailures60s = fraction(
        "destination_failures_60s",
        "connections",
        "failed connections with the same destination, of all within 60 s",
        "{} of the recent connections with the same destination failed",
    ),
    DestinationIntervalVariation = number(
        "destination_interval_variation",
        "standard deviations per mean",
        "coefficient of variation of the times between the latest 16 contacts: 0 is clockwork, 1 is chance; missing \
         for fewer than 3",
        "regularity of contacts with the same destination: times vary by {} of their mean",
    ),
    DestinationSizeVariation = number(
        "destination_size_variation",
        "standard deviations per mean",
        "coefficient of variation of the payload of the latest 16 contacts; missing for fewer than 3",
        "similarity of contacts with the same destination: sizes vary by {} of their mean",
    ),
    SizeOverDestinationMedian = ratio(
        "size_over_destination_median",
        "times",
        "payload both ways over the median of the latest 15 earlier contacts with the same destination, each plus one \
         byte; missing for fewer than 3 of known payload",
        "{} times the usual payload with the same destination",
    ),
    DestinationShareOfHostSent600s = fraction(
        "destination_share_of_host_sent_600s",
        "bytes",
        "payload sent to the same destination, of all the host sent within 10 min; missing when nothing was sent",
        "{} of what this host sent lately went to the same destination",
    ),
    DestinationSeenBefore = logarithm(
        "destination_seen_before",
        "connections",
        "earlier connections with the same destination in this epoch, roughly, at most 3",
        "this destination was seen {} times before on this host",
    ),
    ExecutableDestinationSeenBefore = logarithm(
        "executable_destination_seen_before",
        "connections",
        "earlier connections of this executable with the same destination in this epoch, roughly, at most 3; missing \
         when the executable is unknown",
        "this program was seen to contact this destination {} times before on this host",
    ),
}
