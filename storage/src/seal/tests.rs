use std::path::Path;

use super::*;
use crate::disk::sim::SimDisk;
use crate::entropy::SeededEntropy;

fn open(disk: &SimDisk, passphrase: &str, previous: Option<&str>) -> Result<KeyRing, KeyRingError> {
    KeyRing::open(
        disk,
        Path::new("/"),
        passphrase.as_bytes(),
        previous.map(str::as_bytes),
        Cipher::ChaCha20Poly1305,
        &SeededEntropy::new(1),
    )
}

#[test]
fn what_is_sealed_opens_again_and_any_change_is_noticed() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let sealer = sealer(cipher, &DataKey::random(&SeededEntropy::new(3)));
        let plain = *b"one block of messages";
        let mut buffer = plain;
        let tag = sealer.seal(&[7; 12], b"place", &mut buffer).unwrap();
        assert_ne!(buffer, plain);
        let sealed = buffer;

        sealer.open(&[7; 12], b"place", &mut buffer, &tag).unwrap();
        assert_eq!(buffer, plain);

        let open = |nonce: [u8; 12], associated: &[u8], flip: usize, mut tag: Tag| {
            let mut buffer = sealed;
            match flip {
                flip if flip < buffer.len() => buffer[flip] ^= 1,
                _ => tag[0] ^= u8::from(flip == buffer.len()),
            }
            sealer.open(&nonce, associated, &mut buffer, &tag)
        };
        assert!(open([7; 12], b"place", 99, tag).is_ok());
        assert_eq!(
            open([8; 12], b"place", 99, tag),
            Err(SealError::NotAuthentic)
        );
        assert_eq!(
            open([7; 12], b"other", 99, tag),
            Err(SealError::NotAuthentic)
        );
        for flip in 0..=sealed.len() {
            assert_eq!(
                open([7; 12], b"place", flip, tag),
                Err(SealError::NotAuthentic)
            );
        }
    }
}

#[test]
fn a_wrapped_key_survives_a_restart_and_belongs_to_its_place() {
    let disk = SimDisk::new(1);
    let entropy = SeededEntropy::new(2);
    let ring = open(&disk, "secret", None).unwrap();
    let (key, wrapped) = ring.new_data_key(b"block 7", &entropy);
    let bytes = wrapped.encode();

    disk.crash();
    let ring = open(&disk, "secret", None).unwrap();
    let wrapped = WrappedKey::decode(&bytes).unwrap();
    assert_eq!(ring.unwrap(&wrapped, b"block 7").unwrap(), key);
    assert_eq!(
        ring.unwrap(&wrapped, b"block 8"),
        Err(UnwrapError::NotAuthentic)
    );
}

#[test]
fn a_wrong_passphrase_is_refused_and_a_changed_one_opens_old_keys() {
    let disk = SimDisk::new(1);
    let entropy = SeededEntropy::new(2);
    let (key, wrapped) = open(&disk, "old", None)
        .unwrap()
        .new_data_key(b"", &entropy);
    assert!(matches!(
        open(&disk, "guess", None),
        Err(KeyRingError::WrongPassphrase(id)) if id == wrapped.master
    ));

    let changed = open(&disk, "new", Some("old")).unwrap();
    assert_eq!(changed.unwrap(&wrapped, b"").unwrap(), key);
    let rewrapped = changed.wrap(&key, wrapped.data_cipher, b"", &entropy);

    let alone = open(&disk, "new", None).unwrap();
    assert_eq!(alone.unwrap(&rewrapped, b"").unwrap(), key);
    assert_eq!(
        alone.unwrap(&wrapped, b""),
        Err(UnwrapError::UnknownMaster(wrapped.master))
    );
}

#[test]
fn a_damaged_or_later_key_file_is_named_and_never_replaced() {
    let disk = SimDisk::new(1);
    open(&disk, "secret", None).unwrap();
    let path = Path::new("/").join(KEY_FILE_NAME);
    let intact = disk.content(&path).unwrap();
    for at in 0..intact.len() {
        disk.flip_bit(&path, at as u64, 3);
        assert!(matches!(
            open(&disk, "secret", None),
            Err(KeyRingError::File(KeyFileError::Damaged(_)))
        ));
        disk.flip_bit(&path, at as u64, 3);
    }
    let mut later = intact.clone();
    later[8] = 2;
    let crc = crc32fast::hash(&later[..176]);
    later[176..].copy_from_slice(&crc.to_le_bytes());
    disk.set_content(&path, &later);
    assert!(matches!(
        open(&disk, "secret", None),
        Err(KeyRingError::File(KeyFileError::LaterVersion {
            version: 2,
            ..
        }))
    ));
}

#[test]
fn arbitrary_bytes_are_no_wrapped_key_or_one_that_encodes_the_same() {
    let entropy = SeededEntropy::new(5);
    use crate::entropy::Entropy;
    for length in 0..200 {
        let mut bytes = vec![0; length];
        entropy.fill(&mut bytes);
        if let Some([wrap, data, zeros @ ..]) = bytes.get_mut(8..12) {
            (*wrap, *data) = (1 + *wrap % 2, 1 + *data % 3);
            zeros.fill(0);
        }
        if let Some(wrapped) = WrappedKey::decode(&bytes) {
            assert_eq!(wrapped.encode()[..], bytes[..WRAPPED_KEY_BYTES]);
        }
    }
}
