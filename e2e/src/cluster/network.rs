//! The cluster's two networks: bridges in its own network namespace, with no way out of it.
//!
//! `e2n0` carries nodes and API server; `e2e0` is the Pods' underlay, and on each node a link of
//! the same name that macvlan takes as its master.

use anyhow::Result;

use super::lab::Lab;

/// Where the API server is, for nodes and Pods.
pub const API_ADDRESS: &str = "192.168.137.1";
/// The port it listens on there.
pub const API_PORT: u16 = 6443;
/// Both, as one writes a socket's address.
pub const API_SERVER: &str = "192.168.137.1:6443";
/// The underlay's prefix.
pub const UNDERLAY: &str = "172.18.41.0/24";
/// The underlay's gateway.
pub const GATEWAY: &str = "172.18.41.1";

/// The first node's last part of the address; 1 is the bridge itself.
pub const FIRST_NODE: u8 = 2;

/// A node's address among nodes.
pub fn node_address(index: u8) -> String {
    format!("192.168.137.{index}")
}

/// Makes both bridges.
pub fn make_bridges(lab: Lab) -> Result<()> {
    lab.ip("link set lo up")?;
    for (name, address) in [("e2n0", API_ADDRESS), ("e2e0", GATEWAY)] {
        lab.ip(&format!("link add {name} type bridge"))?;
        lab.ip(&format!("addr add {address}/24 dev {name}"))?;
        lab.ip(&format!("link set {name} up"))?;
    }
    Ok(())
}

/// Links a node to both bridges.
pub fn link_node(lab: Lab, node: Lab, index: u8) -> Result<()> {
    node.ip("link set lo up")?;
    let pid = node.init().pid();
    let nets = [
        ("e2n", "e2n0", "eth0", "192.168.137"),
        ("e2u", "e2e0", "e2e0", "172.18.41"),
    ];
    for (prefix, bridge, name, net) in nets {
        let near = format!("{prefix}{index}");
        // A node that lost its power may leave its end for a moment.
        let _ = lab.ip(&format!("link del {near}"));
        lab.ip(&format!(
            "link add {near} type veth peer name {name} netns {pid}"
        ))?;
        lab.ip(&format!("link set {near} master {bridge} up"))?;
        node.ip(&format!("addr add {net}.{index}/24 dev {name}"))?;
        node.ip(&format!("link set {name} up"))?;
    }
    Ok(())
}
