//! Target `decoders`: what is decoded of words that a guest, a device or a kernel made.
//!
//! Nothing panics whatever the words are; what is decoded is what the model of `tests/model` reads in them, or what
//! a naive computation in 128 bits gives; and what is walked of hostile tables is bounded.

mod descriptors;
mod interrupts;
mod layouts;
mod ranges;
mod tables;
mod walks;

use crate::input::{Bytes, Shape};

/// Words, after a header that says what they are.
pub const SHAPE: Shape = Shape {
    header: 8,
    record: 8,
    most: 48,
    operations: 255,
};

/// Run an input.
///
/// # Panics
/// Something was decoded in a way that it must not be.
pub fn run(input: &[u8]) {
    let mut header = Bytes::new(&input[..input.len().min(SHAPE.header)]);
    let kind = header.byte();
    let options = header.take::<7>();
    let words: Vec<u64> = SHAPE
        .records(input)
        .map(|record| Bytes::new(record).u64())
        .collect();
    if crate::is_printing() {
        eprintln!("kind {} options {options:x?} words {words:x?}", kind % 8);
    }
    match kind % 8 {
        0 => words.chunks(4).for_each(|words| {
            let mut descriptor = [0; 4];
            descriptor[..words.len()].copy_from_slice(words);
            descriptors::run(descriptor);
        }),
        1 => ranges::pages(&words),
        2 => ranges::merged(&words),
        3 => words.iter().for_each(|&word| layouts::run(word)),
        4 => interrupts::run(options, &words),
        5 => tables::run(options, &words),
        6 => walks::run(options, &words),
        _ => tables::capabilities(options, &words),
    }
}
