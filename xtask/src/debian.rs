//! Packages and sources of Debian 13, fetched through a private apt tree that leaves the machine's
//! own apt set-up alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::cache::{self, Cache};
use crate::host;
use crate::ui::{Context, Error, Result, Step, fail, output, output_bytes, run};

pub const STABLE: &str = "trixie";
pub const BACKPORTS: &str = "trixie-backports";

/// The lists are fetched again when older than this.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// Debian's archive key, with which the lists are checked.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub struct Apt {
    dir: PathBuf,
    log: PathBuf,
}

impl Apt {
    /// The private tree, with lists not older than a week; `update` fetches them anyway.
    pub fn open(cache: &Cache, update: bool) -> Result<Self> {
        let apt = Self {
            dir: cache.path("apt"),
            log: cache.log("apt"),
        };
        let stamp = apt.dir.join("updated");
        let age = cache::modified(&stamp).and_then(|t| SystemTime::now().duration_since(t).ok());
        if age.is_none_or(|age| age > FRESH) || update {
            match apt.update() {
                Err(e) if age.is_some() && !update => {
                    eprintln!("warning: going on with old package lists: {e}");
                }
                done => done?,
            }
        }
        Ok(apt)
    }

    fn update(&self) -> Result<()> {
        let mut step = Step::new(format!("lists of Debian's suites {STABLE} and {BACKPORTS}"));
        let mirror = host::debian_mirror()?;
        for sub in [
            "sources",
            "state/lists/partial",
            "cache/archives/partial",
            "debs",
            "source",
        ] {
            let path = self.dir.join(sub);
            fs::create_dir_all(&path).context(path.display())?;
        }
        let sources = format!(
            "Types: deb deb-src\nURIs: {mirror}\nSuites: {STABLE} {BACKPORTS}\nComponents: main\n\
             Signed-By: {KEYRING}\n"
        );
        self.write("sources/debian.sources", &sources)?;
        self.write("apt.conf", &self.configuration())?;
        run(&mut step, &self.log, self.command("apt-get").arg("update"))?;
        self.write("updated", "")?;
        step.done(mirror);
        Ok(())
    }

    /// Read after the machine's own configuration, whose proxies so stay in force. Its hooks must
    /// not: docker-clean, for one, deletes the machine's package archives.
    fn configuration(&self) -> String {
        let dir = self.dir.display();
        format!(
            "#clear APT::Update::Pre-Invoke;\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n\
             #clear DPkg::Post-Invoke;\n\
             #clear APT::Architectures;\n\
             APT::Architecture \"amd64\";\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Dir::Etc::SourceList \"/dev/null\";\n\
             Dir::Etc::SourceParts \"{dir}/sources\";\n\
             Dir::Etc::Preferences \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\n\
             Dir::State \"{dir}/state\";\n\
             Dir::State::status \"/dev/null\";\n\
             Dir::Cache \"{dir}/cache\";\n\
             Dir::Cache::pkgcache \"pkgcache.bin\";\n\
             Dir::Cache::srcpkgcache \"srcpkgcache.bin\";\n"
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, text).context(path.display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(self.dir.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    /// Fetches binary packages, each given as `name/suite` or `name=version`.
    pub fn debs(&self, step: &mut Step, packages: &[String]) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("debs");
        let uris = self.uris(&["download"], packages)?;
        if uris.len() != packages.len() {
            return fail(format!("apt knows not all of: {}", packages.join(" ")));
        }
        let absent: Vec<_> = (packages.iter().zip(&uris))
            .filter(|(_, file)| !file.is_in(&dir))
            .map(|(package, _)| package)
            .collect();
        if !absent.is_empty() {
            let mut download = self.command("apt-get");
            download.arg("download").args(absent).current_dir(&dir);
            run(step, &self.log, &mut download)?;
        }
        Ok(uris.iter().map(|file| dir.join(&file.name)).collect())
    }

    /// Does the suite have this package?
    pub fn has(&self, package: &str) -> bool {
        self.uris(&["download"], &[package.to_owned()])
            .is_ok_and(|uris| !uris.is_empty())
    }

    /// The version that `source`, given as `name/suite`, has now.
    pub fn source_version(&self, source: &str) -> Result<String> {
        let dsc = self.dsc(source)?;
        let version = dsc.strip_suffix(".dsc").and_then(|n| n.split_once('_'));
        match version {
            Some((_, version)) => Ok(version.to_owned()),
            None => fail(format!("{dsc}: not the name of a source package")),
        }
    }

    /// Fetches a source package and returns its .dsc file.
    pub fn source(&self, step: &mut Step, source: &str) -> Result<PathBuf> {
        let dir = self.dir.join("source");
        let mut download = self.command("apt-get");
        download
            .args(["source", "--download-only", source])
            .current_dir(&dir);
        run(step, &self.log, &mut download)?;
        Ok(dir.join(self.dsc(source)?))
    }

    fn dsc(&self, source: &str) -> Result<String> {
        let uris = self.uris(&["source", "--download-only"], &[source.to_owned()])?;
        match uris.into_iter().find(|file| file.name.ends_with(".dsc")) {
            Some(file) => Ok(file.name),
            None => fail(format!("Debian has no source package {source}"))
                .map_err(|e: Error| e.next("again with --update")),
        }
    }

    /// The files apt would fetch, in the order asked for.
    fn uris(&self, verb: &[&str], packages: &[String]) -> Result<Vec<Remote>> {
        let mut command = self.command("apt-get");
        // From its own directory, as apt leaves out what lies in the current one.
        command
            .args(verb)
            .arg("--print-uris")
            .args(packages)
            .current_dir(self.dir.join("sources"));
        let text = output(&mut command).map_err(|e| e.next("again with --update"))?;
        Ok(text.lines().filter_map(Remote::parse).collect())
    }
}

/// One file apt would fetch.
struct Remote {
    name: String,
    size: u64,
}

impl Remote {
    /// Of `'URI' name size hash`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
        Some(Self {
            name: words.next()?.to_owned(),
            size: words.next()?.parse().ok()?,
        })
    }

    fn is_in(&self, dir: &Path) -> bool {
        fs::metadata(dir.join(&self.name)).is_ok_and(|m| m.len() == self.size)
    }
}

/// One field of a binary package.
pub fn field(deb: &Path, name: &str) -> Result<String> {
    let text = output(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name))?;
    Ok(text.trim().to_owned())
}

/// Names of the packages that `deb` depends on, with the version where exactly one will do.
pub fn depends(deb: &Path) -> Result<Vec<(String, Option<String>)>> {
    let text = field(deb, "Depends")?;
    Ok(text
        .split(',')
        .map(|d| match d.trim().split_once(" (= ") {
            Some((name, version)) => (
                name.to_owned(),
                version.strip_suffix(')').map(str::to_owned),
            ),
            None => (d.split_whitespace().next().unwrap_or("").to_owned(), None),
        })
        .collect())
}

/// Unpacks the files of a binary package into `dir`.
pub fn unpack(deb: &Path, dir: &Path) -> Result<()> {
    output_bytes(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(dir)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_uris_are_understood() {
        let line = "'http://mirror/pool/b/busybox_1%3a1.deb' busybox_1%3a1.deb 955316 SHA256:00";
        let file = Remote::parse(line).unwrap();
        assert_eq!(
            (file.name.as_str(), file.size),
            ("busybox_1%3a1.deb", 955_316)
        );
        assert!(Remote::parse("Need to get 40.2 MB of source archives.").is_none());
    }
}
