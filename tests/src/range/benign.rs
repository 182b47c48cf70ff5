//! Ordinary work.

use std::io;
use std::path::Path;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::Round;
use super::activity::{ACCOUNTS, Launch, OWN_SERVICE, OwnService, Prepared, Program, Stage};
use super::helper::login_server::password_of;
use super::helper::{HelperPlan, HttpRequest, NetStep};

/// A piece of ordinary work and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Benign {
    /// Compiles a few C files, links them, runs the program.
    Compile {
        /// How many files.
        units: u32,
        /// `-O` level.
        optimisation: u32,
    },
    /// Lists, finds, greps and counts over folders.
    Browse {
        /// How many commands.
        commands: usize,
    },
    /// Fetches files from an HTTP server.
    Fetch {
        /// With which program, when this machine has it.
        client: FetchClient,
        /// Sizes of the files, bytes.
        sizes: Vec<usize>,
        /// Pause between two.
        gap_ms: u64,
    },
    /// Many connections at once, as a page with many parts causes them.
    PageLoad {
        /// Connections.
        parts: usize,
    },
    /// Posts small forms over one connection.
    SubmitForms {
        /// Bytes of each.
        sizes: Vec<usize>,
        /// Pause between two.
        gap_ms: u64,
    },
    /// Packs a folder and uploads it.
    Backup {
        /// Bytes uploaded.
        bytes: usize,
    },
    /// Asks a service whether it is well, or tells it figures, again and again, as regularly as a clock.
    HealthCheck {
        /// How often.
        interval_ms: u64,
        /// How many times.
        times: usize,
        /// Bytes of each answer, or of each post.
        bytes: usize,
        /// How it is done.
        style: HealthCheckStyle,
    },
    /// Looks whether each of a few services still listens.
    PortCheck {
        /// How many times around.
        times: usize,
        /// Pause between two rounds.
        gap_ms: u64,
    },
    /// A service that comes back late; its client is refused a few times.
    ServiceRestart {
        /// How late.
        down_ms: u64,
        /// Pause between the client's tries.
        retry_ms: u64,
    },
    /// Unpacks, checks, edits and installs files with many short processes.
    InstallPackages {
        /// How many.
        packages: u32,
    },
    /// A person looks after the machine, at a person's pace.
    AdminSession {
        /// How many commands.
        commands: usize,
        /// Pause between two, about.
        pause_ms: u64,
    },
    /// A scheduled job tidies up.
    CronJob {
        /// How many logs.
        logs: u32,
    },
    /// Somebody logs in and works.
    Login {
        /// Lines of work.
        lines: u32,
        /// Pause between lines.
        pause_ms: u64,
        /// Mistypes the password first.
        mistypes: bool,
    },
    /// Runs a script of one's own.
    HomeScript {
        /// With which interpreter, when this machine has it.
        interpreter: Interpreter,
    },
    /// Text tools in pipelines.
    Pipeline {
        /// How many.
        pipelines: u32,
    },
    /// Changes a configuration file.
    EditConfiguration {
        /// How many changes.
        edits: u32,
    },
}

/// How a service is asked, or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheckStyle {
    /// One long-lived process asks.
    Get,
    /// One long-lived process posts figures.
    Post,
    /// A shell loop with a fetch program asks.
    ShellLoop,
}

/// Programs that fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchClient {
    /// The range's own.
    Own,
    /// curl.
    Curl,
    /// wget.
    Wget,
    /// A few lines of Python.
    Python,
}

/// Interpreters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// The shell.
    Shell,
    /// Python 3.
    Python,
    /// Perl 5.
    Perl,
}

