// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another Rust static library in the same program, as rustc makes it: with all of the standard
//! library's symbols global. It uses what could clash: allocation, thread-locals, threads, panics.

use std::cell::Cell;
use std::collections::HashMap;

thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });

#[unsafe(no_mangle)]
pub extern "C" fn neighbour_call() -> u32 {
    CALLS.set(CALLS.get() + 1);
    let squares: HashMap<u32, String> = (0..10).map(|n| (n, format!("{}", n * n))).collect();
    let there = std::thread::spawn(|| CALLS.get()).join().unwrap_or(99);
    let caught = std::panic::catch_unwind(|| {
        std::panic::resume_unwind(Box::new("thrown to be caught"));
    });
    assert!(caught.is_err() && there == 0);
    squares[&7].len() as u32 * 100 + CALLS.get()
}
