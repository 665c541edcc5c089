//! Frames that ask who has an address, and what an answer looks like.
//!
//! Owns: ARP as RFC 5227 uses it, and neighbour discovery as RFC 4861 and 4862
//! do. Never does: send or wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, Icmpv6Slice, Icmpv6Type, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice,
};

use super::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
const UNKNOWN: [u8; 6] = [0; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// What neighbour discovery is sent with, so that no router can have passed it on.
const HOP_LIMIT: u8 = 255;
/// Options of neighbour discovery: the hardware address of the sender, and of the target.
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;

/// Asks who has `target`. Without `asker` it is a probe, which enters nobody's
/// neighbour table.
pub(super) fn question(own: Mac, target: IpAddr, asker: Option<IpAddr>) -> Vec<u8> {
    match (target, asker) {
        (IpAddr::V4(target), Some(IpAddr::V4(asker))) => arp_request(own, asker, target),
        (IpAddr::V4(target), _) => arp_request(own, Ipv4Addr::UNSPECIFIED, target),
        (IpAddr::V6(target), Some(IpAddr::V6(asker))) => solicitation(own, asker, target),
        (IpAddr::V6(target), _) => solicitation(own, Ipv6Addr::UNSPECIFIED, target),
    }
}

/// Tells everybody that `address` is here.
pub(super) fn announcement(own: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(own, address, address),
        IpAddr::V6(address) => {
            let header = NeighborAdvertisementHeader {
                router: false,
                solicited: false,
                r#override: true,
            };
            let kind = Icmpv6Type::NeighborAdvertisement(header);
            let body = body(address, Some((TARGET_MAC, own)));
            icmpv6(own, address, ALL_NODES, kind, &body)
        }
    }
}

fn arp_request(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: own.0,
        sender_ipv4: sender.octets(),
        target_mac: UNKNOWN,
        target_ipv4: target.octets(),
    };
    let builder = PacketBuilder::ethernet2(own.0, BROADCAST).arp(ArpPacket::from(packet));
    let mut frame = Vec::with_capacity(builder.size());
    // Written to memory: nothing can fail.
    let _ = builder.write(&mut frame);
    frame
}

fn solicitation(own: Mac, sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let known = !sender.is_unspecified();
    let body = body(target, known.then_some((SOURCE_MAC, own)));
    let to = solicited_node(target);
    icmpv6(own, sender, to, Icmpv6Type::NeighborSolicitation, &body)
}

/// The group that every host with an address of this end listens to.
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

fn body(target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut body = target.octets().to_vec();
    if let Some((kind, mac)) = option {
        body.extend([kind, 1]);
        body.extend(mac.0);
    }
    body
}

fn icmpv6(own: Mac, from: Ipv6Addr, to: Ipv6Addr, kind: Icmpv6Type, body: &[u8]) -> Vec<u8> {
    let [.., a, b, c, d] = to.octets();
    let group = [0x33, 0x33, a, b, c, d];
    let builder = PacketBuilder::ethernet2(own.0, group)
        .ipv6(from.octets(), to.octets(), HOP_LIMIT)
        .icmpv6(kind);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    // Written to memory, and far shorter than a packet may be: nothing can fail.
    let _ = builder.write(&mut frame, body);
    frame
}

/// A word of a host about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) address: IpAddr,
    /// Whose word it is.
    pub(super) from: Mac,
    pub(super) claim: Claim,
}

/// What a host says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has it.
    Has,
    /// It is about to take it: a probe, as ours is.
    Wants,
}

/// What `frame` says; `None` where that is about no address, or cannot be read.
pub(super) fn heard(frame: &[u8]) -> Option<Heard> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Arp(arp) => ArpEthIpv4Packet::try_from(arp.to_packet())
            .ok()
            .map(|arp| arp_word(&arp)),
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let Some(TransportSlice::Icmpv6(message)) = &packet.transport else {
                return None;
            };
            let intact = header.hop_limit() == HOP_LIMIT
                && message.is_checksum_valid(header.source(), header.destination());
            let ethernet = packet.link?.to_header()?.ethernet2()?.source;
            let probes = header.source_addr().is_unspecified();
            intact.then(|| neighbour_word(message, Mac(ethernet), probes))?
        }
        NetSlice::Ipv4(_) => None,
    }
}

