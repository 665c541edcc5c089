//! A made-up network: hosts that answer for their addresses, as RFC 826 and RFC 4861 want it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use cni::plugin::{Mac, Segment};
use etherparse::icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};

/// Hardware address of the Pod's interface.
const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Who is there, and what was seen.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) hosts: BTreeMap<IpAddr, Mac>,
    /// So many questions get lost before one is answered.
    pub(crate) lossy: usize,
    /// Every question of the Pod's interface: whom it is about, and whether it names its asker.
    pub(crate) asked: Vec<(IpAddr, bool)>,
    /// What the Pod's interface told everybody.
    pub(crate) announced: Vec<IpAddr>,
    /// Frames that are on their way to it whatever it does.
    pub(crate) noise: VecDeque<Vec<u8>>,
}

/// The Pod's interface. Waiting moves the clock.
pub(crate) struct Port {
    network: Rc<RefCell<Network>>,
    now: Rc<Cell<Duration>>,
    inbox: VecDeque<Vec<u8>>,
}

impl Port {
    pub(crate) fn new(network: Rc<RefCell<Network>>, now: Rc<Cell<Duration>>) -> Self {
        let inbox = network.borrow_mut().noise.drain(..).collect();
        Self {
            network,
            now,
            inbox,
        }
    }
}

impl Segment for Port {
    fn mac(&self) -> Mac {
        OWN
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut network = self.network.borrow_mut();
        // A switch may give a frame back to who sent it.
        self.inbox.push_back(frame.to_vec());
        match read(frame).unwrap() {
            Said::Asks { target, named } => {
                network.asked.push((target, named));
                if network.lossy > 0 {
                    network.lossy -= 1;
                } else if let Some(mac) = network.hosts.get(&target) {
                    self.inbox.push_back(answer(target, *mac));
                }
            }
            Said::Tells(address) => network.announced.push(address),
        }
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        let frame = self.inbox.pop_front();
        if frame.is_none() {
            self.now.set(self.now.get() + limit);
        }
        Ok(frame)
    }
}

enum Said {
    Asks { target: IpAddr, named: bool },
    Tells(IpAddr),
}

fn read(frame: &[u8]) -> Option<Said> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), _) => {
            let arp = ArpEthIpv4Packet::try_from(arp.to_packet()).ok()?;
            let (sender, target) = (arp.sender_ipv4_addr(), arp.target_ipv4_addr());
            if sender == target {
                return Some(Said::Tells(target.into()));
            }
            Some(Said::Asks {
                target: target.into(),
                named: !sender.is_unspecified(),
            })
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(message))) => {
            match message.payload_slice().ok()? {
                Icmpv6PayloadSlice::NeighborSolicitation(asked) => Some(Said::Asks {
                    target: asked.target_address().into(),
                    named: !ip.header().source_addr().is_unspecified(),
                }),
                Icmpv6PayloadSlice::NeighborAdvertisement(told) => {
                    Some(Said::Tells(told.target_address().into()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// How the host with `mac` answers for `address`.
pub(crate) fn answer(address: IpAddr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::new();
    match address {
        IpAddr::V4(address) => {
            let packet = ArpEthIpv4Packet {
                operation: ArpOperation::REPLY,
                sender_mac: mac.0,
                sender_ipv4: address.octets(),
                target_mac: OWN.0,
                target_ipv4: [0; 4],
            };
            let builder = PacketBuilder::ethernet2(mac.0, OWN.0).arp(ArpPacket::from(packet));
            builder.write(&mut frame).unwrap();
        }
        IpAddr::V6(address) => {
            let header = NeighborAdvertisementHeader {
                router: false,
                solicited: false,
                r#override: true,
            };
            let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0, 0, 0, 1])
                .ipv6(address.octets(), everybody.octets(), 255)
                .icmpv6(Icmpv6Type::NeighborAdvertisement(header))
                .write(&mut frame, &address.octets())
                .unwrap();
        }
    }
    frame
}

/// A probe of another host that is about to take `address`.
pub(crate) fn probe(address: [u8; 4], mac: Mac) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.0,
        sender_ipv4: [0; 4],
        target_mac: [0; 6],
        target_ipv4: address,
    };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(mac.0, [0xff; 6]).arp(ArpPacket::from(packet));
    builder.write(&mut frame).unwrap();
    frame
}
