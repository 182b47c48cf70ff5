//! What kind of program a name stands for.

use crate::feature::path::{PathClass, file_name};

/// A set of kinds; a program may be of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramKinds(u16);

impl ProgramKinds {
    pub(super) const SHELL: Self = Self(1);
    /// Runs programs written in a scripting language.
    pub(super) const INTERPRETER: Self = Self(1 << 1);
    /// Tells about the system, its users, processes or network.
    pub(super) const DISCOVERY: Self = Self(1 << 2);
    /// Speaks to other hosts.
    pub(super) const NETWORK: Self = Self(1 << 3);
    /// Compilers, linkers and what drives them.
    pub(super) const BUILD: Self = Self(1 << 4);
    pub(super) const PACKAGE: Self = Self(1 << 5);
    /// Shows, searches or edits text.
    pub(super) const TEXT: Self = Self(1 << 6);
    /// Makes, copies, moves or changes files.
    pub(super) const FILE: Self = Self(1 << 7);
    /// Serves requests from outside.
    pub(super) const SERVICE: Self = Self(1 << 8);
    /// Starts programs at set times or at boot, or changes what is started.
    pub(super) const SCHEDULER: Self = Self(1 << 9);
    /// A name that a system has in its own directories, and that is therefore trusted.
    pub(super) const SYSTEM_NAME: Self = Self(1 << 10);

    pub(super) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any kind is in both.
    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Of a program's name; version suffixes (`python3.12`, `gcc-13`) and target prefixes (`x86_64-linux-gnu-`) do not
    /// matter. Names nobody listed have no kind.
    pub(super) fn of(name: &[u8]) -> Self {
        if let Some(kinds) = look_up(name) {
            return kinds;
        }
        let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
        let name = without_target(name);
        let name = without_version(name);
        look_up(name).unwrap_or_default()
    }
}

fn look_up(name: &[u8]) -> Option<ProgramKinds> {
    let first = usize::from(*name.first()?);
    let candidates = PROGRAMS.get(usize::from(FIRST_OF[first])..usize::from(FIRST_OF[first + 1]))?;
    let found = candidates.binary_search_by(|(listed, _)| listed.as_bytes().cmp(name)).ok()?;
    Some(candidates[found].1)
}

/// Where in [`PROGRAMS`] the names that begin with each byte begin; most words are no program's name, and this finds it
/// out at once.
static FIRST_OF: [u16; 257] = first_of();

const fn first_of() -> [u16; 257] {
    let mut table = [0; 257];
    let mut program = 0;
    let mut byte = 0;
    while byte < table.len() {
        while program < PROGRAMS.len() && (PROGRAMS[program].0.as_bytes()[0] as usize) < byte {
            program += 1;
        }
        table[byte] = program as u16;
        byte += 1;
    }
    table
}

/// `x86_64-linux-gnu-gcc` → `gcc`.
fn without_target(name: &[u8]) -> &[u8] {
    const MARK: &[u8] = b"-gnu-";
    name.windows(MARK.len()).rposition(|window| window == MARK).map_or(name, |at| &name[at + MARK.len()..])
}

/// `python3.12` → `python`, `gcc-13` → `gcc`, `nc.openbsd` → `nc`.
fn without_version(name: &[u8]) -> &[u8] {
    let name = name.iter().position(|byte| *byte == b'.').map_or(name, |at| &name[..at]);
    let end = name.iter().rposition(|byte| !byte.is_ascii_digit() && *byte != b'-').map_or(0, |at| at + 1);
    &name[..end]
}

/// Programs that are many in one file and tell them apart by the name they are called by.
const MULTI_CALL: [&[u8]; 4] = [b"busybox", b"coreutils", b"toybox", b"uutils"];