impl Benign {
    /// What it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Compile { .. } => "compile",
            Self::Browse { .. } => "browse",
            Self::Fetch { .. } => "fetch",
            Self::PageLoad { .. } => "page-load",
            Self::SubmitForms { .. } => "submit-forms",
            Self::Backup { .. } => "backup",
            Self::HealthCheck { .. } => "health-check",
            Self::PortCheck { .. } => "port-check",
            Self::ServiceRestart { .. } => "service-restart",
            Self::InstallPackages { .. } => "install-packages",
            Self::AdminSession { .. } => "admin-session",
            Self::CronJob { .. } => "cron-job",
            Self::Login { .. } => "login",
            Self::HomeScript { .. } => "home-script",
            Self::Pipeline { .. } => "pipeline",
            Self::EditConfiguration { .. } => "edit-configuration",
        }
    }

    /// One of each kind with parameters for `round`; a plan draws from these again and again.
    pub fn catalogue(round: Round, rng: &mut StdRng) -> Vec<Self> {
        // Round two: another day. Sizes, paces and numbers move, the kinds of work stay.
        let pace = if round == Round::One { 1.0 } else { rng.random_range(0.7..1.4) };
        let scaled = |ms: u64| (ms as f64 * pace) as u64;
        let sizes = |rng: &mut StdRng, count: usize, most: usize| -> Vec<usize> {
            // Spread over orders of magnitude.
            (0..count).map(|_| (200.0 * (most as f64 / 200.0).powf(rng.random_range(0.0..1.0))) as usize).collect()
        };
        let fetch_client = *[FetchClient::Own, FetchClient::Curl, FetchClient::Wget, FetchClient::Python]
            .choose(rng)
            .unwrap_or(&FetchClient::Own);
        let fetch_count = rng.random_range(3..10);
        let form_count = rng.random_range(4..16);
        let interpreter =
            *[Interpreter::Shell, Interpreter::Python, Interpreter::Perl].choose(rng).unwrap_or(&Interpreter::Shell);
        vec![
            Self::Compile { units: rng.random_range(1..4), optimisation: rng.random_range(0..3) },
            Self::Browse { commands: rng.random_range(3..9) },
            Self::Fetch {
                client: fetch_client,
                sizes: sizes(rng, fetch_count, 2 << 20),
                gap_ms: scaled(rng.random_range(0..250)),
            },
            Self::PageLoad { parts: rng.random_range(5..25) },
            Self::SubmitForms { sizes: sizes(rng, form_count, 6000), gap_ms: scaled(rng.random_range(20..300)) },
            Self::Backup { bytes: rng.random_range(2 << 20..12 << 20) },
            Self::HealthCheck {
                interval_ms: scaled(rng.random_range(300..1200)),
                times: rng.random_range(6..15),
                bytes: rng.random_range(16..700),
                style: *[HealthCheckStyle::Get, HealthCheckStyle::Post, HealthCheckStyle::ShellLoop]
                    .choose(rng)
                    .unwrap_or(&HealthCheckStyle::Get),
            },
            Self::PortCheck { times: rng.random_range(1..4), gap_ms: scaled(rng.random_range(300..1000)) },
            Self::ServiceRestart {
                down_ms: scaled(rng.random_range(300..900)),
                retry_ms: scaled(rng.random_range(120..400)),
            },
            Self::InstallPackages { packages: rng.random_range(2..6) },
            Self::AdminSession { commands: rng.random_range(3..8), pause_ms: scaled(rng.random_range(300..900)) },
            Self::CronJob { logs: rng.random_range(2..6) },
            Self::Login {
                lines: rng.random_range(4..20),
                pause_ms: scaled(rng.random_range(30..200)),
                mistypes: rng.random_bool(0.15),
            },
            Self::HomeScript { interpreter },
            Self::Pipeline { pipelines: rng.random_range(2..6) },
            Self::EditConfiguration { edits: rng.random_range(1..4) },
        ]
    }

    pub(super) fn prepare(&self, stage: &mut Stage<'_>) -> io::Result<Prepared> {
        match self {
            Self::Compile { units, optimisation } => compile(stage, *units, *optimisation),
            Self::Browse { commands } => Ok(browse(stage, *commands)),
            Self::Fetch { client, sizes, gap_ms } => Ok(fetch(stage, *client, sizes, *gap_ms)),
            Self::PageLoad { parts } => Ok(page_load(stage, *parts)),
            Self::SubmitForms { sizes, gap_ms } => Ok(submit_forms(stage, sizes, *gap_ms)),
            Self::Backup { bytes } => backup(stage, *bytes),
            Self::HealthCheck { interval_ms, times, bytes, style } => {
                Ok(health_check(stage, *interval_ms, *times, *bytes, *style))
            }
            Self::PortCheck { times, gap_ms } => Ok(port_check(stage, *times, *gap_ms)),
            Self::ServiceRestart { down_ms, retry_ms } => Ok(service_restart(stage, *down_ms, *retry_ms)),
            Self::InstallPackages { packages } => install_packages(stage, *packages),
            Self::AdminSession { commands, pause_ms } => Ok(admin_session(stage, *commands, *pause_ms)),
            Self::CronJob { logs } => cron_job(stage, *logs),
            Self::Login { lines, pause_ms, mistypes } => Ok(login(stage, *lines, *pause_ms, *mistypes)),
            Self::HomeScript { interpreter } => home_script(stage, *interpreter),
            Self::Pipeline { pipelines } => Ok(pipeline(stage, *pipelines)),
            Self::EditConfiguration { edits } => edit_configuration(stage, *edits),
        }
    }
}

