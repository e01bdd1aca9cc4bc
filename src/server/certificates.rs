//! When the certificates that the server shows end.

use std::time::SystemTime;

use crate::config::Options;
use crate::config::options::TlsOptions;
use crate::monitor::observed::CertificateEnds;
use crate::tls;

/// When those end that these options name. Reads files: not for a connection's thread.
pub(super) fn ends(options: &Options) -> CertificateEnds {
    let of = |block: Option<&TlsOptions>| -> Option<SystemTime> { tls::not_after(block?) };
    let websocket = options.websocket.as_ref();
    CertificateEnds {
        clients: of(options.tls.as_ref()),
        websocket: of(websocket.and_then(|own| own.tls.as_ref())),
        cluster: of(options.cluster.tls.as_ref()),
    }
}
