use super::*;
use crate::config::{Config, Overrides};

#[test]
fn what_is_installed_twice_is_as_after_the_first_time_and_all_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("etc")).unwrap();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    fs::write(root.join("etc/passwd"), format!("root:x:0:0::/:/bin/sh\npicket:x:{user}:{group}::/:/bin/false\n"))
        .unwrap();
    let first = install(root).unwrap();
    assert_eq!(first.done.len(), 6, "{first:?}");
    assert_eq!(fs::metadata(root.join(BINARY)).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(root.join(STATE_DIR)).unwrap().permissions().mode() & 0o777, 0o700);
    let unit = fs::read_to_string(root.join(UNIT_FILE)).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/picket-agent run"), "{unit}");
    assert!(fs::read_to_string(root.join(WANTED)).is_ok(), "the link leads to the unit");
    assert!(first.left.iter().any(|line| line.contains("systemd does not run here")), "{first:?}");

    let again = install(root).unwrap();
    assert_eq!(again.done, Vec::<String>::new());

    let config = root.join(CONFIG_FILE);
    fs::write(&config, "[agent]\nstop_drain_ms = 7\n").unwrap();
    install(root).unwrap();
    assert!(fs::read_to_string(&config).unwrap().contains("= 7"), "an administrator's configuration stays");

    fs::write(root.join(STATE_DIR).join("ledger"), "x").unwrap();
    let gone = uninstall(root, false).unwrap();
    assert_eq!(gone.done.len(), 4, "{gone:?}");
    assert!(!root.join(BINARY).exists() && root.join(STATE_DIR).join("ledger").exists() && config.exists());
    assert!(gone.left.iter().any(|line| line.contains("--purge")), "{gone:?}");
    uninstall(root, true).unwrap();
    assert!(!root.join(STATE_DIR).exists() && !config.exists());
    assert_eq!(uninstall(root, true).unwrap().done, Vec::<String>::new());
}

#[test]
fn the_installed_configuration_is_the_default_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, commented(CONFIG)).unwrap();
    let loaded = Config::load(&Overrides { config: Some(path), flags: Vec::new() }, []).unwrap();
    assert_eq!(loaded, Config::load(&Overrides::default(), []).unwrap());
    assert!(!commented(CONFIG).lines().any(|line| line.contains(" = ") && !line.starts_with('#')));
}

#[test]
fn what_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("usr"), "a file").unwrap();
    let error = install(dir.path()).unwrap_err().to_string();
    assert!(error.contains("usr/local/bin/picket-agent"), "{error}");
}
