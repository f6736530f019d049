//! Which situations a run has reached.

use std::collections::BTreeMap;

/// How often each situation was reached.
#[derive(Default)]
pub struct Coverage {
    reached: BTreeMap<String, u64>,
}

impl Coverage {
    pub fn hit(&mut self, situation: impl Into<String>) {
        *self.reached.entry(situation.into()).or_default() += 1;
    }

    /// Which of these were never reached?
    pub fn missing(&self, mut situations: Vec<String>) -> Vec<String> {
        situations.retain(|situation| !self.reached.contains_key(situation));
        situations
    }

    pub fn print(&self) {
        for (situation, count) in &self.reached {
            println!("{count:>9} {situation}");
        }
    }
}

/// Faults that generated cases can meet. Those that they cannot have directed cases: a root table
/// outside RAM (08, 38), the modes that are not reported (30), interrupts, page requests.
const FAULTS: &[u8] = &[
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x31, 0x33, 0x39,
    0x3a, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x48, 0x50, 0x51, 0x52, 0x58, 0x59, 0x5a, 0x5b,
    0x5c, 0x5d, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d,
    0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x87, 0x90, 0x91,
];

/// Everything that the fixed cases must reach.
pub fn required() -> Vec<String> {
    let mut all: Vec<String> = FAULTS
        .iter()
        .map(|code| format!("fault {code:02x}"))
        .collect();
    let plain = [
        "translation off",
        "recoverable fault",
        "fault processing disabled",
        "repeated what the tables no longer say",
        "queue error 3",
        "queue error 4",
        "Contexts",
        "DomainContexts",
        "DeviceContexts",
        "Pasids",
        "DomainPasids",
        "Pasid",
        "Translations",
        "DomainTranslations",
        "Pages",
        "PasidTranslations",
        "PasidPages",
        "CCMD",
        "IOTLB register",
        "legacy no paging, Translated",
        "legacy pass-through, Untranslated",
        "scalable no paging, Translated",
        "scalable pass-through, Untranslated",
        "scalable pass-through, Translation",
    ];
    all.extend(plain.map(str::to_owned));
    let mut modes = Vec::new();
    for second in 3..=5 {
        modes.push(format!("legacy second stage, {second}-level"));
        modes.push(format!("scalable second stage, {second}-level"));
    }
    for first in 4..=5 {
        modes.push(format!("scalable first stage, {first}-level"));
        for second in 3..=5 {
            modes.push(format!("scalable nested, {first}-level on {second}-level"));
        }
    }
    for mode in modes {
        for what in [
            "page of 0x1000",
            "page of 0x200000",
            "page of 0x40000000",
            "Untranslated",
            "Translation",
            "write",
        ] {
            all.push(format!("{mode}, {what}"));
        }
        if mode.starts_with("scalable") {
            for what in ["with PASID", "execute", "privileged"] {
                all.push(format!("{mode}, {what}"));
            }
        }
    }
    all
}
