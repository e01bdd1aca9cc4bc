//! The opened data keys of an encrypted block.

use std::sync::Arc;

use super::error::BlockOpenError;
use super::format::{BlockIdentity, KEY_EPOCHS_MAX, KeySlot};
use crate::entropy::Entropy;
use crate::seal::{KeyRing, Sealer, TAG_BYTES, sealer};

/// One sealer per key epoch; none in a plain block.
#[derive(Clone, Default)]
pub struct BlockKeys {
    epochs: Vec<Arc<dyn Sealer>>,
}

impl BlockKeys {
    /// Unwraps the keys of a block from the first bytes of its file (header page and key slots).
    pub fn open(
        identity: &BlockIdentity,
        file_start: &[u8],
        ring: Option<&KeyRing>,
    ) -> Result<Self, BlockOpenError> {
        if identity.cipher.is_none() {
            return Ok(Self::default());
        }
        let ring = ring.ok_or(BlockOpenError::KeyMissing)?;
        let slot = KeySlot::newest(file_start, identity).ok_or(BlockOpenError::KeySlots)?;
        Self::from_slot(identity, &slot, ring)
    }

    fn from_slot(
        identity: &BlockIdentity,
        slot: &KeySlot,
        ring: &KeyRing,
    ) -> Result<Self, BlockOpenError> {
        let epochs = (0u16..)
            .zip(&slot.keys)
            .map(|(epoch, wrapped)| {
                let key = ring.unwrap(wrapped, &KeySlot::context(identity, epoch))?;
                Ok(sealer(wrapped.data_cipher, &key).into())
            })
            .collect::<Result<_, BlockOpenError>>()?;
        Ok(Self { epochs })
    }

    /// A fresh data key after those in `slot` (none in a new block), and the slot to be written for it.
    pub(super) fn extend(
        &self,
        identity: &BlockIdentity,
        slot: Option<&KeySlot>,
        ring: &KeyRing,
        entropy: &dyn Entropy,
    ) -> Result<(Self, KeySlot), BlockOpenError> {
        let mut slot = slot.cloned().unwrap_or(KeySlot {
            revision: 0,
            keys: Vec::new(),
        });
        if slot.keys.len() >= KEY_EPOCHS_MAX {
            return Err(BlockOpenError::KeysFull);
        }
        let epoch = slot.keys.len() as u16;
        let context = KeySlot::context(identity, epoch);
        let (key, mut wrapped) = ring.new_data_key(&context, entropy);
        if let Some(cipher) = identity.cipher
            && wrapped.data_cipher != cipher
        {
            wrapped = ring.wrap(&key, cipher, &context, entropy);
        }
        slot.revision += 1;
        slot.keys.push(wrapped);
        let mut epochs = self.epochs.clone();
        epochs.push(sealer(wrapped.data_cipher, &key).into());
        Ok((Self { epochs }, slot))
    }

    /// The epoch that new chunks are sealed in.
    pub(super) fn current(&self) -> (u16, Option<&dyn Sealer>) {
        let epoch = self.epochs.len().saturating_sub(1) as u16;
        (epoch, self.epochs.last().map(|sealer| &**sealer))
    }

    /// Bytes that sealing adds.
    pub(super) fn overhead(&self) -> usize {
        if self.epochs.is_empty() { 0 } else { TAG_BYTES }
    }

    /// Seals `buffer` in the current epoch and appends the tag.
    pub(super) fn seal(&self, nonce: [u8; 12], associated: &[&[u8]], buffer: &mut Vec<u8>) {
        if let Some(sealer) = self.current().1 {
            // Parts of a block are far below what a cipher takes under one nonce.
            if let Ok(tag) = sealer.seal(&nonce, &associated.concat(), buffer) {
                buffer.extend_from_slice(&tag);
            }
        }
    }

    /// Opens what was sealed in `epoch`; `None` when it is not authentic.
    pub(super) fn open_sealed(
        &self,
        epoch: u16,
        nonce: [u8; 12],
        associated: &[&[u8]],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let sealer = self.epochs.get(usize::from(epoch))?;
        let (buffer, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        let mut buffer = buffer.to_vec();
        sealer
            .open(&nonce, &associated.concat(), &mut buffer, tag)
            .ok()?;
        Some(buffer)
    }

    /// Whether the block is encrypted.
    pub fn is_sealed(&self) -> bool {
        !self.epochs.is_empty()
    }
}

impl std::fmt::Debug for BlockKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "BlockKeys({} epochs)", self.epochs.len())
    }
}
