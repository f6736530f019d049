//! `include/nested_vtd.h`, generated from the FFI's sources and committed.

use std::fs;

use cbindgen::{Bindings, Builder, Config, DocumentationStyle, Language, Style};

use crate::ui::{Context, Error, Result};
use crate::workspace::Workspace;

pub const PATH: &str = "include/nested_vtd.h";

/// In the order in which the header shows them.
const SOURCES: [&str; 2] = ["src/ffi/types.rs", "src/ffi/mod.rs"];

pub const USAGE: &str = "usage: cargo xtask header [--check]";

/// What the reader of the header needs before the first declaration.
const OVERVIEW: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * nested-vtd: an emulated Intel VT-d remapping unit for a VMM to link.
 * Generated from src/ffi by `cargo xtask header`; do not edit.
 *
 * Use: nvtd_unit_create() with a table of callbacks, nvtd_ram_add() for the
 * guest's RAM, nvtd_device_add() for each device behind the unit. Then hand the
 * guest's accesses to the register window to nvtd_mmio_read() and
 * nvtd_mmio_write(), and ask nvtd_translate() where each DMA goes.
 *
 * Threads: every function may be called on any thread, several at once, unless
 * its description says otherwise. The unit starts no thread: all work is done
 * inside a call, on the caller's thread.
 *
 * Callbacks (NvtdOps) are made from inside a call with no lock of the unit held,
 * so they may take the VMM's own locks; what they may call back is said there.
 *
 * Errors: a function that can fail returns 0 or a negative errno, and
 * nvtd_last_error() then describes it for people. Only misuse by the VMM is an
 * error. What the guest does wrong becomes what hardware would make of it: a
 * fault, a queue error or an ignored access.
 *
 * Growth: structures that begin with `size` only ever grow at their end. Set
 * `size` to sizeof the structure and all else that you do not mean to 0: an older
 * caller then works with a newer archive, and a newer caller with an older one.
 */";

/// `cargo xtask header`: writes the header, or with `--check` says whether it is up to date.
pub fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err(Error::new(format!("unknown arguments {args:?}")).next(USAGE)),
    };
    let ws = Workspace::new();
    let path = ws.path(PATH);
    let fresh = text(&ws)?;
    let committed = fs::read(&path).unwrap_or_default();
    if fresh == committed {
        println!("{PATH} is up to date");
    } else if check {
        return Err(
            Error::new(format!("{PATH} does not match {}", SOURCES.join(" and ")))
                .next("run `cargo xtask header` and commit the result"),
        );
    } else {
        fs::create_dir_all(ws.path("include")).context("include")?;
        fs::write(&path, fresh).context(path.display())?;
        println!("{PATH} written");
    }
    Ok(())
}

/// Names of the functions that the FFI's sources export, sorted.
pub fn functions(ws: &Workspace) -> Result<Vec<String>> {
    let mut names: Vec<_> = bindings(ws)?
        .dynamic_symbols_names()
        .map(str::to_owned)
        .collect();
    names.sort();
    Ok(names)
}

fn text(ws: &Workspace) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    bindings(ws)?.write(&mut text);
    Ok(text)
}

fn bindings(ws: &Workspace) -> Result<Bindings> {
    let config = Config {
        language: Language::C,
        header: Some(OVERVIEW.to_owned()),
        include_guard: Some("NESTED_VTD_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        cpp_compat: true,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        style: Style::Both,
        line_length: 90,
        ..Config::default()
    };
    SOURCES
        .iter()
        .fold(Builder::new().with_config(config), |builder, source| {
            builder.with_src(ws.path(source))
        })
        .generate()
        .map_err(|e| Error::new(format!("cbindgen cannot read the FFI's sources: {e}")))
}
