//! Client addresses: which address a request counts for, behind which trusted proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::bail;
use ipnet::IpNet;

/// How many addresses of a forwarding header are read; longer ones are forged.
const HOPS_MAX: usize = 32;

/// The part of an IPv6 address that one client has; the client chooses the rest itself.
const IPV6_CLIENT_BITS: u32 = 64;

/// The rightmost address that is no trusted proxy's. The client may have forged what is left of it.
pub(super) fn client_address(peer: IpAddr, forwarded: &str, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    for hop in forwarded.rsplit(',').take(HOPS_MAX) {
        if !is_trusted(&client) {
            break;
        }
        // Text that is no address ends the chain: the proxy that passed it on counts as the client.
        let Some(before) = parse_hop(hop.trim()) else { break };
        client = before;
    }
    client
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    alone.or_else(with_port).map(|address| address.to_canonical())
}

/// The part that identifies one client: an IPv4 address, or a network of IPv6.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (u128::BITS - IPV6_CLIENT_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The networks that the setting `server.trusted_proxies` names.
pub fn networks(texts: &[String]) -> anyhow::Result<Vec<IpNet>> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match network {
            Some(network) => networks.push(network.trunc()),
            None => {
                bail!("server.trusted_proxies has `{text}`, which is neither an address nor a network (10.0.0.0/8)")
            }
        }
    }
    Ok(networks)
}
