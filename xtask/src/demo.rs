//! `cargo xtask demo`: everything from a bare machine to the report of one guest run.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::boot::{self, Lab, RunDir};
use crate::cache::Cache;
use crate::report;
use crate::scenario::Scenario;
use crate::ui::{Context, Error, Result};
use crate::verdict;
use crate::workspace::Workspace;

pub const USAGE: &str = "\
usage: cargo xtask demo [OPTION...]
  --json FILE           write the report as JSON, too
  --break invalidation  drop every invalidation on its way to the host: fails, with stale uses
  --break alloc         let the host refuse every nested HWPT: fails, with the devices blocked
  --trace FILE          write the unit's trace events
  --keep                keep the run's files (disks, consoles)
  --update              look for newer Debian packages first";

/// `cargo xtask demo`.
pub fn run(args: &[String]) -> Result<()> {
    let (mut json, mut trace) = (None, None);
    let (mut keep, mut update) = (false, false);
    let mut scenario = Scenario::NESTED;
    let here = env::current_dir().context("current directory")?;
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let mut file = || -> Result<Option<PathBuf>> {
            let name = args
                .next()
                .ok_or_else(|| Error::new(format!("{arg} which file?")).next(USAGE))?;
            Ok(Some(here.join(name)))
        };
        match arg {
            "--json" => json = file()?,
            "--trace" => trace = file()?,
            "--keep" => keep = true,
            "--update" => update = true,
            "--break" => {
                scenario = match args.next() {
                    Some("invalidation") => Scenario::BREAK_INVALIDATION,
                    Some("alloc") => Scenario::BREAK_ALLOC,
                    _ => return Err(Error::new("--break what?").next(USAGE)),
                }
            }
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }

    let cache = Cache::open()?;
    let mut lab = Lab::prepare(&Workspace::new(), &cache, update)?;
    let dir = RunDir::new(&cache, &scenario, keep)?;
    let outcome = boot::boot(&mut lab, &scenario, &dir, trace.as_deref())?;
    print!("{}", report::text(&outcome));
    if let Some(file) = json {
        let text = format!("{:#}\n", report::json(&outcome));
        fs::write(&file, text).context(file.display())?;
    }
    match verdict::reasons(&outcome).len() {
        0 => Ok(()),
        n => Err(
            Error::new(format!("the run is not as it should be: {n} reasons above"))
                .next("look closer with --keep and --trace FILE"),
        ),
    }
}