/// `sh -c` with commands of which some may find nothing.
fn shell(directory: &Path, mut script: String) -> Prepared {
    script.push_str("\ntrue");
    Prepared::root(Launch { program: Program::Shell { script }, directory: directory.to_owned(), record: None })
}

fn script_file(folder: &Path, name: &str, script: String) -> Prepared {
    let program = Program::Script { path: folder.join(name), script, tools: Vec::new() };
    Prepared::root(Launch { program, directory: folder.to_owned(), record: None })
}

fn compile(stage: &mut Stage<'_>, units: u32, optimisation: u32) -> io::Result<Prepared> {
    let Some(cc) = stage.tools.cc.clone() else {
        return Ok(browse(stage, 4));
    };
    let home = stage.home();
    let folder = stage.folder_in(&home)?;
    let mut main = String::from("#include <stdio.h>\n");
    let mut script = String::from("set -e\n");
    let mut calls = String::new();
    let mut objects = String::from("main.o");
    for unit in 0..units {
        std::fs::write(
            folder.join(format!("unit{unit}.c")),
            format!("int work{unit}(int n) {{ int s = {unit}; for (int i = 0; i < n; i++) s += i * i; return s; }}\n"),
        )?;
        main += &format!("int work{unit}(int);\n");
        calls += &format!(" + work{unit}(1000)");
        script += &format!("{} -O{optimisation} -c unit{unit}.c -o unit{unit}.o\n", cc.display());
        objects += &format!(" unit{unit}.o");
    }
    main += &format!("int main(void) {{ printf(\"%d\\n\", 0{calls}); return 0; }}\n");
    std::fs::write(folder.join("main.c"), main)?;
    let cc = cc.display();
    script += &format!("{cc} -O{optimisation} -c main.c -o main.o\n{cc} {objects} -o program\n./program\nrm -f *.o\n");
    Ok(script_file(&folder, "build.sh", script))
}

fn browse(stage: &mut Stage<'_>, commands: usize) -> Prepared {
    let mut pool = vec![
        "ls -la .",
        "ls -lR . | tail -n 3",
        "find . -name '*.c' -type f",
        "find . -type f -size +1k",
        "grep -rn TODO .",
        "grep -rc include . | sort | head -n 5",
        "wc -l */*.c",
        "du -sk .",
        "head -n 4 */*.c",
        "file . || stat .",
        "cat */notes.txt | sort | uniq -c | sort -rn | head -n 3",
        "diff module0/code.c module1/code.c | head",
    ];
    pool.shuffle(&mut stage.rng);
    pool.truncate(commands);
    shell(&stage.folders.source.clone(), pool.join("\n"))
}

