//! The endpoints, and how often each was asked.

use super::answer::{Parameters, plain};
use super::observed::Observed;
use super::process::ProcessorMeter;
use super::{
    accountz, accstatz, connz, edges, healthz, ipqueuesz, jsz, metrics, raftz, root, routez,
    stacksz, subsz, variables, varz,
};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every endpoint and what it is for, in the order of the menu.
pub const ENDPOINTS: [(&str, &str); 15] = [
    ("/varz", "General"),
    ("/jsz", "JetStream"),
    ("/connz", "Connections"),
    ("/accountz", "Accounts"),
    ("/accstatz", "Account statistics"),
    ("/subsz", "Subscriptions"),
    ("/routez", "Routes"),
    ("/gatewayz", "Gateways"),
    ("/leafz", "Leaf nodes"),
    ("/raftz", "Raft groups"),
    ("/healthz", "Health"),
    ("/ipqueuesz", "Queues inside the server"),
    ("/stacksz", "Threads"),
    ("/debug/vars", "Command line and memory"),
    ("/metrics", "Metrics for scrapers (OpenMetrics)"),
];

/// What the endpoints share.
pub struct Monitor {
    /// The server.
    pub server: Arc<dyn Observed>,
    /// What the process uses.
    pub processor: ProcessorMeter,
    requests: Mutex<BTreeMap<&'static str, u64>>,
}

impl Monitor {
    /// A monitor that nobody has asked yet.
    pub fn new(server: Arc<dyn Observed>) -> Self {
        Monitor {
            server,
            processor: ProcessorMeter::new(),
            requests: Mutex::default(),
        }
    }

    /// How often each endpoint was asked.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.requests.lock().clone()
    }

    pub(super) fn count(&self, path: &'static str) {
        *self.requests.lock().entry(path).or_insert(0) += 1;
    }
}

/// All endpoints of a server, below its base path.
pub fn router(monitor: Arc<Monitor>) -> Router {
    Router::new().fallback(answer).with_state(monitor)
}

async fn answer(
    State(monitor): State<Arc<Monitor>>,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    respond(monitor, uri.path(), query.as_deref().unwrap_or("")).await
}

/// Answers a request for a path.
pub(super) async fn respond(monitor: Arc<Monitor>, path: &str, query: &str) -> Response {
    let parameters = Parameters(parse_query(query));
    let options = &monitor.server.facts().options;
    let base = options
        .monitor
        .as_ref()
        .map_or("", |m| m.base_path.as_str());
    let Some(path) = path.strip_prefix(base) else {
        return not_found();
    };
    match path {
        "" | "/" => {
            monitor.count("/");
            root::answer(base)
        }
        "/varz" => {
            monitor.count("/varz");
            blocking(move || varz::answer(&monitor)).await
        }
        "/healthz" => {
            monitor.count("/healthz");
            blocking(move || healthz::answer(&monitor, &parameters)).await
        }
        "/jsz" => {
            monitor.count("/jsz");
            blocking(move || jsz::answer(&monitor, &parameters)).await
        }
        "/connz" => {
            monitor.count("/connz");
            blocking(move || connz::answer(&monitor, &parameters)).await
        }
        "/accountz" => {
            monitor.count("/accountz");
            blocking(move || accountz::answer(&monitor, &parameters)).await
        }
        "/accstatz" => {
            monitor.count("/accstatz");
            blocking(move || accstatz::answer(&monitor, &parameters)).await
        }
        // The second is an old name for the first.
        "/subsz" | "/subscriptionsz" => {
            monitor.count("/subsz");
            blocking(move || subsz::answer(&monitor, &parameters)).await
        }
        "/metrics" => {
            monitor.count("/metrics");
            blocking(move || metrics::answer(&monitor)).await
        }
        "/routez" => {
            monitor.count("/routez");
            blocking(move || routez::answer(&monitor, &parameters)).await
        }
        "/raftz" => {
            monitor.count("/raftz");
            blocking(move || raftz::answer(&monitor, &parameters)).await
        }
        "/gatewayz" => {
            monitor.count("/gatewayz");
            edges::gateways(monitor.server.facts(), &parameters)
        }
        "/leafz" => {
            monitor.count("/leafz");
            edges::leaf_nodes(monitor.server.facts(), &parameters)
        }
        "/ipqueuesz" => {
            monitor.count("/ipqueuesz");
            blocking(move || ipqueuesz::answer(&monitor, &parameters)).await
        }
        "/stacksz" => {
            monitor.count("/stacksz");
            blocking(stacksz::answer).await
        }
        // Counted by nobody, as in the reference.
        "/debug/vars" => blocking(variables::answer).await,
        _ => not_found(),
    }
}

/// Runs what may wait for a stream, or look at very many things, where that harms nobody.
async fn blocking(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(answer).await {
        Ok(response) => response,
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the server is shutting down",
        ),
    }
}

fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// `a=b&c=d%20e` into pairs.
pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name), unescape(value))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped = match first {
            b'%' => after
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(match (first, escaped) {
            (_, Some(byte)) => {
                rest = after.get(2..).unwrap_or_default();
                byte
            }
            (b'+', None) => b' ',
            (byte, None) => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_taken_apart() {
        assert_eq!(
            parse_query("acc=%24G&a+b=c%2&&x"),
            [("acc", "$G"), ("a b", "c%2"), ("x", "")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}
