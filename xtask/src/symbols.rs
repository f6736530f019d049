//! The exported symbols: `abi/symbols.txt` is the list, one name a line, that the archive is held to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::archive::{self, Profile};
use crate::header;
use crate::ui::{self, Context, Error, Result};
use crate::workspace::Workspace;

pub const LIST: &str = "abi/symbols.txt";

pub const USAGE: &str = "usage: cargo xtask symbols [--check]";

/// `cargo xtask symbols`: writes the list from the FFI's sources, or with `--check` compares the list
/// with the sources and with an archive built for it.
pub fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err(Error::new(format!("unknown arguments {args:?}")).next(USAGE)),
    };
    let ws = Workspace::new();
    let functions: BTreeSet<_> = header::functions(&ws)?.into_iter().collect();
    if check {
        compare("the FFI's sources", &functions, &list(&ws)?)?;
        let out = ws.target().join("xtask").join("symbols");
        archive::build(&ws, &out, Profile::Release)?;
        println!("{LIST} matches the archive: {} symbols", functions.len());
    } else {
        let path = ws.path(LIST);
        let text: String = functions.iter().map(|name| format!("{name}\n")).collect();
        fs::create_dir_all(ws.path("abi")).context("abi")?;
        fs::write(&path, text).context(path.display())?;
        println!("{LIST} written: {} symbols", functions.len());
    }
    Ok(())
}

/// The committed list.
pub fn list(ws: &Workspace) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(ws.path(LIST))
        .context(LIST)
        .map_err(|e| e.next("run `cargo xtask symbols`"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Names of the symbols of an object or of an archive's members that other objects see.
pub struct Symbols {
    pub defined: BTreeSet<String>,
    pub undefined: BTreeSet<String>,
}

impl Symbols {
    pub fn read(file: &Path) -> Result<Self> {
        // Not `nm`: with an older LLVM's plugin installed it aborts on members of Rust's standard library.
        let mut readelf = Command::new("readelf");
        let table = ui::output(readelf.arg("-sW").arg(file))?;
        let mut read = Self {
            defined: BTreeSet::new(),
            undefined: BTreeSet::new(),
        };
        for (binding, section, name) in table.lines().filter_map(row) {
            if section == "UND" {
                read.undefined.insert(name.to_owned());
            } else if binding != "LOCAL" {
                read.defined.insert(name.to_owned());
            }
        }
        Ok(read)
    }
}

/// `12: 00000000000002f0 11 FUNC GLOBAL DEFAULT 5 nvtd_abi_version` -> binding, section and name.
fn row(line: &str) -> Option<(&str, &str, &str)> {
    let mut fields = line.split_whitespace();
    fields.next()?.strip_suffix(':')?.parse::<u32>().ok()?;
    let binding = fields.nth(3)?;
    let section = fields.nth(1)?;
    Some((binding, section, fields.next()?))
}

/// Fails with the difference when `found` in `place` is not what `list` says.
pub fn compare(place: &str, found: &BTreeSet<String>, list: &BTreeSet<String>) -> Result<()> {
    let missing = list.difference(found).map(|name| format!("    - {name}"));
    let extra = found.difference(list).map(|name| format!("    + {name}"));
    let lines: Vec<_> = missing.chain(extra).collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(
        Error::new(format!("{place} and {LIST} differ:\n{}", lines.join("\n"))).next(
            "if the change of the ABI is meant, run `cargo xtask symbols` and commit the result",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_readelf() {
        let line = |rest: &str| format!("    12: 00000000000002f0    11 FUNC    {rest}");
        assert_eq!(
            row(&line("GLOBAL DEFAULT    5 nvtd_a")),
            Some(("GLOBAL", "5", "nvtd_a"))
        );
        assert_eq!(
            row(&line("WEAK   DEFAULT  UND statx")),
            Some(("WEAK", "UND", "statx"))
        );
        assert_eq!(row(&line("LOCAL  DEFAULT  UND")), None);
        assert_eq!(
            row("   Num:    Value  Size Type    Bind   Vis      Ndx Name"),
            None
        );
        assert_eq!(row("Symbol table '.symtab' contains 3490 entries:"), None);
        assert_eq!(row(""), None);
    }

    #[test]
    fn a_difference_names_both_sides() {
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|n| (*n).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert!(compare("x", &set(&["a", "b"]), &set(&["a", "b"])).is_ok());
        let text = compare("x", &set(&["a", "c"]), &set(&["a", "b"]))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("- b") && text.contains("+ c") && !text.contains(" a\n"),
            "{text}"
        );
    }
}
