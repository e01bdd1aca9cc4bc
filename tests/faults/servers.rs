//! Several servers of one cluster as processes, that can be killed, frozen and brought back.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use rustix::process::Signal;

use crate::common::{Server, ServerOptions, free_port};
use crate::network::Network;

pub struct Servers {
    // Before the network that they live in.
    pub servers: Vec<Server>,
    /// Which of them run, and which of these are frozen.
    pub states: Vec<State>,
    /// When they have one of their own.
    pub network: Option<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Frozen,
    Dead,
    /// Others do not hear it, or it does not hear others.
    CutOff,
}

/// What of a server's wires is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All, in both directions.
    All,
    /// What it says is not heard.
    Mute,
    /// It hears nothing.
    Deaf,
    /// The wire to one of the others.
    OneWire,
}

impl Servers {
    /// Starts a cluster on the loopback; every server knows the route to every other.
    pub fn start(count: usize) -> Self {
        let at = |_| format!("127.0.0.1:{}", free_port());
        let places: Vec<String> = (0..count).map(at).collect();
        Self::start_at(&places, None)
    }

    /// Starts a cluster with a host for each server.
    pub fn start_in(network: Network, count: usize) -> Self {
        let places: Vec<String> = (0..count)
            .map(|host| format!("{}:6222", network.address(host)))
            .collect();
        Self::start_at(&places, Some(network))
    }

    fn start_at(places: &[String], network: Option<Network>) -> Self {
        let routes: Vec<String> = places
            .iter()
            .map(|place| format!("nats-route://{place}"))
            .collect();
        let routes = routes.join(", ");
        let start = |(at, place): (usize, &String)| {
            let config = format!(
                "server_name: s{}\n\
                 jetstream {{ store_dir: \"@DIR@/store\" }}\n\
                 cluster {{ name: faults, listen: \"{place}\", routes: [{routes}] }}\n",
                at + 1
            );
            let options = ServerOptions::default().config(&config);
            let options = match &network {
                None => options,
                Some(network) => options.host(network.namespace(at), network.address(at)),
            };
            options.start()
        };
        let servers: Vec<Server> = places.iter().enumerate().map(start).collect();
        let states = vec![State::Running; servers.len()];
        Self {
            servers,
            states,
            network,
        }
    }

    /// A client that finds any of them, and tries that one first.
    pub async fn client(&self, first: usize) -> async_nats::Client {
        let mut urls: Vec<async_nats::ServerAddr> = self
            .servers
            .iter()
            .map(|server| server.url().parse().expect("a URL"))
            .collect();
        let count = urls.len();
        urls.rotate_left(first % count);
        async_nats::ConnectOptions::new()
            .retain_servers_order()
            .ignore_discovered_servers()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connection_timeout(Duration::from_secs(2))
            .ping_interval(Duration::from_secs(1))
            .max_reconnects(None)
            .connect(urls)
            .await
            .expect("a client is made")
    }

    /// The server that leads the stream, as whoever answers says.
    pub async fn leader(&self, context: &jetstream::Context, name: &str) -> Option<usize> {
        let asked = tokio::time::timeout(Duration::from_secs(2), context.get_stream(name));
        let stream = asked.await.ok()?.ok()?;
        let leader = stream.cached_info().cluster.clone()?.leader?;
        let number: usize = leader.strip_prefix('s')?.parse().ok()?;
        number.checked_sub(1)
    }

    pub fn kill(&mut self, at: usize) {
        self.servers[at].kill();
        self.states[at] = State::Dead;
    }

    pub fn freeze(&mut self, at: usize) {
        self.servers[at].signal(Signal::STOP);
        self.states[at] = State::Frozen;
    }

    /// Cuts wires of a server: that way says which.
    pub fn cut_off(&mut self, at: usize, cut: Cut) {
        let network = self.network.as_ref().expect("they have a network");
        let others = (0..self.servers.len()).filter(|other| *other != at);
        let others = match cut {
            Cut::OneWire => others.take(1).collect::<Vec<_>>(),
            _ => others.collect(),
        };
        for other in others {
            if cut != Cut::Deaf {
                network.cut(at, other);
            }
            if cut != Cut::Mute {
                network.cut(other, at);
            }
        }
        self.states[at] = State::CutOff;
    }

    /// Brings a server back from whatever was done to it.
    pub fn mend(&mut self, at: usize) {
        match self.states[at] {
            State::Running => {}
            State::CutOff => self.network.iter().for_each(Network::heal),
            State::Frozen => self.servers[at].signal(Signal::CONT),
            State::Dead => self.servers[at].start_again(),
        }
        self.states[at] = State::Running;
    }

    pub fn running(&self) -> usize {
        let running = self.states.iter().filter(|state| **state == State::Running);
        running.count()
    }

    /// Waits until all replicas of the stream are there and have caught up.
    pub async fn settled(&self, context: &jetstream::Context, name: &str) -> stream::Info {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(stream) = context.get_stream(name).await {
                let info = stream.cached_info();
                let replicas = info.cluster.iter().flat_map(|cluster| &cluster.replicas);
                let current = replicas
                    .clone()
                    .filter(|peer| peer.current && !peer.offline && peer.lag.unwrap_or(0) == 0);
                let wanted = info.config.num_replicas - 1;
                if current.count() == wanted && replicas.count() == wanted {
                    return info.clone();
                }
            }
            assert!(Instant::now() < deadline, "the replicas never caught up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for at in 0..self.servers.len() {
            // A frozen process is not there for SIGTERM, and its log is worth having.
            if self.states[at] == State::Frozen {
                self.servers[at].signal(Signal::CONT);
            }
        }
    }
}
