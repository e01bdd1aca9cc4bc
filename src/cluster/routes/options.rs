//! What the operator decided, ready to be used.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::permissions::Permissions;
use crate::config::Options;
use crate::config::options::cluster::ROUTE_PING_INTERVAL_MAX;
use crate::config::options::{
    ClusterOptions, DialReports, Permissions as PermissionsConfig, RouteUrl, SubjectPermission,
    WriteTimeout,
};
use crate::protocol::route::info::SubjectRules;
use crate::protocol::route::parser::Interest;
use crate::subject::InvalidSubject;
use crate::tls::{MutualTls, PeerIdentity, TlsError, is_for};

/// Why there can be no routes.
#[derive(Debug, thiserror::Error)]
pub enum RouteOptionsError {
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A permission names no subject.
    #[error("cluster permissions: {0}")]
    Permissions(#[from] InvalidSubject),
}

/// How routes are encrypted.
#[derive(Debug, Clone)]
pub(super) struct RouteTls {
    pub mutual: Arc<MutualTls>,
    pub timeout: Duration,
    /// Another server is the user that its certificate names.
    pub maps_users: bool,
    /// Another server must have a certificate for one of the hosts that are dialled.
    pub checks_known_hosts: bool,
}

/// All options of routes.
#[derive(Debug)]
pub struct RouteOptions {
    pub(super) cluster: ClusterOptions,
    pub(super) tls: Option<RouteTls>,
    /// Publishing is what comes in, subscribing what others may ask for.
    pub(super) permissions: Option<Permissions>,
    /// Accounts with connections of their own, the system's among them.
    pub(super) accounts: Vec<String>,
    pub(super) ping_interval: Duration,
    pub(super) pings_outstanding_max: u32,
    pub(super) write_deadline: Duration,
    /// What happens when it takes longer.
    pub(super) write_timeout: WriteTimeout,
    pub(super) pending_bytes_max: usize,
    pub(super) payload_bytes_max: usize,
    /// The largest message that clients may send, as other servers are told.
    pub(super) client_payload_bytes_max: usize,
    pub(super) line_bytes_max: usize,
    pub(super) headers: bool,
    /// How often a dial that fails is told of.
    pub(super) dial_reports: DialReports,
}

/// A route may hold back this many times what a client may: it stands for all clients of a server.
const PENDING_TIMES: usize = 4;

impl RouteOptions {
    /// What the options say; `None` without a cluster. Reads files, and may ask a responder about our certificate.
    pub fn new(options: &Options) -> Result<Option<Self>, RouteOptionsError> {
        let Some(cluster) = options.cluster() else {
            return Ok(None);
        };
        let tls = match &cluster.tls {
            None => None,
            Some(block) => Some(RouteTls {
                mutual: Arc::new(MutualTls::new(block)?),
                timeout: block.timeout,
                maps_users: block.maps_users,
                checks_known_hosts: block.checks_known_hosts,
            }),
        };
        let restricts = cluster.import.is_some() || cluster.export.is_some();
        let permissions = restricts.then(|| {
            Permissions::new(&PermissionsConfig {
                publish: cluster.import.clone(),
                subscribe: cluster.export.clone(),
                responses: None,
            })
        });
        let mut accounts = cluster.accounts.clone();
        let system = options.system_account().to_owned();
        if cluster.pool_size.is_none() {
            accounts.clear();
        } else if !accounts.contains(&system) {
            accounts.push(system);
        }
        let pending = usize::try_from(options.limits.pending_bytes_max).unwrap_or(usize::MAX);
        Ok(Some(Self {
            tls,
            permissions: permissions.transpose()?,
            accounts,
            ping_interval: cluster
                .ping_interval
                .unwrap_or(options.timing.ping_interval)
                .min(ROUTE_PING_INTERVAL_MAX),
            pings_outstanding_max: cluster
                .pings_outstanding_max
                .unwrap_or(options.timing.pings_outstanding_max),
            write_deadline: cluster
                .write_deadline
                .unwrap_or(options.timing.write_deadline),
            write_timeout: cluster.write_timeout.unwrap_or(WriteTimeout::Retry),
            pending_bytes_max: pending.saturating_mul(PENDING_TIMES),
            // What a client of the other server may send, this one has to take: it may have another limit, with headers on top.
            payload_bytes_max: options.limits.payload_bytes_max.max(64 << 20),
            client_payload_bytes_max: options.limits.payload_bytes_max,
            line_bytes_max: options.limits.control_line_bytes_max.max(64 << 10),
            headers: !options.no_header_support,
            dial_reports: options.dial_reports,
            cluster: cluster.clone(),
        }))
    }

    /// Connections to each server; 1 without pools.
    pub(super) fn pool_size(&self) -> usize {
        self.cluster.pool_size.map_or(1, |size| size as usize)
    }

    /// Whether that address is dialled, for the pool or for an account.
    pub(super) fn dials(&self, url: &RouteUrl, account: Option<&str>) -> bool {
        self.cluster.routes.contains(url)
            && account.is_none_or(|account| self.has_own_route(account))
    }

    /// Whether this account has connections of its own.
    pub(super) fn has_own_route(&self, account: &str) -> bool {
        self.accounts.iter().any(|own| own == account)
    }

