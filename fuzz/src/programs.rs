//! Target `model`: the guests and programs of `tests/model`, found by coverage instead of chance.
//!
//! Devices have no host. After each request the unit must have answered what the model allows: by
//! the tables as they are, or as they were since the last invalidation that covers them.

use crate::coverage::Coverage;
use crate::input::Shape;
use crate::program::Op;
use crate::run;
use crate::world::World;

/// As `tests/model/main.rs` makes them; a few more operations, as the model remembers all that changed.
pub const SHAPE: Shape = Shape {
    header: 192,
    record: 16,
    most: 32,
    operations: 255,
};

/// Run an input.
///
/// # Panics
/// Unit and model differ.
pub fn run(input: &[u8]) {
    let header = &input[..input.len().min(SHAPE.header)];
    let world = World::decode(header);
    let ops: Vec<Op> = SHAPE
        .records(input)
        .map(|record| Op::decode(record, &world))
        .collect();
    if crate::is_printing() {
        eprintln!("{world:?}");
        for op in &ops {
            eprintln!("  {op:x?}");
        }
    }
    if let Err(error) = run::run(&world, &ops, false, &mut Coverage) {
        let hex = |bytes: &[u8]| -> String {
            let used = bytes.iter().rposition(|&byte| byte != 0);
            let used = &bytes[..used.map_or(0, |last| last + 1)];
            used.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let records: Vec<String> = SHAPE.records(input).map(hex).collect();
        panic!(
            "{error}\nto keep it, add to tests/model/regressions/cases.txt:\n{}:{}",
            hex(header),
            records.join(",")
        );
    }
}
