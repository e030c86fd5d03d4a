//! `pop3d health`: asks a running server for its greeting, for health checks of containers and monitors.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Args;

/// How long the server may take to accept the connection, and to send its greeting.
const PATIENCE: Duration = Duration::from_secs(5);

/// RFC 1939 limits a reply to this many octets.
const LONGEST_GREETING: u64 = 512;

/// Connects to the POP3 port that these settings name, on the first address. Returns what a server there has said.
///
/// # Errors
/// If no POP3 server greets the connection in time.
pub fn health(args: &Args) -> Result<String, String> {
    let endpoint = args.pop3_endpoint();
    let address = match endpoint.addresses.first() {
        Some(address) if endpoint.port != 0 => address.to_connect_to(endpoint.port),
        _ => return Err("the kernel chooses the port of these settings, so it is not known".to_owned()),
    };
    let address = address.map_err(|error| error.to_string())?;
    match greeting(address) {
        Ok(line) if line.starts_with("+OK") => Ok(format!("{address}: {line:?}")),
        Ok(line) => Err(format!("{address}: the greeting is {line:?}")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(format!("{address}: no greeting within {PATIENCE:?}; all connection slots may be in use"))
        }
        Err(error) => Err(format!("{address}: {error}")),
    }
}

fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST_GREETING)).read_line(&mut line)?;
    // The greeting is what was asked for. QUIT only makes the server log an ordinary end.
    let _ = stream.write_all(b"QUIT\r\n");
    Ok(line.trim_end().to_owned())
}
