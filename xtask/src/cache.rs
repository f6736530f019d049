//! The cache directory: what it holds, its lock, and keys made of contents.
//!
//! ```text
//! apt/        a private apt tree and the packages it fetched   (debian.rs)
//! qemu/       QEMU: unpacked source, builds, finished binaries  (qemu.rs)
//! firmware/   what QEMU's -L points to                          (qemu.rs)
//! guest/      stock kernels and initial RAM disks               (guest.rs)
//! kernel/     the lab kernel and its initial RAM disks          (kernel.rs)
//! fuzz/       inputs that brought something new, by target      (fuzz.rs)
//! run/        one directory per running guest                   (boot.rs)
//! log/        output of the programs that were run
//! ```

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::ui::{Context, Error, Result, Step, fail};

#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    pub fn open() -> Result<Self> {
        let base = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(dir), _) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
            (_, Some(home)) => Path::new(&home).join(".cache"),
            _ => return Err(Error::new("no place for the cache").next("set HOME")),
        };
        let root = base.join("nested-vtd");
        fs::create_dir_all(root.join("log")).context(root.display())?;
        Ok(Self { root })
    }

    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// An empty log file of this name. One that is still being written by another xtask goes on
    /// under its old inode.
    pub fn log(&self, name: &str) -> PathBuf {
        let log = self.path("log").join(format!("{name}.log"));
        fs::remove_file(&log).ok();
        log
    }

    /// Waits until no other xtask prepares things in this cache.
    ///
    /// flock(1) holds the lock for a child that lives as long as its stdin is open, so the lock
    /// ends with this process however that ends.
    pub fn lock(&self) -> Result<Lock> {
        let mut child = Command::new("flock")
            .arg(self.path("lock"))
            .args(["sh", "-c", "echo locked; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start flock (package util-linux)")?;
        let Some(mut said) = child.stdout.take() else {
            return fail("flock has no stdout");
        };
        let waiter = thread::spawn(move || said.read_exact(&mut [0; 7]));
        let mut step = None;
        let mut waits = 0;
        while !waiter.is_finished() {
            thread::sleep(Duration::from_millis(5 << waits.min(5)));
            waits += 1;
            if waits > 10 {
                step.get_or_insert_with(|| Step::new("waiting for another xtask's preparations"))
                    .update("");
            }
        }
        if let Some(step) = step {
            step.done("");
        }
        match waiter.join() {
            Ok(Ok(())) => Ok(Lock { child }),
            _ => fail(format!("cannot lock {}", self.path("lock").display())),
        }
    }
}

/// The cache's lock; released when dropped.
pub struct Lock {
    child: Child,
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// SHA-256 of `bytes`, in hex.
pub fn sha256(bytes: &[u8]) -> Result<String> {
    let doing = "sha256sum (package coreutils)";
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).context(doing)?;
    }
    let out = child.wait_with_output().context(doing)?;
    let text = String::from_utf8_lossy(&out.stdout);
    match text.split_whitespace().next() {
        Some(sum) if sum.len() == 64 => Ok(sum.to_owned()),
        _ => fail("sha256sum gave no sum"),
    }
}

/// A short name for the contents of `parts`.
pub fn key(parts: &[&[u8]]) -> Result<String> {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&part.len().to_le_bytes());
        all.extend_from_slice(part);
    }
    Ok(sha256(&all)?[..16].to_owned())
}

/// Makes the directory `dir` by filling a new one beside it, so that it exists only when complete.
pub fn build_dir(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut new = dir.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    remove(&new)?;
    fs::create_dir_all(&new).context(new.display())?;
    fill(&new)?;
    remove(dir)?;
    fs::rename(&new, dir).context(dir.display())
}

/// Removes a file or a whole directory, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.context(path.display())
}

/// The paths in `dir`, sorted by name; none if there is no such directory.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).context(dir.display())?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.context(dir.display())?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Removes all but the `keep` youngest entries of `dir`.
pub fn prune(dir: &Path, keep: usize) -> Result<()> {
    let mut aged: Vec<_> = list(dir)?.into_iter().map(|p| (modified(&p), p)).collect();
    aged.sort();
    for (_, path) in aged.iter().rev().skip(keep) {
        remove(path)?;
    }
    Ok(())
}

pub fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}
