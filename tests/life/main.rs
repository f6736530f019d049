//! The life of a VM: resets at any point, devices and RAM that come and go, translation on and off beside DMA, and
//! several units in one process. Nothing is left over, and nothing is shared.

#[path = "../common/mod.rs"]
mod common;
mod machine;
mod plugs;
mod ram;
mod resets;
mod toggles;
mod two;
