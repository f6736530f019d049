//! The project's own commands: `cargo xtask COMMAND`.

mod archive;
mod bench;
mod boot;
mod cache;
mod check;
mod conformance;
mod coverage;
mod ctests;
mod debian;
mod demo;
mod fuzz;
mod guest;
mod header;
mod host;
mod kernel;
mod lab;
mod life;
mod migrate;
mod outcome;
mod qemu;
mod qmp;
mod report;
mod sanitize;
mod scenario;
mod selftests;
mod symbols;
mod ui;
mod verdict;
mod workspace;

use std::process::ExitCode;

use ui::{Error, Result};

const USAGE: &str = "\
usage: cargo xtask COMMAND [OPTION...]

  demo     boot a stock guest behind the unit and report what became of its tables
  check    run every test there is
  boot     run one of the guest tests
  migrate  take guests to other emulators, and back in time
  lab      a Linux host on the unit, and a guest of that host behind the unit again
  life     reset, reboot, plug: all that happens to a VM in its life
  coverage say which lines no test runs
  fuzz     run the fuzz targets
  sanitize run QEMU's qtests, the C tests and the crate's under sanitizers
  bench    measure the unit beside QEMU's intel-iommu
  qemu     build the patched QEMU; edit and refresh its patches
  kernel   build the lab kernel
  archive  build libnested_vtd.a
  header   generate include/nested_vtd.h
  symbols  list or check the archive's symbols

`cargo xtask COMMAND --help` says more.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if !e.is_silent() {
                eprintln!("error: {e}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((command, args)) = args.split_first() else {
        return Err(Error::new("which command?").next(USAGE));
    };
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{}", usage(command));
        return Ok(());
    }
    match command.as_str() {
        "demo" => demo::run(args),
        "check" => check::run(args),
        "boot" => boot::run_command(args),
        "migrate" => migrate::run(args),
        "lab" => lab::run_command(args),
        "life" => life::run(args),
        "coverage" => coverage::run(args),
        "fuzz" => fuzz::run(args),
        "sanitize" => sanitize::run(args),
        "bench" => bench::run(args),
        "qemu" => qemu::run_command(args),
        "kernel" => kernel::run_command(args),
        "archive" => archive::run(args),
        "header" => header::run(args),
        "symbols" => symbols::run(args),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Error::new(format!("unknown command {command}")).next(USAGE)),
    }
}

fn usage(command: &str) -> &'static str {
    match command {
        "demo" => demo::USAGE,
        "check" => check::USAGE,
        "boot" => boot::USAGE,
        "migrate" => migrate::USAGE,
        "lab" => lab::USAGE,
        "life" => life::USAGE,
        "coverage" => coverage::USAGE,
        "fuzz" => fuzz::USAGE,
        "sanitize" => sanitize::USAGE,
        "bench" => bench::USAGE,
        "qemu" => qemu::USAGE,
        "kernel" => kernel::USAGE,
        "archive" => archive::USAGE,
        "header" => header::USAGE,
        "symbols" => symbols::USAGE,
        _ => USAGE,
    }
}