fn fetch(stage: &mut Stage<'_>, client: FetchClient, sizes: &[usize], gap_ms: u64) -> Prepared {
    let address = if stage.rng.random_bool(0.6) { stage.services.mirror } else { stage.any_http() };
    let home = stage.home();
    let (pause, number) = (gap_ms as f64 / 1000.0, stage.number);
    let command = match (client, &stage.tools.curl, &stage.tools.wget, &stage.tools.python) {
        (FetchClient::Curl, Some(curl), ..) => format!("{} -s -o /dev/null", curl.display()),
        (FetchClient::Wget, _, Some(wget), _) => format!("{} -q -O /dev/null", wget.display()),
        (FetchClient::Python, .., Some(python)) => {
            let urls: Vec<String> =
                sizes.iter().map(|size| format!("'http://{address}/blob/{size}?i={number}'")).collect();
            let code = format!(
                "import time, urllib.request\nfor url in [{}]:\n    urllib.request.urlopen(url).read()\n    time.sleep({pause})\n",
                urls.join(", ")
            );
            let program =
                Program::Command { path: python.clone(), arguments: vec!["-c".to_owned(), code], input: None };
            return Prepared::root(Launch { program, directory: home, record: None });
        }
        _ => {
            let mut steps = Vec::new();
            for &size in sizes {
                steps.push(NetStep::Http { address, requests: vec![HttpRequest::get(size)], gap_ms: 0 });
                steps.push(NetStep::Pause { ms: gap_ms });
            }
            return Prepared::root(stage.tool(address, steps));
        }
    };
    let script: Vec<String> = sizes
        .iter()
        .map(|size| format!("{command} 'http://{address}/blob/{size}?i={number}'; sleep {pause:.2}"))
        .collect();
    shell(&home, script.join("\n"))
}

fn page_load(stage: &mut Stage<'_>, parts: usize) -> Prepared {
    let addresses = stage.services.http();
    let steps = (0..parts)
        .map(|_| NetStep::Http {
            address: addresses.choose(&mut stage.rng).copied().unwrap_or(addresses[0]),
            requests: (0..stage.rng.random_range(1..4))
                .map(|_| HttpRequest::get(stage.rng.random_range(300..60_000)))
                .collect(),
            gap_ms: stage.rng.random_range(0..20),
        })
        .collect();
    Prepared::root(stage.tool(stage.services.web, steps))
}

fn submit_forms(stage: &mut Stage<'_>, sizes: &[usize], gap_ms: u64) -> Prepared {
    let address = stage.any_http();
    let requests = sizes.iter().map(|&size| HttpRequest::post(size)).collect();
    let steps = vec![NetStep::Http { address, requests, gap_ms }];
    Prepared::root(stage.tool(address, steps))
}

fn backup(stage: &mut Stage<'_>, bytes: usize) -> io::Result<Prepared> {
    let home = stage.home();
    let folder = stage.folder_in(&home)?;
    let address = stage.services.storage;
    let record = stage.scaffold("connections");
    let steps = vec![NetStep::Http { address, requests: vec![HttpRequest::post(bytes)], gap_ms: 0 }];
    let tool = (stage.tool_name(), HelperPlan::Client { steps, record: record.clone() });
    let arguments = stage.tool_arguments(address).join(" ");
    let script = format!(
        "tar cf all.tar -C {source} .\ngzip -f all.tar\nsha256sum all.tar.gz > all.tar.gz.sha256\n\
         @TOOL0@ {arguments}\nrm -f all.tar.gz\n",
        source = stage.folders.source.display()
    );
    let program = Program::Script { path: folder.join("backup.sh"), script, tools: vec![tool] };
    Ok(Prepared::root(Launch { program, directory: folder, record: Some(record) }))
}

fn health_check(
    stage: &mut Stage<'_>,
    interval_ms: u64,
    times: usize,
    bytes: usize,
    style: HealthCheckStyle,
) -> Prepared {
    let address = stage.any_http();
    if let (HealthCheckStyle::ShellLoop, Some(curl)) = (style, &stage.tools.curl) {
        let script = format!(
            "for i in $(seq {times}); do {} -s -o /dev/null 'http://{address}/blob/{bytes}?i={}'; sleep {:.2}; done",
            curl.display(),
            stage.number,
            interval_ms as f64 / 1000.0
        );
        return shell(&stage.folders.home.clone(), script);
    }
    let request = if style == HealthCheckStyle::Post { HttpRequest::post(bytes) } else { HttpRequest::get(bytes) };
    let mut steps = Vec::new();
    for _ in 0..times {
        steps.push(NetStep::Http { address, requests: vec![request.clone()], gap_ms: 0 });
        steps.push(NetStep::Pause { ms: interval_ms });
    }
    Prepared::root(stage.tool(address, steps))
}

