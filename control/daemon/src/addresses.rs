//! Which addresses a node listens on and is known by: `--listen-addr`, `--advertise-addr`, `--data-path-addr`.

use skep_model::cluster::DEFAULT_LISTEN_PORT;
use std::net::{Ipv4Addr, SocketAddr};

/// This host's IPv4 addresses, with the interface that has them. Loopback is left out.
pub(crate) type HostAddresses = [(String, Ipv4Addr)];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// The CLI recognises the first words and adds a hint on `--advertise-addr`.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses ({}) - specify one with --advertise-addr",
        .0.join(", ")
    )]
    Ambiguous(Vec<String>),
    #[error("could not find the system's IP address - specify one with --advertise-addr")]
    None,
    #[error(
        "{option} '{text}': expected an IPv4 address or the name of an interface, with or without a port"
    )]
    Malformed { option: &'static str, text: String },
    #[error("{option} '{text}': no interface of this host has that name and an IPv4 address (it has {have})")]
    NoSuchInterface { option: &'static str, text: String, have: String },
    #[error("{option} '{addr}' is not an address of this host (it has {have})")]
    NotOurs { option: &'static str, addr: Ipv4Addr, have: String },
}

/// An `ADDR|INTERFACE[:PORT]` option.
fn parse(
    option: &'static str,
    text: &str,
    host: &HostAddresses,
) -> Result<(Ipv4Addr, Option<u16>), AddressError> {
    let malformed = || AddressError::Malformed { option, text: text.to_owned() };
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| malformed())?)),
        None => (text, None),
    };
    if let Ok(addr) = name.parse::<Ipv4Addr>() {
        return Ok((addr, port));
    }
    if name.is_empty() || name.contains([':', '[', ']', '/']) {
        return Err(malformed());
    }
    match host.iter().find(|(interface, _)| interface == name) {
        Some((_, addr)) => Ok((*addr, port)),
        None => Err(AddressError::NoSuchInterface { option, text: name.to_owned(), have: describe(host) }),
    }
}

fn describe(host: &HostAddresses) -> String {
    let list: Vec<String> = host.iter().map(|(interface, addr)| format!("{addr} on {interface}")).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

/// Where the manager listens; `0.0.0.0:2377` by default.
pub(crate) fn listen(text: &str, host: &HostAddresses) -> Result<SocketAddr, AddressError> {
    if text.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, DEFAULT_LISTEN_PORT).into());
    }
    let (addr, port) = parse("--listen-addr", text, host)?;
    Ok((addr, port.unwrap_or(DEFAULT_LISTEN_PORT)).into())
}

/// The address others reach this node at: as given, else the one it listens on, else its only one.
pub(crate) fn advertise(
    text: &str,
    listen: SocketAddr,
    host: &HostAddresses,
) -> Result<SocketAddr, AddressError> {
    if !text.is_empty() {
        let (addr, port) = parse("--advertise-addr", text, host)?;
        owned("--advertise-addr", addr, host)?;
        return Ok((addr, port.unwrap_or(listen.port())).into());
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    match host {
        [] => Err(AddressError::None),
        [(_, addr)] => Ok((*addr, listen.port()).into()),
        several => Err(AddressError::Ambiguous(
            several.iter().map(|(name, addr)| format!("{addr} on {name}")).collect(),
        )),
    }
}

/// Where the VTEP receives; the advertised address by default.
pub(crate) fn data_path(
    text: &str,
    advertise: Ipv4Addr,
    host: &HostAddresses,
) -> Result<Ipv4Addr, AddressError> {
    if text.is_empty() {
        return Ok(advertise);
    }
    let (addr, _) = parse("--data-path-addr", text, host)?;
    owned("--data-path-addr", addr, host)?;
    Ok(addr)
}

fn owned(option: &'static str, addr: Ipv4Addr, host: &HostAddresses) -> Result<(), AddressError> {
    if addr.is_loopback() || host.iter().any(|(_, have)| *have == addr) {
        return Ok(());
    }
    Err(AddressError::NotOurs { option, addr, have: describe(host) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn host() -> Vec<(String, Ipv4Addr)> {
        vec![
            ("eth0".to_owned(), Ipv4Addr::new(192, 0, 2, 1)),
            ("eth1".to_owned(), Ipv4Addr::new(198, 51, 100, 1)),
        ]
    }

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 2377);

    #[test]
    fn the_only_address_is_advertised() {
        assert_eq!(advertise("", ANY, &host()[..1]), Ok("192.0.2.1:2377".parse().unwrap()));
        assert_eq!(advertise("", ANY, &[]), Err(AddressError::None));
    }

    #[test]
    fn several_addresses_ask_for_a_choice_in_swarms_words() {
        let error = advertise("", ANY, &host()).unwrap_err().to_string();
        assert!(
            error.starts_with("could not choose an IP address to advertise since this system has multiple")
        );
    }

    #[test]
    fn addresses_and_interfaces_with_and_without_port_are_understood() {
        assert_eq!(advertise("eth1", ANY, &host()), Ok("198.51.100.1:2377".parse().unwrap()));
        assert_eq!(advertise("192.0.2.1:7000", ANY, &host()), Ok("192.0.2.1:7000".parse().unwrap()));
        assert_eq!(listen("eth0:99", &host()), Ok("192.0.2.1:99".parse().unwrap()));
        assert_eq!(data_path("", Ipv4Addr::new(192, 0, 2, 1), &host()), Ok(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn what_this_host_does_not_have_is_refused() {
        assert!(matches!(advertise("203.0.113.9", ANY, &host()), Err(AddressError::NotOurs { .. })));
        assert!(matches!(advertise("wlan0", ANY, &host()), Err(AddressError::NoSuchInterface { .. })));
        assert!(matches!(advertise("::1", ANY, &host()), Err(AddressError::Malformed { .. })));
        assert!(matches!(advertise("eth0:http", ANY, &host()), Err(AddressError::Malformed { .. })));
    }
}
