//! The guests: Debian's newest stock kernel, or the lab kernel, and an initial RAM disk made of busybox,
//! the kernel's own modules and the scripts and programs of tests/guest.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache::{self, Cache};
use crate::debian::{self, Apt, BACKPORTS, STABLE};
use crate::kernel::{self, Release};
use crate::ui::{Context, Result, Step, fail, output};
use crate::workspace::Workspace;

/// Drivers that the guest loads; a kernel may have them built in.
const DRIVERS: &[&str] = &["virtio_pci", "virtio_blk", "nvme", "e1000e", "af_packet"];

/// What QEMU boots.
#[derive(Clone)]
pub struct Image {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl Image {
    /// Options of an emulator that boots it, with `append` as the kernel's command line.
    pub fn boots(&self, command: &mut Command, append: &str) {
        command.arg("-kernel").arg(&self.kernel);
        command.arg("-initrd").arg(&self.initrd);
        command.arg("-append").arg(append.trim_end());
    }
}

/// Makes the guest with the lab kernel, or takes it from the cache.
pub fn lab(workspace: &Workspace, cache: &Cache, apt: &Apt, release: &Release) -> Result<Image> {
    let dir = kernel::build(workspace, cache, apt, release)?;
    let mut step = Step::new("guest: the lab kernel");
    let initrd = initrd(&mut step, workspace, apt, &dir)?;
    step.done("");
    Ok(Image {
        kernel: dir.join("vmlinuz"),
        initrd,
    })
}

/// Makes the guest with the stock kernel, or takes it from the cache.
pub fn stock(workspace: &Workspace, cache: &Cache, apt: &Apt) -> Result<Image> {
    let mut step = Step::new("guest: Debian's newest stock kernel");
    let suite = [BACKPORTS, STABLE]
        .into_iter()
        .find(|s| apt.has(&format!("linux-image-amd64/{s}")));
    let Some(suite) = suite else {
        return fail("Debian has no package linux-image-amd64");
    };
    let meta = apt.debs(&mut step, &[format!("linux-image-amd64/{suite}")])?;
    let (image, release) = image_package(&meta[0])?;
    let dir = cache
        .path("guest")
        .join(debian::field(&meta[0], "Version")?);
    if !dir.is_dir() {
        stock_kernel(&mut step, apt, &image, &release, &dir)?;
        cache::prune(&cache.path("guest"), 2)?;
    }
    let initrd = initrd(&mut step, workspace, apt, &dir)?;
    step.done(&release);
    Ok(Image {
        kernel: dir.join("vmlinuz"),
        initrd,
    })
}

/// The real image package behind the metapackage, as `name=version`, and the kernel's release.
fn image_package(meta: &Path) -> Result<(String, String)> {
    for (name, version) in debian::depends(meta)? {
        if let (Some(release), Some(version)) = (name.strip_prefix("linux-image-"), version) {
            return Ok((format!("{name}={version}"), release.to_owned()));
        }
    }
    fail(format!("{} depends on no kernel", meta.display()))
}

/// Fills `dir` with vmlinuz, the modules for DRIVERS and the list `modules/order` of what to load.
///
/// Up to Linux 6.18 the image package holds everything. From 6.19 on it is empty and depends on
/// packages of the same release that hold the kernel, its modules and their lists.
fn stock_kernel(step: &mut Step, apt: &Apt, image: &str, release: &str, dir: &Path) -> Result<()> {
    let mut debs = apt.debs(step, &[image.to_owned()])?;
    let parts: Vec<String> = debian::depends(&debs[0])?
        .into_iter()
        .filter(|(name, _)| name.ends_with(&format!("-{release}")))
        .filter_map(|(name, version)| Some(format!("{name}={}", version?)))
        .collect();
    debs.extend(apt.debs(step, &parts)?);
    step.update("unpacking the modules");
    cache::build_dir(dir, |dir| {
        let all = dir.join("all");
        for deb in &debs {
            debian::unpack(deb, &all)?;
        }
        let modules = [all.join("usr/lib/modules"), all.join("lib/modules")]
            .into_iter()
            .map(|d| d.join(release))
            .find(|d| d.is_dir());
        let Some(modules) = modules else {
            return fail(format!("no modules for {release}"));
        };
        let places = [
            modules.join("vmlinuz"),
            all.join(format!("boot/vmlinuz-{release}")),
        ];
        let Some(vmlinuz) = places.iter().find(|p| p.is_file()) else {
            return fail(format!("no vmlinuz in the packages of {release}"));
        };
        fs::rename(vmlinuz, dir.join("vmlinuz")).context("vmlinuz")?;
        step.update("resolving the modules");
        let base = modules.ancestors().nth(3).unwrap_or(&all);
        output(
            Command::new(sbin("depmod"))
                .arg("-b")
                .arg(base)
                .arg(release),
        )?;
        fs::create_dir(dir.join("modules")).context("modules")?;
        let mut order = String::new();
        for (driver, files) in resolve(&modules)? {
            order += driver;
            for file in files {
                order.push(' ');
                order += &copy_module(&modules.join(file), &dir.join("modules"))?;
            }
            order.push('\n');
        }
        fs::write(dir.join("modules/order"), order).context("modules/order")?;
        cache::remove(&all)
    })
}

/// The files to load for each of DRIVERS that is not built in, dependencies first.
fn resolve(modules: &Path) -> Result<Vec<(&'static str, Vec<String>)>> {
    let read = |name: &str| {
        let path = modules.join(name);
        fs::read_to_string(&path).context(path.display())
    };
    let (dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let mut order = Vec::new();
    for driver in DRIVERS {
        // `FILE: FILE...`, all that it depends on, the deepest last.
        let line = dep
            .lines()
            .find(|l| module_name(l.split(':').next().unwrap_or("")) == *driver);
        match line.and_then(|l| l.split_once(':')) {
            Some((file, needs)) => {
                let files = needs.split_whitespace().rev().chain([file]);
                order.push((*driver, files.map(str::to_owned).collect()));
            }
            None if builtin.lines().any(|l| module_name(l) == *driver) => {}
            None => return fail(format!("the kernel has no driver {driver}")),
        }
    }
    Ok(order)
}

/// `kernel/drivers/nvme/host/nvme-core.ko.xz` -> `nvme_core`
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// Copies a module uncompressed, as busybox loads it, and returns the copy's name.
fn copy_module(from: &Path, dir: &Path) -> Result<String> {
    let name = from
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let plain = name.strip_suffix(".xz").unwrap_or(&name).to_owned();
    let to = dir.join(&plain);
    if plain == name {
        fs::copy(from, &to).context(from.display())?;
        return Ok(plain);
    }
    let file = File::create(&to).context(to.display())?;
    let status = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(from)
        .stdout(file)
        .status()
        .context("xz")?;
    if status.success() {
        Ok(plain)
    } else {
        fail(format!("xz failed on {}", from.display()))
    }
}

/// The initial RAM disk for the kernel in `dir`, kept there under a name made of its contents.
fn initrd(step: &mut Step, workspace: &Workspace, apt: &Apt, dir: &Path) -> Result<PathBuf> {
    let files = cache::list(&workspace.path("tests/guest"))?;
    let of = |extension: Option<&str>| -> Vec<&PathBuf> {
        let is = |file: &&PathBuf| file.extension().and_then(OsStr::to_str) == extension;
        files.iter().filter(is).collect()
    };
    let (scripts, programs, headers) = (of(None), of(Some("c")), of(Some("h")));
    let busybox = apt
        .debs(step, &[format!("busybox-static/{STABLE}")])?
        .remove(0);
    let name = |p: &Path| {
        p.file_name()
            .unwrap_or_default()
            .as_encoded_bytes()
            .to_vec()
    };
    let mut parts = vec![name(&busybox)];
    for file in scripts.iter().chain(&programs).chain(&headers) {
        parts.push(name(file));
        parts.push(fs::read(file).context(file.display())?);
    }
    let key = cache::key(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let initrd = dir.join(format!("initrd-{key}"));
    if initrd.is_file() {
        return Ok(initrd);
    }
    step.update("making the initial RAM disk");
    let root = dir.join("root");
    cache::build_dir(&root, |root| {
        for sub in ["bin", "dev", "proc", "sys", "tmp", "unpacked"] {
            fs::create_dir(root.join(sub)).context(sub)?;
        }
        let unpacked = root.join("unpacked");
        debian::unpack(&busybox, &unpacked)?;
        let program = ["usr/bin/busybox", "bin/busybox"]
            .into_iter()
            .map(|p| unpacked.join(p))
            .find(|p| p.is_file());
        let Some(program) = program else {
            return fail("busybox-static has no busybox");
        };
        fs::rename(program, root.join("bin/busybox")).context("busybox")?;
        cache::remove(&unpacked)?;
        symlink("busybox", root.join("bin/sh")).context("bin/sh")?;
        for script in &scripts {
            let to = root.join(script.file_name().unwrap_or_default());
            fs::copy(script, &to).context(script.display())?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context(to.display())?;
        }
        for source in &programs {
            let to = root
                .join("bin")
                .join(source.file_stem().unwrap_or_default());
            let mut gcc = Command::new("gcc");
            gcc.args(["-static", "-O2", "-s", "-Wall", "-Werror", "-o"]);
            output(gcc.arg(&to).arg(source))?;
        }
        fs::create_dir(root.join("modules")).context("modules")?;
        for module in cache::list(&dir.join("modules"))? {
            let to = root
                .join("modules")
                .join(module.file_name().unwrap_or_default());
            fs::copy(&module, to).context(module.display())?;
        }
        Ok(())
    })?;
    pack(&root, &initrd)?;
    cache::remove(&root)?;
    Ok(initrd)
}

/// `image` with an initial RAM disk that also has the image itself, as `/next/vmlinuz` and
/// `/next/initrd`, for a guest that starts it from itself. What it needs is made in `dir`.
pub fn with_itself(image: &Image, dir: &Path) -> Result<Image> {
    let root = dir.join("root");
    let next = root.join("next");
    fs::create_dir_all(&next).context(next.display())?;
    fs::copy(&image.kernel, next.join("vmlinuz")).context(image.kernel.display())?;
    fs::copy(&image.initrd, next.join("initrd")).context(image.initrd.display())?;
    let initrd = dir.join("initrd");
    add(image, &root, &initrd)?;
    Ok(Image {
        kernel: image.kernel.clone(),
        initrd,
    })
}

/// Writes `image`'s initial RAM disk with what is in the directory `root` besides, which goes.
pub fn add(image: &Image, root: &Path, initrd: &Path) -> Result<()> {
    pack(root, initrd)?;
    cache::remove(root)?;
    // The kernel unpacks one archive after the other; each begins at a multiple of 4 bytes.
    let mut both = fs::read(&image.initrd).context(image.initrd.display())?;
    both.resize(both.len().next_multiple_of(4), 0);
    both.extend(fs::read(initrd).context(initrd.display())?);
    fs::write(initrd, both).context(initrd.display())
}

/// Packs the directory `root` as the kernel wants it.
fn pack(root: &Path, initrd: &Path) -> Result<()> {
    let new = initrd.with_extension("new");
    let mut find = Command::new("find")
        .args([".", "-print0"])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("find")?;
    let Some(names) = find.stdout.take() else {
        return fail("find has no stdout");
    };
    let file = File::create(&new).context(new.display())?;
    let status = Command::new("cpio")
        .args([
            "--create",
            "--format=newc",
            "--null",
            "--quiet",
            "--owner=0:0",
        ])
        .current_dir(root)
        .stdin(names)
        .stdout(file)
        .status()
        .context("cpio")?;
    if !status.success() || !find.wait().context("find")?.success() {
        return fail("cpio could not pack the initial RAM disk");
    }
    fs::rename(&new, initrd).context(initrd.display())
}

/// Administrators' programs are not in everybody's PATH.
fn sbin(program: &str) -> PathBuf {
    ["/usr/sbin", "/sbin"]
        .into_iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|p| p.is_file())
        .unwrap_or_else(|| program.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dir = std::env::temp_dir().join(format!("xtask-guest-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let dep = "kernel/nvme.ko.xz: kernel/nvme-core.ko.xz kernel/nvme-auth.ko.xz\n\
                   kernel/e1000e.ko.xz:\nkernel/virtio_blk.ko:\n";
        fs::write(dir.join("modules.dep"), dep).unwrap();
        fs::write(
            dir.join("modules.builtin"),
            "kernel/virtio_pci.ko\nkernel/af_packet.ko\n",
        )
        .unwrap();
        let order = resolve(&dir).unwrap();
        fs::write(dir.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
        let missing = resolve(&dir).unwrap_err().to_string();
        fs::remove_dir_all(&dir).unwrap();

        let drivers: Vec<_> = order.iter().map(|(driver, _)| *driver).collect();
        assert_eq!(drivers, ["virtio_blk", "nvme", "e1000e"]);
        let nvme = [
            "kernel/nvme-auth.ko.xz",
            "kernel/nvme-core.ko.xz",
            "kernel/nvme.ko.xz",
        ];
        assert_eq!(order[1].1, nvme);
        assert_eq!(missing, "the kernel has no driver af_packet");
    }
}