    /// Whether local interest in this pattern is passed on.
    pub(super) fn passes_on(&self, subject: &[u8]) -> bool {
        let permissions = self.permissions.as_ref();
        permissions.is_none_or(|permissions| permissions.may_publish(subject))
    }

    /// Whether another server may ask for this.
    pub(super) fn takes(&self, interest: &Interest<'_>) -> bool {
        let permissions = self.permissions.as_ref();
        permissions
            .is_none_or(|permissions| permissions.may_subscribe(interest.subject, interest.queue))
    }

    /// Whether a message may come in.
    pub(super) fn lets_in(&self, subject: &[u8]) -> bool {
        self.passes_on(subject)
    }

    /// Whether nothing that matters differs. Certificates are read anew, and may.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self {
            cluster,
            tls,
            // Made of the cluster's options.
            permissions: _,
            accounts,
            ping_interval,
            pings_outstanding_max,
            write_deadline,
            write_timeout,
            pending_bytes_max,
            payload_bytes_max,
            client_payload_bytes_max,
            line_bytes_max,
            headers,
            dial_reports,
        } = self;
        tls.is_none()
            && other.tls.is_none()
            && *cluster == other.cluster
            && *accounts == other.accounts
            && *ping_interval == other.ping_interval
            && *pings_outstanding_max == other.pings_outstanding_max
            && *write_deadline == other.write_deadline
            && *write_timeout == other.write_timeout
            && *pending_bytes_max == other.pending_bytes_max
            && *payload_bytes_max == other.payload_bytes_max
            && *client_payload_bytes_max == other.client_payload_bytes_max
            && *line_bytes_max == other.line_bytes_max
            && *headers == other.headers
            && *dial_reports == other.dial_reports
    }

    /// Whether other servers than before may come in.
    pub(super) fn admits_otherwise_than(&self, other: &Self) -> bool {
        let wanted = |options: &Self| {
            let tls = options.tls.as_ref();
            let by_certificate = tls.map(|tls| (tls.maps_users, tls.checks_known_hosts));
            let cluster = &options.cluster;
            let hosts = by_certificate.is_some_and(|(_, checks)| checks);
            (
                cluster.user.clone(),
                cluster.password.clone(),
                by_certificate,
                hosts.then(|| cluster.routes.clone()),
            )
        };
        wanted(self) != wanted(other)
    }

    pub(super) fn requires_credentials(&self) -> bool {
        self.cluster.user.is_some() || self.cluster.password.is_some()
    }

    /// Whether another server may come in by its certificate; `None` where its credentials say so.
    pub(super) fn admits_certificate(&self, peer: Option<&PeerIdentity>) -> Option<bool> {
        let tls = self.tls.as_ref()?;
        if !tls.maps_users && !tls.checks_known_hosts {
            return None;
        }
        let Some(peer) = peer else {
            return Some(false);
        };
        let is_dialled = |name: &String| {
            let routes = self.cluster.routes.iter();
            tls.checks_known_hosts && routes.into_iter().any(|url| is_for(name, &url.host))
        };
        let user = self.cluster.user.as_deref();
        let is_user = |name: &str| tls.maps_users && Some(name) == user;
        let mut names = peer.names().chain(peer.subject_texts());
        Some(peer.hosts.iter().any(is_dialled) || names.any(is_user))
    }

    /// Whether these are the credentials that other servers must have. Costly when the password is a hash.
    pub(super) fn admits(&self, user: &str, password: &str) -> bool {
        if !self.requires_credentials() {
            return true;
        }
        let wanted_user = self.cluster.user.as_deref().unwrap_or_default();
        let wanted = self.cluster.password.as_deref().unwrap_or_default();
        user == wanted_user
            && match crate::config::options::authorization::is_bcrypt(wanted) {
                true => bcrypt::verify(password, wanted).unwrap_or(false),
                false => is_same(password.as_bytes(), wanted.as_bytes()),
            }
    }
}

/// Takes as long wherever the difference is.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The connection of a pool that an account's interest goes over: FNV-1a of its name, as the reference has it.
pub(super) fn pool_index(pool_size: usize, account: &str) -> usize {
    if pool_size <= 1 {
        return 0;
    }
    let hash = account.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash as usize % pool_size
}

/// Permissions as an `INFO` shows them.
pub(super) fn shown(permission: Option<&SubjectPermission>) -> Option<SubjectRules> {
    permission.map(|permission| SubjectRules {
        allow: permission.allow.clone().unwrap_or_default(),
        deny: permission.deny.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_the_connection_that_the_reference_gives_it() {
        // FNV-1a with 32 bits: "" is the offset basis, "a" 0xe40c292c, "foobar" 0xbf9cf968.
        assert_eq!(pool_index(1 << 16, "a"), 0x292c);
        assert_eq!(pool_index(1 << 16, "foobar"), 0xf968);
        assert_eq!(pool_index(3, "foobar"), 0xbf9c_f968 % 3);
        assert_eq!(pool_index(1, "foobar"), 0);
        assert_eq!(pool_index(0, "foobar"), 0);
    }
}
