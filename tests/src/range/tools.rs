//! Which programs this machine has. The range needs a POSIX shell and the usual small tools; the rest makes it richer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that may be missing, by absolute path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// A C compiler.
    pub cc: Option<PathBuf>,
    /// Python 3: the interpreter itself, not a wrapper script.
    pub python: Option<PathBuf>,
    /// Perl 5.
    pub perl: Option<PathBuf>,
    /// A shell with `/dev/tcp`.
    pub bash: Option<PathBuf>,
    /// curl.
    pub curl: Option<PathBuf>,
    /// wget.
    pub wget: Option<PathBuf>,
}

impl Tools {
    /// Looks for each.
    pub fn detect() -> Self {
        Self {
            cc: find("cc"),
            python: find("python3").and_then(|python| real_interpreter(&python)),
            perl: find("perl"),
            bash: find("bash").filter(|bash| has_dev_tcp(bash)),
            curl: find("curl"),
            wget: find("wget"),
        }
    }

    /// The names of those that are missing.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            ("cc", &self.cc),
            ("python3", &self.python),
            ("perl", &self.perl),
            ("bash", &self.bash),
            ("curl", &self.curl),
            ("wget", &self.wget),
        ];
        all.into_iter().filter(|(_, path)| path.is_none()).map(|(name, _)| name).collect()
    }
}

/// The first executable file called `name` in `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn real_interpreter(python: &Path) -> Option<PathBuf> {
    let output = Command::new(python)
        .args(["-c", "import sys; print(sys.executable)"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    is_executable(&path).then_some(path)
}

fn has_dev_tcp(bash: &Path) -> bool {
    // A closed port tells a bash that tries to connect from one that looks for a file of that name.
    let output = Command::new(bash)
        .args(["-c", "exec 3<>/dev/tcp/127.0.0.1/1"])
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output();
    output.is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("No such file"))
}
