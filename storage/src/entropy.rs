//! Where random bytes come from: the operating system, or a seed.
//!
//! # Invariant
//! Nothing in this crate is random in any other way, so that a run over the simulated disk repeats
//! exactly from its seed.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// Eight random bytes as a number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number below `limit` (0 when `limit` is 0). Slightly biased for enormous limits, which no caller has.
    fn below(&self, limit: u64) -> u64 {
        match limit {
            0 => 0,
            limit => self.next_u64() % limit,
        }
    }
}

/// The operating system's generator, fit for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // A system without a generator cannot make a key; going on with a guessable one is worse than stopping.
                Err(_) => std::process::abort(),
            }
        }
    }
}

/// A generator whose whole output follows from its seed (SplitMix64). For tests and simulation, never for real keys.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(word) {
                *to = from;
            }
        }
    }

    fn next_u64(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self
            .state
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself() {
        let (left, right) = (SeededEntropy::new(7), SeededEntropy::new(7));
        let mut bytes = [[0; 13]; 2];
        left.fill(&mut bytes[0]);
        right.fill(&mut bytes[1]);
        assert_eq!(bytes[0], bytes[1]);
        assert_ne!(left.next_u64(), SeededEntropy::new(8).next_u64());
    }

    #[test]
    fn the_system_fills_every_byte() {
        let mut any = [0u8; 64];
        for _ in 0..8 {
            let mut bytes = [0; 64];
            SystemEntropy.fill(&mut bytes);
            for (seen, byte) in any.iter_mut().zip(bytes) {
                *seen |= byte;
            }
        }
        assert!(any.iter().all(|&seen| seen != 0));
    }
}
