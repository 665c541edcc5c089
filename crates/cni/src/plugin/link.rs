//! A Pod's interface as the kernel has it: found, brought up, and opened for
//! frames.
//!
//! Owns: what a [`Segment`] needs of the system. Never does: give the
//! interface an address, or leave the thread in another network namespace:
//! sockets stay in the one they were made in, so only opening them happens there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use nix::errno::Errno as Code;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
    send, socket,
};

use super::error::SegmentError;
use super::probe::{Mac, Segment};

/// The thread's own network namespace.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// Longest frame that is read; those of ARP and neighbour discovery are far shorter.
const FRAME_MAX: usize = 2048;

/// Longest answer of the kernel about a link.
const ANSWER_MAX: usize = 16 * 1024;

/// Kinds of interfaces that share the hardware address of their master, which
/// hands an answer on only once the address is configured.
const SHARING: [&str; 2] = ["ipvlan", "ipvtap"];

/// An interface that is up, and open for frames.
struct Link {
    socket: OwnedFd,
    mac: Mac,
}

/// Opens interface `nic` of the network namespace at `netns`, and brings it up.
pub(super) fn open(netns: &Path, nic: &str) -> Result<Box<dyn Segment>, SegmentError> {
    let system = |what| move |error: io::Error| SegmentError::system(what, error);
    let home = File::open(OWN_NETNS).map_err(system("look at the own namespace"))?;
    let there = File::open(netns).map_err(system("open the Pod's namespace"))?;
    setns(&there, CloneFlags::CLONE_NEWNET)
        .map_err(|code| SegmentError::system("enter the Pod's namespace", code.into()))?;
    let opened = Link::open(nic);
    setns(&home, CloneFlags::CLONE_NEWNET)
        .map_err(|code| SegmentError::system("leave the Pod's namespace", code.into()))?;
    Ok(Box::new(opened?))
}

impl Link {
    fn open(nic: &str) -> Result<Self, SegmentError> {
        let absent = || SegmentError::Absent {
            nic: nic.to_owned(),
        };
        let address = link_address(nic)
            .map_err(|error| SegmentError::system("list the interfaces", error))?
            .ok_or_else(absent)?;
        let index = u32::try_from(address.ifindex()).map_err(|_| absent())?;
        let found = describe(index).map_err(|e| SegmentError::system("look at it", e))?;
        let kind = kind(&found).unwrap_or_default();
        let is_ethernet = found.header.link_layer_type == LinkLayerType::Ether;
        let mac = address.addr().filter(|_| is_ethernet);
        let Some(mac) = mac.filter(|_| !SHARING.contains(&kind.as_str())) else {
            return Err(SegmentError::Unsuitable {
                nic: nic.to_owned(),
                kind,
            });
        };
        if !found.header.flags.contains(LinkFlags::Up) {
            bring_up(index).map_err(|e| SegmentError::system("bring it up", e))?;
        }
        let socket = listen(&address).map_err(|e| SegmentError::system("listen on it", e))?;
        Ok(Self {
            socket,
            mac: Mac(mac),
        })
    }
}

impl Segment for Link {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        // In whole milliseconds, and at least one: a rest below must not spin.
        let limit = limit.as_millis().max(1);
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, limit) {
            Ok(0) | Err(Code::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(code) => return Err(code.into()),
        }
        let mut frame = vec![0; FRAME_MAX];
        match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(Code::EAGAIN | Code::EINTR) => Ok(None),
            Err(code) => Err(code.into()),
        }
    }
}

/// Index and hardware address of an interface of this namespace.
fn link_address(nic: &str) -> io::Result<Option<LinkAddr>> {
    let of_nic = getifaddrs()?.filter(|known| known.interface_name == nic);
    let mut addresses = of_nic.filter_map(|known| known.address?.as_link_addr().copied());
    Ok(addresses.next())
}

/// A packet socket on the interface, empty so far. Every protocol, since a
/// bind that names none keeps the socket's.
fn listen(address: &LinkAddr) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    bind(socket.as_raw_fd(), address)?;
    // Until then it heard every interface of the namespace.
    let mut frame = [0; FRAME_MAX];
    while recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT).is_ok() {}
    Ok(socket)
}

/// What the kernel says of a link.
fn describe(index: u32) -> io::Result<LinkMessage> {
    let mut asked = LinkMessage::default();
    asked.header.index = index;
    let answer = netlink(RouteNetlinkMessage::GetLink(asked), NLM_F_REQUEST)?;
    match answer {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(found)) => Ok(found),
        other => Err(refused(&other)),
    }
}

fn kind(link: &LinkMessage) -> Option<String> {
    let infos = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    infos.flatten().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn bring_up(index: u32) -> io::Result<()> {
    let mut wanted = LinkMessage::default();
    wanted.header.index = index;
    wanted.header.flags = LinkFlags::Up;
    wanted.header.change_mask = LinkFlags::Up;
    let answer = netlink(
        RouteNetlinkMessage::SetLink(wanted),
        NLM_F_REQUEST | NLM_F_ACK,
    )?;
    match answer {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        other => Err(refused(&other)),
    }
}

fn refused(answer: &NetlinkPayload<RouteNetlinkMessage>) -> io::Error {
    match answer {
        NetlinkPayload::Error(error) => error.to_io(),
        _ => io::Error::from(io::ErrorKind::InvalidData),
    }
}

/// One question to the kernel, and its answer.
fn netlink(
    message: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_MAX];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let bytes = answer.get(..length).unwrap_or_default();
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(answer.payload)
}
