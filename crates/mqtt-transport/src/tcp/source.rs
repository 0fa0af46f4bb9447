//! Which address of this host a connection comes from.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The configured source addresses. Each dial takes the next of either family, since which family
/// wins is not known before.
#[derive(Debug, Default)]
pub(super) struct Sources {
    v4: Turn,
    v6: Turn,
}

/// The addresses of one family, and how often one was taken.
#[derive(Debug, Default)]
struct Turn {
    addresses: Vec<IpAddr>,
    taken: AtomicUsize,
}

impl Turn {
    fn next(&self) -> Option<IpAddr> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let index = taken.checked_rem(self.addresses.len())?;
        self.addresses.get(index).copied()
    }
}

impl Sources {
    pub(super) fn new(addresses: &[IpAddr]) -> Self {
        let (v4, v6) = addresses.iter().partition(|address| address.is_ipv4());
        let turn = |addresses| Turn {
            addresses,
            taken: AtomicUsize::new(0),
        };
        Self {
            v4: turn(v4),
            v6: turn(v6),
        }
    }

    /// The source of a dial.
    pub(super) fn next(&self) -> Source {
        if self.v4.addresses.is_empty() && self.v6.addresses.is_empty() {
            return Source::System;
        }
        Source::Chosen {
            v4: self.v4.next(),
            v6: self.v6.next(),
        }
    }
}

/// Where one dial comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// What the system chooses.
    System,
    /// An address for each family that may be used.
    Chosen {
        v4: Option<IpAddr>,
        v6: Option<IpAddr>,
    },
}

impl Source {
    /// What to bind a socket to that is to reach `peer`.
    pub(super) fn address_for(self, peer: SocketAddr) -> io::Result<Option<SocketAddr>> {
        let (family, address) = match (self, peer) {
            (Self::System, _) => return Ok(None),
            (Self::Chosen { v4, .. }, SocketAddr::V4(_)) => ("IPv4", v4),
            (Self::Chosen { v6, .. }, SocketAddr::V6(_)) => ("IPv6", v6),
        };
        match address {
            Some(address) => Ok(Some(SocketAddr::new(address, 0))),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("skipped, since no source address is {family}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_take_turns_by_family() {
        let sources = Sources::new(&["1.0.0.1", "::1", "1.0.0.2"].map(|a| a.parse().unwrap()));
        let [peer4, peer6] = ["9.0.0.9:1", "[::9]:1"].map(|peer| peer.parse().unwrap());
        for expected in ["1.0.0.1:0", "1.0.0.2:0", "1.0.0.1:0"] {
            let source = sources.next();
            assert_eq!(
                source.address_for(peer4).unwrap(),
                Some(expected.parse().unwrap())
            );
            assert_eq!(
                source.address_for(peer6).unwrap(),
                Some("[::1]:0".parse().unwrap())
            );
        }
        let error = Sources::new(&["1.0.0.1".parse().unwrap()])
            .next()
            .address_for(peer6)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "skipped, since no source address is IPv6"
        );
        assert_eq!(
            Sources::default().next().address_for(peer4).unwrap(),
            None,
            "the system chooses"
        );
    }
}
