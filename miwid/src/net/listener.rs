//! Listening sockets, one per worker and address (SO_REUSEPORT), so that accepting touches no other core.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that the kernel keeps for us while workers are busy (capped by `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}", self.address)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds `count` sockets to one address. SO_REUSEPORT would let a second daemon of the same user in silently and take
/// half of the connections: a first bind without it finds out.
pub fn bind_group(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let bound = || -> io::Result<Vec<TcpListener>> {
        socket(address)?.bind(&address.into())?;
        (0..count).map(|_| listen(address)).collect()
    };
    bound().map_err(|source| BindError { address, source })
}

/// As many more, beside sockets on the same address: of their own, or, where those do not share it, more descriptors of them.
pub fn more_beside(address: SocketAddr, open: &[TcpListener], count: usize) -> Result<Vec<TcpListener>, BindError> {
    let shared = open.iter().all(|it| SockRef::from(it).reuse_port().unwrap_or_default());
    let more: io::Result<Vec<TcpListener>> = match shared {
        true => (0..count).map(|_| listen(address)).collect(),
        false => open.iter().cycle().take(count).map(TcpListener::try_clone).collect(),
    };
    more.map_err(|source| BindError { address, source })
}

/// A group for datagrams. Packets of one connection reach one socket, whatever address they come from.
#[cfg(feature = "http3")]
pub fn bind_udp_group(address: SocketAddr, count: usize) -> Result<Vec<std::net::UdpSocket>, BindError> {
    let bound = || -> io::Result<Vec<std::net::UdpSocket>> {
        udp(address)?.bind(&address.into())?;
        let mut group = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = udp(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            group.push(std::net::UdpSocket::from(socket));
        }
        if let [first, _, ..] = &group[..] {
            super::steering::attach(first, count)?;
        }
        Ok(group)
    };
    bound().map_err(|source| BindError { address, source })
}

/// Bursts wait in the kernel while the worker is busy; what the system does not grant is no error.
#[cfg(feature = "http3")]
fn udp(address: SocketAddr) -> io::Result<Socket> {
    const BUFFER_BYTES: usize = 2 << 20;
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] are listed separately, so each family has sockets of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// One that nobody else asks for. It is not tried before: a child that another test starts would have a copy of that socket
    /// until it executes.
    fn free_address() -> SocketAddr {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        SocketAddr::from(([127, 80, 0, NEXT.fetch_add(1, Ordering::Relaxed)], 7_080))
    }

    #[test]
    fn a_group_shares_its_address() {
        let address = free_address();
        let group = bind_group(address, 3).expect("the port was free");
        assert!(group.iter().all(|it| it.local_addr().ok() == Some(address)));
    }

    #[test]
    fn more_share_the_address_or_else_the_socket() {
        let group = bind_group(free_address(), 1).expect("the port was free");
        let address = group[0].local_addr().expect("bound");
        let inode = |it: &TcpListener| rustix::fs::fstat(it).expect("a socket").st_ino;
        let more = more_beside(address, &group, 2).expect("bound");
        assert!(more.len() == 2 && more.iter().all(|it| inode(it) != inode(&group[0])));
        let alone = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = alone.local_addr().expect("bound");
        let more = more_beside(address, std::slice::from_ref(&alone), 2).expect("copied");
        assert!(more.len() == 2 && more.iter().all(|it| inode(it) == inode(&alone)));
    }

    #[test]
    fn a_taken_address_is_refused_even_when_its_owner_shares() {
        let address = free_address();
        let _owner = bind_group(address, 1).expect("the port was free");
        let error = bind_group(address, 1).expect_err("the port is taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
