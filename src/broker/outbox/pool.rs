//! Buffers in three sizes, kept per thread for the next message.

use std::cell::RefCell;

/// The sizes that are kept, and how many of each.
const CLASSES: [(usize, usize); 3] = [(512, 512), (4 * 1024, 128), (64 * 1024, 32)];

thread_local! {
    static FREE: RefCell<[Vec<Vec<u8>>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// An empty buffer of the smallest kept size that holds this many bytes, or of exactly that size.
pub fn take(bytes: usize) -> Vec<u8> {
    let class = CLASSES.iter().position(|(size, _)| *size >= bytes);
    match class {
        Some(class) => FREE
            .with_borrow_mut(|free| free[class].pop())
            .unwrap_or_else(|| Vec::with_capacity(CLASSES[class].0)),
        None => Vec::with_capacity(bytes),
    }
}

/// Gives a buffer back.
pub fn give(mut buffer: Vec<u8>) {
    let class = CLASSES
        .iter()
        .position(|(size, _)| *size == buffer.capacity());
    if let Some(class) = class {
        buffer.clear();
        // A thread that is going away has no pool any more; the buffer then goes with it.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free[class].len() < CLASSES[class].1
            {
                free[class].push(buffer);
            }
        });
    }
}

/// The next larger size than what a receiver's last chunk had.
pub fn larger_than(bytes: usize) -> usize {
    CLASSES
        .iter()
        .map(|(size, _)| *size)
        .find(|size| *size > bytes)
        .unwrap_or(CLASSES[2].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_is_used_again() {
        let mut buffer = take(100);
        assert_eq!(buffer.capacity(), 512);
        buffer.push(1);
        let address = buffer.as_ptr();
        give(buffer);
        let again = take(512);
        assert!(again.is_empty() && again.as_ptr() == address);
        assert_eq!(take(513).capacity(), 4096);
        assert_eq!(take(100_000).capacity(), 100_000);
        assert_eq!(larger_than(512), 4096);
        assert_eq!(larger_than(1 << 20), 64 * 1024);
    }
}
