//! Where a server listens: addresses as people write them, and a socket that a service manager holds.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::str::FromStr;

/// An address to listen on: `0.0.0.0:5000`, `:5000` or `5000` for every address of this machine, `localhost:5000`,
/// `[::1]:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or an address; empty for every address.
    host: String,
    /// 0 takes any free port.
    port: u16,
}

/// The text is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on; write ADDRESS:PORT, such as 0.0.0.0:5000, :5000 or localhost:5000"
)]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ListenError(text.chars().filter(|c| !c.is_control()).take(80).collect());
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_some_and(|host| host.parse::<Ipv6Addr>().is_err()) {
            return Err(wrong());
        }
        let is_name_or_ipv4 =
            |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if bare.is_none() && !is_name_or_ipv4(host) || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Listen {
    /// Returns the addresses that this means, the preferred one first. A name may have to be looked up.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host.is_empty() {
            // The first takes connections over IPv4 as well; not every machine has IPv6.
            return Ok(vec![
                (Ipv6Addr::UNSPECIFIED, self.port).into(),
                (Ipv4Addr::UNSPECIFIED, self.port).into(),
            ]);
        }
        let mut found: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot look up {}: {error}", self.host)))?
            .collect();
        // As Go's servers do: most clients try IPv4.
        found.sort_by_key(SocketAddr::is_ipv6);
        found.dedup();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host)));
        }
        Ok(found)
    }

    /// Takes the first of the addresses that can be had.
    pub fn bind(&self) -> io::Result<TcpListener> {
        let mut failed = None;
        for address in self.addresses()? {
            match TcpListener::bind(address) {
                Ok(listener) => return Ok(listener),
                // The port is taken: another address would only hide that.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(self.named(&error)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(self.named(&failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())))
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot listen on {self}: {error}"))
    }
}

/// Returns the listening socket that a service manager has handed over (`sd_listen_fds(3)`: `LISTEN_FDS`, `LISTEN_PID`);
/// `None` if there is none. Several cannot be served.
#[cfg(unix)]
pub fn inherited_listener() -> io::Result<Option<TcpListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    match handed.len() {
        0 => Ok(None),
        1 => handed.take_tcp_listener(0),
        count => Err(io::Error::other(format!(
            "{count} sockets were handed over in LISTEN_FDS, and one can be served"
        ))),
    }
}

/// There are no service managers that hand over sockets elsewhere.
#[cfg(not(unix))]
pub fn inherited_listener() -> io::Result<Option<TcpListener>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            (":5000", "[::]:5000"),
            ("5000", "[::]:5000"),
            ("[::]:5000", "[::]:5000"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:5000", "127.0.0.1:5000"),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.addresses().unwrap()[0].to_string(), expected, "{text}");
            assert_eq!(listen.to_string().parse::<Listen>().unwrap(), listen, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form() {
        for bad in [
            "",
            ":",
            "localhost",
            "10.0.0.1",
            "::1:5000",
            "[::1]",
            "[a]:1",
            "a:70000",
            "a:+1",
            "a b:1",
            "http://a:1",
        ] {
            let error = bad.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("0.0.0.0:5000, :5000 or localhost:5000"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_not_taken_twice() {
        let first = "localhost:0".parse::<Listen>().unwrap().bind().unwrap();
        let port = first.local_addr().unwrap().port();
        for text in [format!("localhost:{port}"), format!(":{port}"), format!("0.0.0.0:{port}")] {
            let error = text.parse::<Listen>().unwrap().bind().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{text}");
            assert!(error.to_string().contains(&format!(":{port}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = text.parse::<Listen>();
        }
    }
}