/// The name a process goes by: its executable's, but the called name for multi-call programs and for executables that
/// are not known. Empty when nothing is known.
pub(super) fn name_of<'a>(executable: &'a [u8], called: Option<&'a [u8]>) -> &'a [u8] {
    let name = file_name(executable);
    let called = called.map(called_name).unwrap_or_default();
    if !called.is_empty() && (name.is_empty() || MULTI_CALL.contains(&name)) { called } else { name }
}

/// The file name in the first argument, without the dash of login shells and what titles add after a colon or blank.
/// What looks like a kernel thread (`[kworker/0:1]`) stays as it is.
pub(super) fn called_name(first_argument: &[u8]) -> &[u8] {
    if first_argument.starts_with(b"[") {
        return first_argument;
    }
    let name = first_argument.split(|byte| matches!(byte, b' ' | b':')).next().unwrap_or(first_argument);
    let name = file_name(name);
    name.strip_prefix(b"-").unwrap_or(name)
}

/// Whether a process is called otherwise than its executable, beyond what links (`sh` → `dash`, `cc` → `gcc-13`,
/// `awk` → `mawk`), versions and multi-call programs explain: neither name occurs in the other.
pub(super) fn is_called_otherwise(executable: &[u8], first_argument: &[u8]) -> bool {
    let name = file_name(executable);
    let called = called_name(first_argument);
    if MULTI_CALL.contains(&name) || name.is_empty() {
        return false;
    }
    // Interpreted scripts are called by the script's path, links in the alternatives system by the link's.
    !contains(name, called) && !contains(called, without_version(name))
}

