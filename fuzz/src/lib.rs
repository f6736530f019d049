//! Fuzz targets of nested-vtd. What each of them checks is in its module; the programs in `targets`
//! only hand libFuzzer's inputs on.
//!
//! The independent model of `tests/model` is part of this library, so that targets can ask it.

pub mod c_abi;
pub mod decoders;
pub mod guest;
pub mod input;
pub mod recorded;
pub mod seeds;
pub mod snapshot;

#[path = "../../tests/model/cache.rs"]
pub mod cache;
#[path = "../../tests/model/compare.rs"]
pub mod compare;
#[path = "../../tests/model/machine.rs"]
pub mod machine;
#[path = "../../tests/model/program.rs"]
pub mod program;
#[path = "../../tests/model/reference/mod.rs"]
pub mod reference;
#[path = "../../tests/model/run.rs"]
pub mod run;
#[path = "../../tests/model/world.rs"]
pub mod world;

pub mod programs;

/// What `run` tells of the situations it has reached; libFuzzer knows better.
pub mod coverage {
    #[derive(Default)]
    pub struct Coverage;

    impl Coverage {
        pub fn hit(&mut self, _situation: impl Into<String>) {}
    }
}

/// Should each operation be printed before it is done? `NVTD_FUZZ_PRINT` in the environment says so.
pub fn is_printing() -> bool {
    use std::sync::OnceLock;
    static PRINTING: OnceLock<bool> = OnceLock::new();
    *PRINTING.get_or_init(|| std::env::var_os("NVTD_FUZZ_PRINT").is_some())
}
