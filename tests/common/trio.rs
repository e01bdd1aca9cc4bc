//! Servers that come together with JetStream, each with a store of its own: what most tests of clusters begin with.

use super::{Server, ServerOptions, eventually, free_ports, http_get};

/// How the servers of a cluster are started.
pub struct Members<'a> {
    cluster: &'a str,
    name: fn(usize) -> String,
    jetstream: &'a str,
    beside: String,
    each: Box<dyn Fn(usize) -> String + 'a>,
    options: Box<dyn Fn(usize, ServerOptions) -> ServerOptions + 'a>,
}

impl<'a> Members<'a> {
    /// Servers `s1`, `s2` and so on of a cluster of that name.
    pub fn of(cluster: &'a str) -> Self {
        Self {
            cluster,
            name: |at| format!("s{at}"),
            jetstream: "",
            beside: String::new(),
            each: Box::new(|_| String::new()),
            options: Box::new(|_, options| options),
        }
    }

    /// Calls them otherwise, by their numbers from 1 on.
    pub fn named(mut self, name: fn(usize) -> String) -> Self {
        self.name = name;
        self
    }

    /// What is said of JetStream on all of them, beside where its store is.
    pub fn jetstream(mut self, keys: &'a str) -> Self {
        self.jetstream = keys;
        self
    }

    /// What the configuration of all of them says beside.
    pub fn beside(mut self, text: &str) -> Self {
        text.clone_into(&mut self.beside);
        self
    }

    /// What the configuration of each says beside.
    pub fn each(mut self, text: impl Fn(usize) -> String + 'a) -> Self {
        self.each = Box::new(text);
        self
    }

    /// Changes how each is started.
    pub fn options(mut self, options: impl Fn(usize, ServerOptions) -> ServerOptions + 'a) -> Self {
        self.options = Box::new(options);
        self
    }

    /// Starts so many, with monitoring. They need not have come together yet.
    pub fn start<const COUNT: usize>(&self) -> Vec<Server> {
        let ports: [u16; COUNT] = free_ports();
        let routes = ports.map(|port| format!("'nats-route://127.0.0.1:{port}'"));
        let routes = routes.join(", ");
        let start = |(at, port): (usize, u16)| {
            let (name, cluster, jetstream) = ((self.name)(at), self.cluster, self.jetstream);
            let (each, beside) = ((self.each)(at), &self.beside);
            let config = format!(
                "server_name: {name}\n{each}\njetstream {{ store_dir: '@DIR@/store', {jetstream} }}\n\
                 cluster {{ name: {cluster}, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n{beside}"
            );
            let options = ServerOptions::default().config(&config).monitoring();
            (self.options)(at, options).start()
        };
        (1..).zip(ports).map(start).collect()
    }

    /// The same, and waits until all of them are well: they know each other, and have said what they have room for.
    pub fn start_healthy<const COUNT: usize>(&self) -> Vec<Server> {
        let servers = self.start::<COUNT>();
        servers.iter().for_each(healthy);
        servers
    }
}

/// Waits until a server says that it is well.
#[track_caller]
pub fn healthy(server: &Server) {
    eventually("the server is healthy", || {
        let answer = http_get(server.monitor_address(), "/healthz").ok()?;
        (answer.status == 200).then_some(())
    });
}