fn port_check(stage: &mut Stage<'_>, times: usize, gap_ms: u64) -> Prepared {
    let mut steps = Vec::new();
    for _ in 0..times {
        for address in stage.services.http() {
            steps.push(NetStep::Probe { address, banner_ms: 0 });
        }
        steps.push(NetStep::Pause { ms: gap_ms });
    }
    Prepared::root(stage.tool(stage.services.web, steps))
}

fn service_restart(stage: &mut Stage<'_>, down_ms: u64, retry_ms: u64) -> Prepared {
    let (ready, record) = (stage.scaffold("port"), stage.scaffold("visits"));
    let tries = down_ms / retry_ms.max(1) + 4;
    let mut steps = Vec::new();
    for _ in 0..tries {
        steps.push(NetStep::Http { address: OWN_SERVICE, requests: vec![HttpRequest::get(2000)], gap_ms: 0 });
        steps.push(NetStep::Pause { ms: retry_ms });
    }
    let client = stage.tool(OWN_SERVICE, steps);
    Prepared {
        service: Some(OwnService {
            plan: HelperPlan::HttpServer { ready: ready.clone(), port: 0, record },
            ready,
            late_by_ms: Some(down_ms),
        }),
        ..Prepared::root(client)
    }
}

fn install_packages(stage: &mut Stage<'_>, packages: u32) -> io::Result<Prepared> {
    let tmp = stage.folders.tmp.clone();
    let folder = stage.folder_in(&tmp)?;
    let source = stage.folders.source.display();
    let etc = stage.folders.etc.display();
    let mut script = String::from("set -e\n");
    for package in 0..packages {
        let module = stage.rng.random_range(0..4);
        script += &format!(
            "mkdir -p unpack{package}\ntar cf p{package}.tar -C {source} module{module}\n\
             tar xf p{package}.tar -C unpack{package}\nsha256sum p{package}.tar > sums{package}\n\
             sha256sum -c sums{package} > /dev/null\n\
             for f in unpack{package}/module{module}/*; do sed -i 's/TODO/DONE/' $f; chmod 644 $f; done\n\
             cp -r unpack{package}/module{module} installed{package}\n\
             install -m 644 sums{package} {etc}/package-{number}-{package}\n\
             cat installed{package}/* | wc -c\nln -sf installed{package} current\nrm -rf unpack{package} p{package}.tar\n",
            number = stage.number
        );
    }
    Ok(script_file(&folder, "postinst.sh", script))
}

fn admin_session(stage: &mut Stage<'_>, commands: usize, pause_ms: u64) -> Prepared {
    let mut pool = vec![
        "id",
        "uname -a",
        "whoami",
        "uptime || cat /proc/uptime",
        "date",
        "df -k . | tail -n 1",
        "free || head -n 3 /proc/meminfo",
        "ps | head -n 5",
        "ls -l",
        "tail -n 3 */notes.txt",
        "du -sk .",
        "cat /proc/loadavg",
        "who || true",
        "hostname || true",
        "ls -t | head -n 3",
        "grep -c include module0/code.c",
        "echo done",
        "pwd",
        "ls /",
    ];
    pool.shuffle(&mut stage.rng);
    pool.truncate(commands);
    let mut script = String::new();
    for command in pool {
        let pause = pause_ms as f64 / 1000.0 * stage.rng.random_range(0.5..1.5);
        script += &format!("{{ {command}; }} >/dev/null 2>&1\nsleep {pause:.2}\n");
    }
    shell(&stage.folders.source.clone(), script)
}

