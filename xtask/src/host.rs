//! Packages that the machine itself must have: found by dpkg-query, installed by apt-get.

use std::io::{self, IsTerminal};
use std::process::{Command, Stdio};

use crate::cache::Cache;
use crate::ui::{Error, Result, Step, fail, output, run};

/// For unpacking Debian packages and sources.
pub const UNPACK: &[&str] = &["ca-certificates", "dpkg-dev", "git", "xz-utils"];

/// For building the archive and QEMU.
pub const BUILD: &[&str] = &[
    "binutils",
    "bison",
    "flex",
    "gcc",
    "libc6-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "libpixman-1-dev",
    "libslirp-dev",
    "make",
    "ninja-build",
    "pkg-config",
    "python3",
    "python3-venv",
    "zlib1g-dev",
];

/// For making the guests' initial RAM disks and the programs in them.
pub const GUEST: &[&str] = &["cpio", "gcc", "kmod", "libc6-dev"];

/// For building libFuzzer.
pub const FUZZ: &[&str] = &["g++", "libc6-dev"];

/// For building the lab kernel.
pub const KERNEL: &[&str] = &[
    "bc",
    "bison",
    "flex",
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "make",
];

/// For building the kernel's own tests, besides.
pub const SELFTESTS: &[&str] = &["libcap-dev", "uuid-dev"];

/// For the project's own meson.build and C tests.
pub const C_TESTS: &[&str] = &[
    "binutils",
    "g++",
    "gcc",
    "libcmocka-dev",
    "meson",
    "ninja-build",
    "pkg-config",
    "valgrind",
];

/// Installs those of `groups` that the machine lacks.
pub fn require(cache: &Cache, groups: &[&[&str]]) -> Result<()> {
    let missing = missing(&groups.concat())?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("as root: apt-get update && apt-get install {list}");
    let Some(prefix) = privilege() else {
        let what = format!("packages are missing, and there is neither root nor sudo: {list}");
        return Err(Error::new(what).next(by_hand));
    };

    let log = cache.log("host-packages");
    let mut step = Step::new(format!("installing {} Debian packages", missing.len()));
    // One unreachable archive among the machine's own is no reason to give up.
    if let Err(e) = run(&mut step, &log, apt_get(prefix).arg("update")) {
        eprintln!("warning: {e}");
    }
    let install = |step: &mut Step, more: &[String]| {
        let mut command = apt_get(prefix);
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing)
            .args(more);
        run(step, &log, &mut command)
    };
    install(&mut step, &[])
        .or_else(|first| match pcre_at_one_version() {
            Some(pcre) => install(&mut step, &pcre),
            None => Err(first),
        })
        .map_err(|e| e.next(by_hand))?;
    step.done(list);
    Ok(())
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let out = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .map_err(|_| Error::new("this machine has no dpkg-query").next("use Debian 12 or 13"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let installed: Vec<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("installed "))
        .collect();
    let mut missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|p| !installed.contains(p))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// What to put before a command so that root runs it.
fn privilege() -> Option<&'static [&'static str]> {
    if output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
        return Some(&[]);
    }
    // With a terminal sudo may ask for the password, without one it must not.
    let test = if io::stdin().is_terminal() {
        "-V"
    } else {
        "-n"
    };
    let mut sudo = Command::new("sudo");
    if test == "-n" {
        sudo.args(["-n", "true"]);
    } else {
        sudo.arg(test);
    }
    output(&mut sudo).is_ok().then_some(&["sudo"])
}

fn apt_get(prefix: &[&str]) -> Command {
    let words: Vec<_> = prefix
        .iter()
        .copied()
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// libglib2.0-dev needs libpcre2-dev, which needs its libraries at its own version. Where a newer
/// libpcre2 from elsewhere is installed apt finds no way; naming them all at the version of
/// libpcre2-dev is one.
fn pcre_at_one_version() -> Option<Vec<String>> {
    let policy = output(Command::new("apt-cache").args(["policy", "libpcre2-dev"])).ok()?;
    let version = policy
        .lines()
        .find_map(|l| l.trim().strip_prefix("Candidate: "))?;
    let names = ["dev", "8-0", "16-0", "32-0", "posix3"];
    let packages = names.iter().map(|n| format!("libpcre2-{n}={version}"));
    Some(
        ["--allow-downgrades".to_owned()]
            .into_iter()
            .chain(packages)
            .collect(),
    )
}

/// The machine's Debian mirror, from apt's own configuration: the archive of Debian itself, neither
/// its security archive nor somebody else's.
pub fn debian_mirror() -> Result<String> {
    let format = "$(SITE)\t$(ORIGIN)\t$(LABEL)\t$(RELEASE)";
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Identifier: Packages",
        "Component: main",
    ]))?;
    let rows: Vec<Vec<&str>> = targets.lines().map(|l| l.split('\t').collect()).collect();
    // Origin and label are known once the machine's lists have been fetched.
    let by_label = |r: &&Vec<&str>| r[1..3] == ["Debian", "Debian"];
    let codename = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = codename
        .lines()
        .find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    let by_release = |r: &&Vec<&str>| codename == Some(r[3]);
    let rows: Vec<_> = rows.into_iter().filter(|r| r.len() == 4).collect();
    match rows
        .iter()
        .find(by_label)
        .or_else(|| rows.iter().find(by_release))
    {
        Some(row) => Ok(row[0].to_owned()),
        None => fail("apt's configuration names no mirror of Debian")
            .map_err(|e: Error| e.next("add one to /etc/apt/sources.list.d, then: apt-get update")),
    }
}
