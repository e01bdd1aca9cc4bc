//! A network of its own for the servers of a test: each lives in a network namespace, and every pair of them has a wire that can be cut in either direction.
//!
//! Takes root and `ip`; without them there is no such network, and whoever asked for it says so. A cut loses packets without a word, as a pulled cable
//! does: they are sent out where nobody takes them.

use std::net::Ipv4Addr;
use std::process::Command;

/// Where packets go that nobody is to get.
const HOLE: &str = "hole";

pub struct Network {
    hosts: usize,
    /// Tells the networks of several tests apart.
    number: u8,
}

fn ip(arguments: &str) -> Result<(), String> {
    let run = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .map_err(|error| format!("ip cannot be run: {error}"))?;
    match run.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&run.stderr).trim()
        )),
    }
}

impl Network {
    /// Lays out a network for so many hosts. `Err` says why there is none here.
    pub fn new(hosts: usize) -> Result<Self, String> {
        let number = u8::try_from(std::process::id() % 250).unwrap_or(0) + 1;
        // Before the first command: what is there is removed again, also when a later one fails.
        let network = Self { hosts, number };
        network.lay_out()?;
        Ok(network)
    }

    fn lay_out(&self) -> Result<(), String> {
        let outside = self.outside();
        ip(&format!("addr add {outside}/32 dev lo"))?;
        for host in 0..self.hosts {
            let (space, address) = (self.namespace(host), self.address(host));
            ip(&format!("netns add {space}"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} addr add {address}/32 dev lo"))?;
            ip(&format!(
                "-n {space} link add {HOLE} type veth peer name bottom"
            ))?;
            // Nobody is asked who is at its other end, and whoever gets packets there does not pass them on.
            ip(&format!("-n {space} link set {HOLE} arp off up"))?;
            ip(&format!("-n {space} link set bottom arp off up"))?;
            // The wire to whoever runs the test.
            let wire = format!("t{}w{host}", self.number);
            ip(&format!(
                "link add {wire} type veth peer name out netns {space}"
            ))?;
            ip(&format!("link set {wire} up"))?;
            ip(&format!("-n {space} link set out up"))?;
            ip(&format!("route add {address}/32 dev {wire} src {outside}"))?;
            ip(&format!(
                "-n {space} route add {outside}/32 dev out src {address}"
            ))?;
            for other in 0..host {
                let theirs = self.namespace(other);
                ip(&format!(
                    "-n {space} link add to{other} type veth peer name to{host} netns {theirs}"
                ))?;
                ip(&format!("-n {space} link set to{other} up"))?;
                ip(&format!("-n {theirs} link set to{host} up"))?;
            }
        }
        self.heal();
        Ok(())
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: usize) -> String {
        format!("t{}h{host}", self.number)
    }

    /// Where a host listens.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        let last = u8::try_from(host + 1).expect("few hosts");
        Ipv4Addr::new(10, 99, self.number, last)
    }

    fn outside(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, self.number, 254)
    }

    /// What one host sends to another is lost from now on.
    pub fn cut(&self, from: usize, to: usize) {
        self.route(from, to, HOLE);
    }

    /// Whatever was cut works again.
    pub fn heal(&self) {
        for from in 0..self.hosts {
            for to in (0..self.hosts).filter(|to| *to != from) {
                self.route(from, to, &format!("to{to}"));
            }
        }
    }

    fn route(&self, from: usize, to: usize, device: &str) {
        let (space, own) = (self.namespace(from), self.address(from));
        let theirs = self.address(to);
        ip(&format!(
            "-n {space} route replace {theirs}/32 dev {device} src {own}"
        ))
        .expect("what was laid out can be changed");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            // The wires of a namespace go with it; one that was never made is no loss.
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("addr del {}/32 dev lo", self.outside()));
    }
}