fn cron_job(stage: &mut Stage<'_>, logs: u32) -> io::Result<Prepared> {
    let spool = stage.folders.spool.clone();
    let folder = stage.folder_in(&spool)?;
    let mut script = String::from("set -e\n");
    for log in 0..logs {
        std::fs::write(folder.join(format!("app{log}.log")), "a line of a log\n".repeat(400))?;
        script += &format!("cp app{log}.log app{log}.log.1\ngzip -f app{log}.log.1\ntruncate -s 0 app{log}.log\n");
    }
    script.push_str("find . -name '*.gz' -mtime +7\ndate > last-run\n");
    Ok(script_file(&folder, "rotate", script))
}

fn login(stage: &mut Stage<'_>, lines: u32, pause_ms: u64, mistypes: bool) -> Prepared {
    let user = ACCOUNTS.choose(&mut stage.rng).copied().unwrap_or(ACCOUNTS[0]);
    let mut tries = vec![(user.to_owned(), password_of(user))];
    if mistypes {
        tries.insert(0, (user.to_owned(), "corect-horse".to_owned()));
    }
    let steps = vec![NetStep::Login { address: stage.services.login, tries, session_lines: lines, pause_ms }];
    Prepared::root(stage.tool(stage.services.login, steps))
}

fn home_script(stage: &mut Stage<'_>, interpreter: Interpreter) -> io::Result<Prepared> {
    let home = stage.home();
    let folder = stage.folder_in(&home)?;
    let source = stage.folders.source.display().to_string();
    let (path, name, text) = match (interpreter, &stage.tools.python, &stage.tools.perl) {
        (Interpreter::Python, Some(python), _) => (
            python.clone(),
            "report.py",
            format!(
                "import os, subprocess\ntotal = 0\nfor folder, _, files in os.walk('{source}'):\n    for name in files:\n\
                 \x20       total += os.path.getsize(os.path.join(folder, name))\n\
                 subprocess.run(['sort', '-r', '/dev/null'])\nprint(total)\n"
            ),
        ),
        (Interpreter::Perl, _, Some(perl)) => (
            perl.clone(),
            "report.pl",
            format!(
                "my $n = 0; for my $f (glob('{source}/*/*')) {{ $n += -s $f; }} system('date'); print \"$n\\n\";\n"
            ),
        ),
        _ => {
            let script = format!(
                "for f in {source}/*/*.c; do wc -c \"$f\"; done | sort -n > sizes.txt\ntail -n 2 sizes.txt\nbasename \"$0\"\n"
            );
            return Ok(script_file(&folder, "report.sh", script));
        }
    };
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    let program = Program::Command { path, arguments: vec![file.display().to_string()], input: None };
    Ok(Prepared::root(Launch { program, directory: folder, record: None }))
}

fn pipeline(stage: &mut Stage<'_>, pipelines: u32) -> Prepared {
    let mut script = String::new();
    for _ in 0..pipelines {
        let module = stage.rng.random_range(0..4);
        script.push_str(
            [
                "cat module@/notes.txt | tr a-z A-Z | sort | uniq -c | head -n 3\n",
                "awk '{ n += NF } END { print n }' module@/notes.txt | cat\n",
                "sed -n 1,5p module@/code.c | cut -c 1-20 | rev 2>/dev/null\n",
                "echo 'echo from a pipe' | sh | cat\n",
                "sort module@/notes.txt | comm -12 - module@/notes.txt | wc -l\n",
            ]
            .choose(&mut stage.rng)
            .unwrap_or(&"true\n")
            .replace('@', &module.to_string())
            .as_str(),
        );
    }
    shell(&stage.folders.source.clone(), script)
}

fn edit_configuration(stage: &mut Stage<'_>, edits: u32) -> io::Result<Prepared> {
    let etc = stage.folders.etc.clone();
    let folder = stage.folder_in(&etc)?;
    std::fs::write(folder.join("app.conf"), "workers = 4\nlisten = 127.0.0.1\n")?;
    let mut script = String::new();
    for edit in 0..edits {
        let value = stage.rng.random_range(1..64);
        script += &format!(
            "cp app.conf app.conf.orig\nsed -i 's/workers = .*/workers = {value}/' app.conf\n\
             echo 'limit{edit} = {value}' | tee -a app.conf\nchmod 640 app.conf\ndiff app.conf.orig app.conf\n"
        );
    }
    Ok(shell(&folder, script))
}
