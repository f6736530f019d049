//! Every condition of the specification's fault tables (7.1.3, 5.1.4), with the guests that bring it
//! about. docs/faults.md is made of it.

mod guest;
mod legacy;
mod others;
mod scalable;
mod walks;

pub use guest::{Guest, Mode, NOWHERE, PASID, READ, WRITE};

use crate::reference::Request;

/// How a condition comes about.
pub enum Case {
    Dma {
        mode: Mode,
        request: Request,
        guest: fn(&mut Guest),
    },
    /// It does not, for a reason.
    Never(&'static str),
    /// It does by what is no DMA: the codes of unit and model.
    Other(fn() -> (u8, u8)),
}

/// A row of the table.
pub struct Condition {
    /// The specification's name.
    pub name: &'static str,
    pub code: u8,
    pub words: &'static str,
    /// What QEMU's intel-iommu 10.0 does differently; empty: nothing.
    pub qemu: &'static str,
    pub cases: Vec<(&'static str, Case)>,
}

fn condition(name: &'static str, code: u8, words: &'static str) -> Condition {
    Condition {
        name,
        code,
        words,
        qemu: "",
        cases: Vec::new(),
    }
}

impl Condition {
    fn qemu(mut self, difference: &'static str) -> Self {
        self.qemu = difference;
        self
    }

    /// A DMA request meets it in a guest of this mode that is changed so.
    fn case(
        mut self,
        name: &'static str,
        mode: Mode,
        request: Request,
        guest: fn(&mut Guest),
    ) -> Self {
        let case = Case::Dma {
            mode,
            request,
            guest,
        };
        self.cases.push((name, case));
        self
    }

    /// Something else meets it.
    fn other(mut self, name: &'static str, measure: fn() -> (u8, u8)) -> Self {
        self.cases.push((name, Case::Other(measure)));
        self
    }

    fn never(mut self, why: &'static str) -> Self {
        self.cases.push(("", Case::Never(why)));
        self
    }
}

pub fn all() -> Vec<Condition> {
    let mut all = legacy::conditions();
    all.extend(scalable::conditions());
    all.extend(walks::conditions());
    all.extend(others::conditions());
    all
}
