//! Keys as the kernel takes them (include/uapi/linux/tls.h). Its `salt` and `iv` are one nonce of twelve bytes to others.

use nix::{libc, sys::socket::sockopt::TlsCryptoInfo};
use rustls::{ConnectionTrafficSecrets, Error};

/// What one direction is encrypted with from its record `sequence` on.
pub(super) fn described(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<TlsCryptoInfo, Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
            Ok(aes128(exact(key.as_ref())?, exact(iv.as_ref())?, sequence))
        }
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            Ok(aes256(exact(key.as_ref())?, exact(iv.as_ref())?, sequence))
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            Ok(chacha(exact(key.as_ref())?, exact(iv.as_ref())?, sequence))
        }
        _ => Err(Error::General("the kernel has no such cipher".to_owned())),
    }
}

/// Of every cipher, with keys that nobody uses.
pub(super) fn samples() -> [TlsCryptoInfo; 3] {
    [aes128([0; 16], [0; 12], 0), aes256([0; 32], [0; 12], 0), chacha([0; 32], [0; 12], 0)]
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::General("a key of another length".to_owned()))
}

fn aes128(key: [u8; 16], nonce: [u8; 12], sequence: u64) -> TlsCryptoInfo {
    let (salt, iv) = parted(nonce);
    let info = info(libc::TLS_CIPHER_AES_GCM_128);
    TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
        info,
        iv,
        key,
        salt,
        rec_seq: sequence.to_be_bytes(),
    })
}

fn aes256(key: [u8; 32], nonce: [u8; 12], sequence: u64) -> TlsCryptoInfo {
    let (salt, iv) = parted(nonce);
    let info = info(libc::TLS_CIPHER_AES_GCM_256);
    TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
        info,
        iv,
        key,
        salt,
        rec_seq: sequence.to_be_bytes(),
    })
}

fn chacha(key: [u8; 32], iv: [u8; 12], sequence: u64) -> TlsCryptoInfo {
    let (info, rec_seq) = (info(libc::TLS_CIPHER_CHACHA20_POLY1305), sequence.to_be_bytes());
    TlsCryptoInfo::Chacha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305 { info, iv, key, salt: [], rec_seq })
}

fn info(cipher_type: u16) -> libc::tls_crypto_info {
    libc::tls_crypto_info { version: libc::TLS_1_3_VERSION, cipher_type }
}

fn parted([a, b, c, d, iv @ ..]: [u8; 12]) -> ([u8; 4], [u8; 8]) {
    ([a, b, c, d], iv)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    #[test]
    fn a_nonce_is_parted_as_the_kernel_puts_it_together() {
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        let iv = Iv::new(std::array::from_fn(|at| 100 + at as u8));
        let secrets = ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from(key), iv };
        let Ok(TlsCryptoInfo::Aes256Gcm(told)) = described(258, &secrets) else { panic!("another cipher") };
        assert_eq!((told.info.version, told.info.cipher_type), (0x304, 52));
        assert_eq!(told.key, key);
        assert_eq!((told.salt, told.iv), ([100, 101, 102, 103], [104, 105, 106, 107, 108, 109, 110, 111]));
        assert_eq!(told.rec_seq, [0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn the_nonce_of_chacha_is_left_whole_and_a_key_of_another_length_is_refused() {
        let (key, iv) = ([7; 32], Iv::new([9; 12]));
        let secrets = ConnectionTrafficSecrets::Chacha20Poly1305 { key: AeadKey::from(key), iv };
        let Ok(TlsCryptoInfo::Chacha20Poly1305(told)) = described(0, &secrets) else { panic!("another cipher") };
        assert_eq!((told.iv, told.key, told.info.cipher_type), ([9; 12], key, 54));
        let secrets = ConnectionTrafficSecrets::Aes128Gcm { key: AeadKey::from(key), iv: Iv::new([9; 12]) };
        assert!(described(0, &secrets).is_err(), "32 bytes are none of AES-128");
    }
}