fn arp_word(arp: &ArpEthIpv4Packet) -> Heard {
    let probes = arp.operation == ArpOperation::REQUEST && arp.sender_ipv4_addr().is_unspecified();
    let (address, claim) = if probes {
        (arp.target_ipv4_addr(), Claim::Wants)
    } else {
        (arp.sender_ipv4_addr(), Claim::Has)
    };
    Heard {
        address: address.into(),
        from: Mac(arp.sender_mac),
        claim,
    }
}

fn neighbour_word(message: &Icmpv6Slice<'_>, from: Mac, probes: bool) -> Option<Heard> {
    let (address, claim) = match message.payload_slice().ok()? {
        Icmpv6PayloadSlice::NeighborAdvertisement(said) => (said.target_address(), Claim::Has),
        Icmpv6PayloadSlice::NeighborSolicitation(said) if probes => {
            (said.target_address(), Claim::Wants)
        }
        _ => return None,
    };
    Some(Heard {
        address: address.into(),
        from,
        claim,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn a_probe_names_nobody_and_is_heard_as_a_wish() {
        for target in ["10.0.0.5", "fd00::5"] {
            let target: IpAddr = target.parse().unwrap();
            let heard = heard(&question(OWN, target, None)).unwrap();
            assert_eq!(heard.address, target);
            assert_eq!((heard.from, heard.claim), (OWN, Claim::Wants));
        }
    }

    #[test]
    fn an_announcement_is_heard_as_a_claim() {
        for address in ["10.0.0.5", "fd00::5"] {
            let address: IpAddr = address.parse().unwrap();
            let heard = heard(&announcement(OWN, address)).unwrap();
            assert_eq!((heard.address, heard.claim), (address, Claim::Has));
        }
    }

    /// By the figures of the RFCs, byte for byte.
    #[test]
    fn frames_are_as_the_standards_draw_them() {
        let arp = question(
            OWN,
            "10.0.0.1".parse().unwrap(),
            Some("10.0.0.5".parse().unwrap()),
        );
        let expected: [u8; 42] = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
            2, 0, 0, 0, 0, 1, 10, 0, 0, 5, // sender
            0, 0, 0, 0, 0, 0, 10, 0, 0, 1, // target
        ];
        assert_eq!(arp, expected);
        let probe = question(OWN, "fd00::1:2203".parse().unwrap(), None);
        assert_eq!(&probe[..6], &[0x33, 0x33, 0xff, 1, 0x22, 3]);
        assert_eq!(&probe[12..14], &[0x86, 0xdd]);
        assert_eq!((probe[20], probe[21]), (58, 255), "ICMPv6, hop limit");
        assert_eq!(&probe[22..38], &[0; 16], "from nobody");
        assert_eq!(&probe[54..56], &[135, 0], "neighbour solicitation");
        assert_eq!(probe.len(), 14 + 40 + 8 + 16, "without an option");
        let asked = question(
            OWN,
            "fd00::1".parse().unwrap(),
            Some("fd00::5".parse().unwrap()),
        );
        assert_eq!(&asked[78..], &[1, 1, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_a_router_passed_on_or_was_broken_on_the_way_is_not_heard() {
        let frame = announcement(OWN, "fd00::5".parse().unwrap());
        let mut far = frame.clone();
        far[21] = 64;
        assert_eq!(heard(&far), None);
        let mut broken = frame;
        broken[70] ^= 1;
        assert_eq!(heard(&broken), None);
    }

    proptest! {
        #[test]
        fn whatever_is_on_the_wire_is_read_without_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = heard(&frame);
        }

        #[test]
        fn near_valid_frames_are_read_without_panic(
            v6 in any::<bool>(), at in 0_usize..90, byte in any::<u8>(), length in 0_usize..90,
        ) {
            let address: IpAddr = if v6 { "fd00::5" } else { "10.0.0.5" }.parse().unwrap();
            let mut frame = announcement(OWN, address);
            if let Some(changed) = frame.get_mut(at) {
                *changed = byte;
            }
            frame.truncate(length);
            let _ = heard(&frame);
        }
    }
}
