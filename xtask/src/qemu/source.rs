//! QEMU's source: Debian's, unpacked into a git repository, with the project's patches as commits.
//!
//! The repository in the cache has the tag `base` (Debian's source), the branch `nested-vtd` that is
//! checked out and built, and REFRESHED, the last commit known to equal qemu-patches/. What the branch
//! has beyond REFRESHED is somebody's work and is never overwritten.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Cache};
use crate::debian::{Apt, STABLE};
use crate::ui::{Context, Error, Result, Step, fail, output, run};
use crate::workspace::Workspace;

const BRANCH: &str = "nested-vtd";
const REFRESHED: &str = "refs/nested-vtd/refreshed";

pub struct Source {
    pub version: String,
    tree: PathBuf,
    log: PathBuf,
}

impl Source {
    /// The present source of Debian 13's QEMU; unpacked if it is not yet there.
    pub fn open(cache: &Cache, apt: &Apt) -> Result<Self> {
        let name = format!("qemu/{STABLE}");
        let version = apt.source_version(&name)?;
        let tree = cache.path("qemu/source").join(&version).join("qemu");
        let source = Self {
            version,
            tree,
            log: cache.log("qemu-source"),
        };
        if !source.tree.is_dir() {
            source.unpack(apt, &name)?;
        }
        Ok(source)
    }

    fn unpack(&self, apt: &Apt, name: &str) -> Result<()> {
        let mut step = Step::new(format!("source of QEMU {}", self.version));
        step.update("fetching");
        let dsc = apt.source(&mut step, name)?;
        let dir = self.dir();
        cache::build_dir(dir, |dir| {
            let tree = dir.join("qemu");
            let mut unpack = Command::new("dpkg-source");
            unpack.args(["--no-check", "--extract"]).arg(dsc).arg(&tree);
            run(&mut step, &self.log, &mut unpack)?;
            let mut git = |args: &[&str]| run(&mut step, &self.log, git(&tree).args(args));
            git(&["init", "--quiet", "--initial-branch", BRANCH])?;
            git(&["add", "--all", "--force"])?;
            git(&[
                "commit",
                "--quiet",
                "--message",
                &format!("Debian's QEMU {}", self.version),
            ])?;
            git(&["tag", "base"])?;
            git(&["update-ref", REFRESHED, "base"])
        })?;
        step.done("");
        Ok(())
    }

    /// The directory of this version, where the tree and its build are.
    pub fn dir(&self) -> &Path {
        self.tree.parent().unwrap_or(&self.tree)
    }

    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Puts the patches on the tree, touching only files that change by it.
    pub fn patch(&self, step: &mut Step, patches: &[PathBuf]) -> Result<()> {
        let key = content_key(patches)?;
        let note = self.dir().join("patches");
        let noted = fs::read_to_string(&note).is_ok_and(|k| k == key);
        if noted && !self.edited()? {
            return Ok(());
        }
        self.refuse_edits()?;
        let commit = self.apply(step, patches)?;
        let mut switch = git(&self.tree);
        switch.args(["checkout", "--quiet", "--force", "-B", BRANCH, &commit]);
        run(step, &self.log, &mut switch)?;
        output(git(&self.tree).args(["update-ref", REFRESHED, &commit]))?;
        fs::write(&note, key).context(note.display())
    }

    /// Applies the patches to `base` in a scratch work tree, strictly, and returns the commit.
    pub fn apply(&self, step: &mut Step, patches: &[PathBuf]) -> Result<String> {
        let scratch = self.dir().join("scratch");
        cache::remove(&scratch)?;
        output(git(&self.tree).args(["worktree", "prune"]))?;
        let mut add = git(&self.tree);
        add.args(["worktree", "add", "--quiet", "--detach"])
            .arg(&scratch)
            .arg("base");
        run(step, &self.log, &mut add)?;
        if !patches.is_empty() {
            let mut am = git(&scratch);
            am.args(["am", "--quiet", "--committer-date-is-author-date"])
                .args(patches);
            run(step, &self.log, &mut am).map_err(|e| {
                e.next("rebase the patches: cargo xtask qemu --edit, fix there, cargo xtask qemu --refresh")
            })?;
        }
        let commit = output(git(&scratch).args(["rev-parse", "HEAD"]))?
            .trim()
            .to_owned();
        cache::remove(&scratch)?;
        output(git(&self.tree).args(["worktree", "prune"]))?;
        Ok(commit)
    }