/// Whether a name that belongs to the system is used by a file from elsewhere, or a kernel thread's by any file.
pub(super) fn imitates_system_program(
    name: &[u8],
    called: Option<&[u8]>,
    class: PathClass,
    kinds: ProgramKinds,
) -> bool {
    let kernel_thread = |name: &[u8]| name.starts_with(b"[") && name.len() > 1 || name.starts_with(b"kworker");
    // `[` alone is the test command.
    kernel_thread(name)
        || called.is_some_and(kernel_thread)
        || (class != PathClass::System && kinds.has(ProgramKinds::SYSTEM_NAME))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

const SHELL: ProgramKinds = ProgramKinds::SHELL.union(ProgramKinds::SYSTEM_NAME);
const INTERPRETER: ProgramKinds = ProgramKinds::INTERPRETER;
const DISCOVERY: ProgramKinds = ProgramKinds::DISCOVERY.union(ProgramKinds::SYSTEM_NAME);
const NETWORK: ProgramKinds = ProgramKinds::NETWORK.union(ProgramKinds::SYSTEM_NAME);
const NETWORK_DISCOVERY: ProgramKinds = NETWORK.union(ProgramKinds::DISCOVERY);
const BUILD: ProgramKinds = ProgramKinds::BUILD;
const PACKAGE: ProgramKinds = ProgramKinds::PACKAGE;
const TEXT: ProgramKinds = ProgramKinds::TEXT.union(ProgramKinds::SYSTEM_NAME);
const FILE: ProgramKinds = ProgramKinds::FILE.union(ProgramKinds::SYSTEM_NAME);
const SERVICE: ProgramKinds = ProgramKinds::SERVICE.union(ProgramKinds::SYSTEM_NAME);
const SCHEDULER: ProgramKinds = ProgramKinds::SCHEDULER.union(ProgramKinds::SYSTEM_NAME);
const SYSTEM: ProgramKinds = ProgramKinds::SYSTEM_NAME;

/// Sorted by name.
#[rustfmt::skip]
static PROGRAMS: &[(&str, ProgramKinds)] = &[
    ("7z", FILE), ("7za", FILE), ("NetworkManager", SYSTEM), ("Rscript", INTERPRETER), ("Xorg", SYSTEM),
    ("acpid", SYSTEM), ("ag", TEXT), ("agetty", SYSTEM), ("anacron", SCHEDULER), ("apache2", SERVICE),
    ("apk", PACKAGE), ("apt", PACKAGE), ("apt-cache", PACKAGE), ("apt-get", PACKAGE), ("aptitude", PACKAGE),
    ("ar", BUILD), ("arch", DISCOVERY), ("aria2c", NETWORK), ("arp", NETWORK_DISCOVERY),
    ("arping", NETWORK_DISCOVERY), ("as", BUILD), ("ash", SHELL), ("at", SCHEDULER), ("atd", SCHEDULER),
    ("auditd", SYSTEM), ("autoconf", BUILD), ("automake", BUILD), ("avahi-daemon", SYSTEM), ("awk", TEXT),
    ("base32", FILE), ("base64", FILE), ("basename", TEXT), ("bash", SHELL), ("batch", SCHEDULER),
    ("bazel", BUILD), ("bison", BUILD), ("blkid", DISCOVERY), ("bluetoothd", SYSTEM), ("brew", PACKAGE),
    ("build-script-build", BUILD), ("bun", INTERPRETER), ("bzip2", FILE), ("c++", BUILD), ("caddy", SERVICE),
    ("cargo", BUILD), ("cat", TEXT), ("cc", BUILD), ("cc1", BUILD), ("cc1plus", BUILD), ("chattr", FILE),
    ("chgrp", FILE), ("chisel", NETWORK), ("chkconfig", SCHEDULER), ("chmod", FILE), ("chown", FILE),
    ("chronyd", SYSTEM), ("chsh", SYSTEM), ("clang", BUILD), ("clang++", BUILD), ("clippy-driver", BUILD),
    ("cmake", BUILD), ("cmp", TEXT), ("collect2", BUILD), ("column", TEXT), ("compile", BUILD), ("conda", PACKAGE),
    ("configure", BUILD), ("containerd", SERVICE), ("cp", FILE), ("cpio", FILE), ("cpp", BUILD),
    ("cron", SCHEDULER), ("crond", SCHEDULER), ("crontab", SCHEDULER), ("csh", SHELL), ("cupsd", SERVICE),
    ("curl", NETWORK), ("cut", TEXT), ("dash", SHELL), ("date", SYSTEM), ("dbus", SYSTEM), ("dbus-broker", SYSTEM),
    ("dbus-daemon", SYSTEM), ("dd", FILE), ("debconf", PACKAGE), ("deno", INTERPRETER), ("depmod", PACKAGE),
    ("df", DISCOVERY), ("diff", TEXT), ("dig", NETWORK_DISCOVERY), ("dirname", TEXT), ("dmesg", DISCOVERY),
    ("dmidecode", DISCOVERY), ("dnf", PACKAGE), ("dnsmasq", SERVICE), ("dockerd", SERVICE), ("dovecot", SERVICE),
    ("dpkg", PACKAGE), ("dpkg-deb", PACKAGE), ("dpkg-divert", PACKAGE), ("dpkg-preconfigure", PACKAGE),
    ("dpkg-query", PACKAGE), ("dpkg-split", PACKAGE), ("dpkg-statoverride", PACKAGE), ("dpkg-trigger", PACKAGE),
    ("dropbear", SERVICE), ("echo", SYSTEM), ("ed", TEXT), ("egrep", TEXT), ("emacs", TEXT), ("env", DISCOVERY),
    ("exim4", SERVICE), ("expect", INTERPRETER), ("expr", SYSTEM), ("false", SYSTEM), ("fd", TEXT),
    ("fgrep", TEXT), ("file", TEXT), ("find", TEXT), ("findmnt", DISCOVERY), ("finger", DISCOVERY),
    ("fish", SHELL), ("flatpak", PACKAGE), ("flex", BUILD), ("fping", NETWORK_DISCOVERY), ("free", DISCOVERY),
    ("frontend", PACKAGE), ("ftp", NETWORK), ("g++", BUILD), ("gawk", TEXT), ("gcc", BUILD), ("gdm", SYSTEM),
    ("gem", PACKAGE), ("getcap", DISCOVERY), ("getent", DISCOVERY), ("getty", SYSTEM), ("git", ProgramKinds::TEXT),
    ("gmake", BUILD), ("gnome-shell", SYSTEM), ("go", BUILD), ("gradle", BUILD), ("grep", TEXT),
    ("groups", DISCOVERY), ("guile", INTERPRETER), ("gunzip", FILE), ("gzip", FILE), ("haproxy", SERVICE),
    ("head", TEXT), ("hexdump", TEXT), ("host", NETWORK_DISCOVERY), ("hostname", DISCOVERY),
    ("hostnamectl", DISCOVERY), ("htop", DISCOVERY), ("httpd", SERVICE), ("hydra", NETWORK), ("id", DISCOVERY),
    ("ifconfig", NETWORK_DISCOVERY), ("init", SYSTEM), ("insmod", SYSTEM), ("install", FILE),
    ("ip", NETWORK_DISCOVERY), ("iptables", NETWORK_DISCOVERY), ("irb", INTERPRETER), ("irqbalance", SYSTEM),
    ("iwconfig", NETWORK_DISCOVERY), ("java", INTERPRETER), ("javac", BUILD), ("jq", TEXT), ("khugepaged", SYSTEM),
    ("kill", SYSTEM), ("killall", SYSTEM), ("ksh", SHELL), ("ksoftirqd", SYSTEM), ("kswapd", SYSTEM),
    ("kthreadd", SYSTEM), ("kworker", SYSTEM), ("last", DISCOVERY), ("lastlog", DISCOVERY),
    ("launchctl", SCHEDULER), ("ld", BUILD), ("ld.bfd", BUILD), ("ld.gold", BUILD), ("ld.lld", BUILD),
    ("ldapsearch", NETWORK), ("ldconfig", PACKAGE), ("ldconfig.real", PACKAGE), ("less", TEXT), ("lftp", NETWORK),
    ("libtool", BUILD), ("lighttpd", SERVICE), ("link", BUILD), ("lld", BUILD), ("ln", FILE),
    ("locale", DISCOVERY), ("login", SYSTEM), ("loginctl", DISCOVERY), ("logname", DISCOVERY), ("ls", TEXT),
    ("lsb_release", DISCOVERY), ("lsblk", DISCOVERY), ("lscpu", DISCOVERY), ("lshw", DISCOVERY),
    ("lsmod", DISCOVERY), ("lsof", DISCOVERY), ("lspci", DISCOVERY), ("lsusb", DISCOVERY), ("lto-wrapper", BUILD),
    ("lto1", BUILD), ("lua", INTERPRETER), ("luajit", INTERPRETER), ("m4", BUILD), ("make", BUILD), ("man", TEXT),
    ("mandb", PACKAGE), ("mariadbd", SERVICE), ("masscan", NETWORK_DISCOVERY), ("master", SERVICE), ("mawk", TEXT),
    ("medusa", NETWORK), ("memcached", SERVICE), ("meson", BUILD), ("migration", SYSTEM), ("mkdir", FILE),
    ("mksh", SHELL), ("mktemp", FILE), ("modprobe", SYSTEM), ("mongod", SERVICE), ("more", TEXT),
    ("mosh", NETWORK), ("mount", DISCOVERY), ("mv", FILE), ("mvn", BUILD), ("mysqld", SERVICE), ("named", SERVICE),
    ("nano", TEXT), ("nc", NETWORK), ("ncat", NETWORK), ("needrestart", PACKAGE), ("netcat", NETWORK),
    ("netstat", NETWORK_DISCOVERY), ("nft", NETWORK_DISCOVERY), ("nginx", SERVICE), ("ngrok", NETWORK),
    ("ninja", BUILD), ("nl", TEXT), ("nm", BUILD), ("nmap", NETWORK_DISCOVERY), ("nmbd", SERVICE),
    ("nmcli", NETWORK_DISCOVERY), ("node", INTERPRETER), ("nodejs", INTERPRETER), ("nohup", SYSTEM),
    ("npm", PACKAGE), ("nproc", DISCOVERY), ("nslookup", NETWORK_DISCOVERY), ("ntpd", SYSTEM), ("objcopy", BUILD),
    ("objdump", BUILD), ("od", TEXT), ("openssl", NETWORK), ("osascript", INTERPRETER), ("pacman", PACKAGE),
    ("passwd", SYSTEM), ("paste", TEXT), ("perl", INTERPRETER), ("pgrep", DISCOVERY), ("php", INTERPRETER),
    ("php-fpm", SERVICE), ("pidof", DISCOVERY), ("ping", NETWORK_DISCOVERY), ("pip", PACKAGE), ("pip3", PACKAGE),
    ("pipewire", SYSTEM), ("pkg-config", BUILD), ("pkill", SYSTEM), ("pnpm", PACKAGE), ("polkitd", SYSTEM),
    ("postgres", SERVICE), ("printenv", DISCOVERY), ("printf", SYSTEM), ("proftpd", SERVICE), ("ps", DISCOVERY),
    ("pstree", DISCOVERY), ("pulseaudio", SYSTEM), ("pwsh", INTERPRETER), ("python", INTERPRETER),
    ("python2", INTERPRETER), ("python3", INTERPRETER), ("ranlib", BUILD), ("rbash", SHELL), ("rclone", NETWORK),
    ("readlink", TEXT), ("realpath", TEXT), ("redis-server", SERVICE), ("rename", FILE),
    ("resolvectl", NETWORK_DISCOVERY), ("rg", TEXT), ("rm", FILE), ("rmdir", FILE), ("rngd", SYSTEM),
    ("route", NETWORK_DISCOVERY), ("rpcbind", SERVICE), ("rpcclient", NETWORK), ("rpm", PACKAGE),
    ("rpmdb", PACKAGE), ("rsync", NETWORK), ("rsyslogd", SYSTEM), ("ruby", INTERPRETER), ("rustc", BUILD),
    ("rustdoc", BUILD), ("rustfmt", BUILD), ("scp", NETWORK), ("sddm", SYSTEM), ("sed", TEXT), ("seq", SYSTEM),
    ("setfacl", FILE), ("setsid", SYSTEM), ("sftp", NETWORK), ("sh", SHELL), ("shred", FILE), ("sleep", SYSTEM),
    ("smbclient", NETWORK), ("smbd", SERVICE), ("snap", PACKAGE), ("snapd", SYSTEM), ("socat", NETWORK),
    ("sort", TEXT), ("split", FILE), ("squid", SERVICE), ("ss", NETWORK_DISCOVERY), ("ssh", NETWORK),
    ("ssh-keyscan", NETWORK), ("sshd", SERVICE), ("sshpass", NETWORK), ("stat", DISCOVERY), ("strings", TEXT),
    ("strip", BUILD), ("su", SYSTEM), ("sudo", SYSTEM), ("sync", SYSTEM), ("sysctl", DISCOVERY),
    ("systemctl", SCHEDULER), ("systemd", SYSTEM), ("systemd-journal", SYSTEM), ("systemd-journald", SYSTEM),
    ("systemd-logind", SYSTEM), ("systemd-networkd", SYSTEM), ("systemd-resolved", SYSTEM),
    ("systemd-run", SCHEDULER), ("systemd-timesyncd", SYSTEM), ("systemd-udevd", SYSTEM), ("tac", TEXT),
    ("tail", TEXT), ("tar", FILE), ("tclsh", INTERPRETER), ("tcpdump", NETWORK_DISCOVERY), ("tcsh", SHELL),
    ("tee", FILE), ("telnet", NETWORK), ("test", SYSTEM), ("tftp", NETWORK), ("timedatectl", DISCOVERY),
    ("timeout", SYSTEM), ("tomcat", SERVICE), ("top", DISCOVERY), ("touch", FILE), ("tr", TEXT),
    ("tracepath", NETWORK_DISCOVERY), ("traceroute", NETWORK_DISCOVERY), ("tree", TEXT), ("true", SYSTEM),
    ("truncate", FILE), ("tsc", BUILD), ("tshark", NETWORK_DISCOVERY), ("tty", DISCOVERY), ("udevd", SYSTEM),
    ("udisksd", SYSTEM), ("uname", DISCOVERY), ("unattended-upgrade", PACKAGE), ("uniq", TEXT), ("unzip", FILE),
    ("update-alternatives", PACKAGE), ("update-initramfs", PACKAGE), ("update-rc.d", SCHEDULER),
    ("uptime", DISCOVERY), ("useradd", SYSTEM), ("userdel", SYSTEM), ("usermod", SYSTEM), ("users", DISCOVERY),
    ("vi", TEXT), ("vim", TEXT), ("vmstat", DISCOVERY), ("vsftpd", SERVICE), ("w", DISCOVERY),
    ("watchdog", SYSTEM), ("wc", TEXT), ("wget", NETWORK), ("who", DISCOVERY), ("whoami", DISCOVERY),
    ("wpa_supplicant", SYSTEM), ("xargs", SYSTEM), ("xxd", TEXT), ("xz", FILE), ("yacc", BUILD), ("yarn", PACKAGE),
    ("yum", PACKAGE), ("zip", FILE), ("zsh", SHELL), ("zstd", FILE), ("zypper", PACKAGE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(PROGRAMS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn versions_and_targets_do_not_hide_a_program() {
        assert!(ProgramKinds::of(b"python3.12").has(ProgramKinds::INTERPRETER));
        assert!(ProgramKinds::of(b"gcc-13").has(ProgramKinds::BUILD));
        assert!(ProgramKinds::of(b"x86_64-linux-gnu-gcc-13").has(ProgramKinds::BUILD));
        assert!(ProgramKinds::of(b"nc.openbsd").has(ProgramKinds::NETWORK));
        assert_eq!(ProgramKinds::of(b""), ProgramKinds::default());
        assert_eq!(ProgramKinds::of(b"7"), ProgramKinds::default());
    }

    #[test]
    fn links_are_no_disguise_but_other_names_are() {
        for (executable, called) in [
            ("/usr/bin/dash", "sh"),
            ("/usr/bin/bash", "-bash"),
            ("/usr/bin/x86_64-linux-gnu-gcc-13", "cc"),
            ("/usr/bin/mawk", "/usr/bin/awk"),
            ("/usr/bin/python3.12", "python3"),
            ("/usr/bin/vim.basic", "vi"),
            ("/usr/bin/busybox", "ls"),
            ("/usr/sbin/sshd", "sshd: root@pts/0"),
        ] {
            assert!(!is_called_otherwise(executable.as_bytes(), called.as_bytes()), "{executable} {called}");
        }
        for (executable, called) in
            [("/tmp/a/payload", "[kworker/0:1]"), ("/usr/bin/sleep", "sshd"), ("/dev/shm/x", "/usr/bin/bash")]
        {
            assert!(is_called_otherwise(executable.as_bytes(), called.as_bytes()), "{executable} {called}");
        }
    }

    #[test]
    fn a_system_name_outside_the_system_is_an_imitation() {
        let imitates = |path: &str| {
            let name = file_name(path.as_bytes());
            imitates_system_program(name, None, PathClass::of(path.as_bytes()), ProgramKinds::of(name))
        };
        assert!(imitates("/tmp/.x/sshd"));
        assert!(imitates("/home/eve/[kworker-u8:2]"));
        assert!(!imitates("/usr/sbin/sshd"));
        assert!(!imitates("/usr/bin/["));
        let called = Some(b"[kworker/0:1]".as_slice());
        assert!(imitates_system_program(b"payload", called, PathClass::System, ProgramKinds::default()));
        assert!(!imitates("/home/eve/.cargo/bin/cargo"));
    }
}
