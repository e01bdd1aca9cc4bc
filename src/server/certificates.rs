//! The certificates that the server shows: when they end, and whether they can be used at all.

use std::time::SystemTime;

use crate::config::Options;
use crate::config::options::{OcspMode, OcspOptions, TlsOptions};
use crate::monitor::observed::CertificateEnds;
use crate::tls::{self, TlsError};

/// When those end that these options name. Reads files: not for a connection's thread.
pub(super) fn ends(options: &Options) -> CertificateEnds {
    let of = |block: Option<&TlsOptions>| -> Option<SystemTime> { tls::not_after(block?) };
    CertificateEnds {
        clients: of(options.tls.as_ref()),
        websocket: of(of_websocket(options)),
        cluster: of(options.cluster.tls.as_ref()),
    }
}

/// Whether what the `tls` blocks name can be used, without a start. Reads files, and asks nobody over the network.
pub fn check_certificates(options: &Options) -> Result<(), TlsError> {
    let cluster = options.cluster.tls.as_ref();
    let blocks = options.tls.iter().chain(of_websocket(options));
    for block in blocks.chain(cluster) {
        tls::server_config(&TlsOptions {
            ocsp: Some(OcspOptions {
                mode: OcspMode::Never,
                urls: Vec::new(),
            }),
            ..block.clone()
        })?;
    }
    cluster.map(tls::client_config).transpose()?;
    Ok(())
}

fn of_websocket(options: &Options) -> Option<&TlsOptions> {
    options.websocket.as_ref()?.tls.as_ref()
}
