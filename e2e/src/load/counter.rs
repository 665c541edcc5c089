//! A way to the API server that counts what passes: bytes as they are on the wire, so encrypted
//! ones and the cost of encryption too. It understands nothing of them.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::lab::Lab;

/// Pause between two looks for a new connection.
const LOOK: Duration = Duration::from_millis(20);

/// A counting way, open until this is dropped.
#[derive(Debug)]
pub struct Counter {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    /// Opens a way from a lab's loopback address to `server`, both in the lab's network.
    pub fn open(lab: Lab, server: SocketAddr) -> Result<Self> {
        let (received, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, is_over) = (Arc::clone(&received), Arc::clone(&stop));
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let listener = listen_in(lab);
            let address = listener.as_ref().map(|(_, address)| *address);
            let _ = ready.send(address.map_err(|error| anyhow!("{error:#}")));
            if let Ok((listener, _)) = listener {
                carry_all(&listener, server, &count, &is_over);
            }
        });
        let address = is_ready.recv().context("the counter did not start")??;
        Ok(Self {
            address,
            received,
            stop,
            thread: Some(thread),
        })
    }

    /// Its near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that came from the server so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The calling thread, and those it starts, are in the lab's network from here on.
fn listen_in(lab: Lab) -> Result<(TcpListener, SocketAddr)> {
    let network = File::open(format!("/proc/{}/ns/net", lab.init().pid()))
        .context("cannot find the lab's network")?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the lab's network")?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port in the lab")?;
    listener
        .set_nonblocking(true)
        .context("cannot poll for connections")?;
    let address = listener
        .local_addr()
        .context("a listener without address")?;
    Ok((listener, address))
}

fn carry_all(listener: &TcpListener, server: SocketAddr, count: &AtomicU64, stop: &AtomicBool) {
    thread::scope(|scope| {
        let mut ends = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Ok((near, _)) = listener.accept() else {
                thread::sleep(LOOK);
                continue;
            };
            let Ok(far) = TcpStream::connect(server) else {
                continue;
            };
            let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
                continue;
            };
            ends.extend(near.try_clone().into_iter().chain(far.try_clone()));
            scope.spawn(move || pour(&near, &far, &AtomicU64::default()));
            scope.spawn(move || pour(&far_too, &near_too, count));
        }
        for end in ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    });
}

/// Carries bytes until either side ends.
fn pour(mut from: &TcpStream, mut into: &TcpStream, count: &AtomicU64) {
    let mut bytes = [0; 16 << 10];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        count.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        if into
            .write_all(bytes.get(..read).unwrap_or_default())
            .is_err()
        {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_counted_and_what_goes_out_is_not() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let way = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (near, far) = (way.local_addr().unwrap(), server.local_addr().unwrap());
        way.set_nonblocking(true).unwrap();
        let (count, stop) = (AtomicU64::default(), AtomicBool::default());
        thread::scope(|scope| {
            scope.spawn(|| carry_all(&way, far, &count, &stop));
            scope.spawn(|| {
                let (mut socket, _) = server.accept().unwrap();
                let mut question = Vec::new();
                socket.read_to_end(&mut question).unwrap();
                socket.write_all(&question[..3]).unwrap();
            });
            let mut client = TcpStream::connect(near).unwrap();
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "que");
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
