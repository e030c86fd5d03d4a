//! Finds out which user runs a client on this machine, by asking the kernel about the client's socket (sock_diag(7)).

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as KernelAddr};

/// The size of the buffer for the kernel's answer, which is shorter.
const ANSWER_LIMIT: usize = 4096;

/// With this cookie, a request matches any socket that has the addresses.
const ANY_COOKIE: [u8; 8] = [0xFF; 8];

/// Returns the id of the user who created the client's socket of a TCP connection within this machine. `client` and
/// `server` are the addresses of the connection.
///
/// # Errors
/// If there is no such socket, the client's program has closed it, or the kernel cannot be asked.
pub fn user_of_local_client(client: SocketAddr, server: SocketAddr) -> io::Result<u32> {
    let (client, server) = (canonical(client), canonical(server));
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&KernelAddr::new(0, 0))?;
    socket.send(&request(client, server), 0)?;
    // The kernel's answer is ready as soon as the request has been sent.
    socket.set_non_blocking(true)?;
    let mut answer = Vec::with_capacity(ANSWER_LIMIT);
    socket.recv(&mut answer, 0)?;
    match NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
            owner(&response.header, client, server).ok_or_else(|| io::Error::other("its program has closed it"))
        }
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel's answer is not the expected one")),
    }
}

/// Returns the address without its scope. An IPv6 address that stands for an IPv4 address becomes the latter.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes the request for the socket that has `client` as its own address and `server` as the peer's.
fn request(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let socket_id = SocketId {
        source_port: client.port(),
        destination_port: server.port(),
        source_address: client.ip(),
        destination_address: server.ip(),
        interface_id: 0,
        cookie: ANY_COOKIE,
    };
    let request = InetRequest {
        family: if client.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    octets
}

/// Returns the user of the socket in the kernel's answer, if it is the client's. For a socket that its program has closed,
/// the answer has user 0 and no inode. If there is no connected socket, the kernel answers with one that listens on the
/// client's address.
fn owner(found: &InetResponseHeader, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let is_connected = [TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2].contains(&found.state);
    let id = &found.socket_id;
    let is_the_clients = canonical((id.source_address, id.source_port).into()) == client
        && canonical((id.destination_address, id.destination_port).into()) == server;
    (is_connected && is_the_clients && found.inode != 0).then_some(found.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::geteuid;
    use std::net::{Shutdown, TcpListener, TcpStream};

    /// Returns the client's and the server's end of a connection within this machine.
    fn connected(to: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((to, 0)).ok()?;
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some((client, listener.accept().unwrap().0))
    }

    fn user(server: &TcpStream) -> Option<u32> {
        user_of_local_client(server.peer_addr().unwrap(), server.local_addr().unwrap()).ok()
    }

    #[test]
    fn the_user_of_a_client_is_found_by_ipv4_and_ipv6() {
        for address in ["127.0.0.1", "::1"] {
            let Some((client, server)) = connected(address) else {
                eprintln!("SKIPPED: this machine does not have the address {address}");
                continue;
            };
            assert_eq!(user(&server), Some(geteuid().as_raw()), "{address}");
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(user(&server), Some(geteuid().as_raw()), "{address}: after the client has shut down writing");
        }
    }

    #[test]
    fn the_user_of_a_client_is_found_by_an_ipv4_mapped_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mapped = format!("[::ffff:127.0.0.1]:{}", listener.local_addr().unwrap().port());
        let Ok(_client) = TcpStream::connect(mapped) else {
            eprintln!("SKIPPED: this machine does not have IPv6");
            return;
        };
        assert_eq!(user(&listener.accept().unwrap().0), Some(geteuid().as_raw()));
    }

    /// The kernel reports user 0 for a closed socket. Every user would be taken for root if the server believed that.
    #[test]
    fn a_client_that_has_closed_its_socket_has_no_user() {
        let (client, server) = connected("127.0.0.1").unwrap();
        drop(client);
        assert_eq!(user(&server), None);
    }

    #[test]
    fn a_listener_at_the_clients_address_is_not_the_client() {
        let (listener, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (client, server) = (listener.local_addr().unwrap(), other.local_addr().unwrap());
        assert!(user_of_local_client(client, server).is_err());
    }
}