    /// Is there work in the tree that qemu-patches/ does not have?
    pub fn edited(&self) -> Result<bool> {
        let commit = |name| output(git(&self.tree).args(["rev-parse", name]));
        Ok(commit("HEAD")? != commit(REFRESHED)? || self.uncommitted()?)
    }

    fn uncommitted(&self) -> Result<bool> {
        Ok(!output(git(&self.tree).args(["status", "--porcelain"]))?.is_empty())
    }

    fn refuse_edits(&self) -> Result<()> {
        if !self.edited()? {
            return Ok(());
        }
        let tree = self.tree.display();
        Err(Error::new(format!(
            "{tree} has changes that qemu-patches/ does not have"
        ))
        .next(format!(
            "commit them and run `cargo xtask qemu --refresh`, or throw them away: \
             git -C {tree} checkout --force -B {BRANCH} {REFRESHED} && git -C {tree} clean -fd"
        )))
    }

    /// Writes the commits above `base` as qemu-patches/*.patch. Returns the names of files that
    /// changed, came or went.
    pub fn refresh(&self, workspace: &Workspace) -> Result<Vec<String>> {
        let tree = self.tree.display();
        if self.uncommitted()? {
            return Err(
                Error::new(format!("{tree} has changes that are not committed"))
                    .next(format!("git -C {tree} commit, then again")),
            );
        }
        let merges = output(git(&self.tree).args(["rev-list", "--merges", "base..HEAD"]))?;
        if output(git(&self.tree).args(["merge-base", "--is-ancestor", "base", "HEAD"])).is_err()
            || !merges.is_empty()
        {
            return fail(format!(
                "{tree}: HEAD is not a line of commits above the tag base"
            ));
        }
        let new = self.dir().join("patches.new");
        cache::remove(&new)?;
        let mut format = git(&self.tree);
        format.args([
            "format-patch",
            "--quiet",
            "--no-signature",
            "--zero-commit",
            "--no-numbered",
        ]);
        // What else depends on the repository or on the user's settings.
        format.args([
            "--abbrev=12",
            "--diff-algorithm=default",
            "--no-renames",
            "--no-cover-letter",
        ]);
        output(format.arg("--output-directory").arg(&new).arg("base..HEAD"))?;

        let dir = workspace.path("qemu-patches");
        fs::create_dir_all(&dir).context(dir.display())?;
        let name = |p: &Path| {
            p.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let fresh = cache::list(&new)?;
        let mut changed = Vec::new();
        for old in patches(workspace)? {
            if !fresh.iter().any(|f| name(f) == name(&old)) {
                cache::remove(&old)?;
                changed.push(name(&old));
            }
        }
        for patch in &fresh {
            let text = fs::read(patch).context(patch.display())?;
            let to = dir.join(name(patch));
            if fs::read(&to).is_ok_and(|old| old == text) {
                continue;
            }
            fs::write(&to, text).context(to.display())?;
            changed.push(name(patch));
        }
        cache::remove(&new)?;
        output(git(&self.tree).args(["update-ref", REFRESHED, "HEAD"]))?;
        let note = self.dir().join("patches");
        fs::write(&note, content_key(&patches(workspace)?)?).context(note.display())?;
        Ok(changed)
    }
}

/// The project's patches, in the order to apply them.
pub fn patches(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut paths = cache::list(&workspace.path("qemu-patches"))?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "patch"));
    Ok(paths)
}

pub fn content_key(patches: &[PathBuf]) -> Result<String> {
    let mut texts = Vec::new();
    for patch in patches {
        texts.push(fs::read(patch).context(patch.display())?);
    }
    cache::key(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// git working in `dir`, without the user's settings.
fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(dir)
        .args([
            "-c",
            "user.name=nested-vtd",
            "-c",
            "user.email=nested-vtd@localhost",
        ])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C");
    // Set when a git hook runs this; they would lead to the hook's repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        git.env_remove(name);
    }
    git
}
