//! Whose request it is, where proxies stand between: one function for both sides, so that rates, lock-out and log lines agree.
//!
//! `X-Forwarded-For` is believed only from a peer that the configuration names, and read from its right end, where each proxy
//! writes whom it was asked by: the first address that is no proxy of ours is the client, and what stands left of it is the
//! client's own claim. RFC 7239's `Forwarded` is not read at all: a proxy that writes the one header passes the other on as the
//! client sent it, so whoever reads both can be told anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::HttpRequest;
use actix_web::http::header::X_FORWARDED_FOR;
use ipnet::IpNet;

/// Most addresses and networks in a list; no proxy of ours stands behind that many others.
pub const MOST: usize = 64;

/// The proxies that may say whom they speak for. Empty by default: then every peer is its own client.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    /// An unknown proxy was named in the log.
    told: Arc<AtomicBool>,
}

impl TrustedProxies {
    /// From addresses (`192.0.2.1`) and networks (`10.0.0.0/8`, `fd00::/8`).
    ///
    /// # Errors
    /// The first entry that is neither.
    pub fn new(list: &[String]) -> Result<Self, NotANetwork> {
        Ok(Self { networks: list.iter().map(|text| network(text)).collect::<Result<_, _>>()?, told: Arc::default() })
    }

    /// The address of whoever asks; none where the connection has no address.
    pub fn client(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        let mut lines = request.headers().get_all(X_FORWARDED_FOR).peekable();
        if lines.peek().is_none() {
            return Some(peer);
        }
        if !self.trusts(peer) && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%peer, "X-Forwarded-For of an unknown proxy is passed over; trusted_proxies would name it");
        }
        // A line that is no text ends the walk like any other word that is no address.
        let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap_or("unreadable")).collect();
        Some(self.behind(peer, &lines))
    }

    /// The client of a peer that sent these lines.
    fn behind(&self, peer: IpAddr, lines: &[&str]) -> IpAddr {
        let mut client = peer;
        for word in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            // Whom a proxy does not name it answers for itself.
            let Some(before) = address(word.trim()) else { break };
            client = before;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// An entry that is neither an address nor a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

fn network(text: &str) -> Result<IpNet, NotANetwork> {
    let address = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    text.parse().ok().or_else(address).ok_or_else(|| NotANetwork(text.to_owned()))
}

/// An address as proxies write it: bare, with a port, in brackets.
fn address(word: &str) -> Option<IpAddr> {
    let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(word);
    let with_port = || word.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn proxies(list: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn client(list: &[&str], peer: &str, lines: &[&str]) -> String {
        let mut request = TestRequest::get().peer_addr(SocketAddr::new(peer.parse().unwrap(), 4711));
        for line in lines {
            request = request.append_header((X_FORWARDED_FOR, *line));
        }
        proxies(list).client(&request.to_http_request()).unwrap().to_string()
    }

    #[test]
    fn a_header_from_an_unknown_peer_changes_nothing() {
        for trusted in [&[][..], &["10.0.0.0/8"], &["198.51.100.8", "fd00::/8"]] {
            assert_eq!(client(trusted, "198.51.100.7", &["192.0.2.1"]), "198.51.100.7");
            assert_eq!(client(trusted, "198.51.100.7", &["10.0.0.1, 10.0.0.2"]), "198.51.100.7");
        }
    }

    #[test]
    fn behind_a_known_proxy_the_last_address_that_is_no_proxy_is_the_client() {
        let ours = &["10.0.0.0/8", "fd00::1"][..];
        assert_eq!(client(ours, "10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(ours, "fd00::1", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(client(ours, "10.0.0.1", &["192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(client(ours, "10.0.0.1", &["192.0.2.1", "10.0.0.2"]), "192.0.2.1", "lines count like commas");
        assert_eq!(client(ours, "10.0.0.1", &["10.9.9.9, 10.0.0.2"]), "10.9.9.9", "all of them are proxies");
        assert_eq!(client(ours, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_claims_before_its_proxy_speaks_is_passed_over() {
        let ours = &["10.0.0.1"][..];
        for claim in ["8.8.8.8", "10.0.0.1", "10.0.0.1, 8.8.8.8", "nonsense", "", ",,,", "unknown"] {
            assert_eq!(client(ours, "10.0.0.1", &[&format!("{claim}, 192.0.2.1")]), "192.0.2.1", "{claim}");
            assert_eq!(client(ours, "10.0.0.1", &[claim, "192.0.2.1"]), "192.0.2.1", "{claim}");
        }
    }

    #[test]
    fn a_proxy_that_names_nobody_answers_for_itself() {
        let ours = &["10.0.0.0/8"][..];
        for line in ["", "unknown", "_hidden", "192.0.2.1.7", "192.0.2.1, unknown", "[192.0.2.1", "http://192.0.2.1"] {
            assert_eq!(client(ours, "10.0.0.1", &[line]), "10.0.0.1", "{line}");
        }
        assert_eq!(client(ours, "10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn an_address_is_known_however_it_is_written() {
        let ours = &["192.168.0.0/16"][..];
        assert_eq!(client(ours, "::ffff:192.168.0.1", &["192.0.2.1"]), "192.0.2.1", "a socket for both versions");
        assert_eq!(client(ours, "192.168.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
        assert_eq!(client(ours, "192.168.0.1", &["192.0.2.1:5511"]), "192.0.2.1");
        assert_eq!(client(ours, "192.168.0.1", &["[2001:db8::7]:5511"]), "2001:db8::7");
        assert_eq!(client(ours, "192.168.0.1", &["[2001:db8::7]"]), "2001:db8::7");
    }

    #[test]
    fn forwarded_is_not_read() {
        let request = TestRequest::get()
            .peer_addr("10.0.0.1:4711".parse().unwrap())
            .append_header(("Forwarded", "for=8.8.8.8"))
            .append_header((X_FORWARDED_FOR, "192.0.2.1"));
        let client = proxies(&["10.0.0.1"]).client(&request.to_http_request());
        assert_eq!(client, Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn an_entry_that_is_no_network_is_named() {
        for wrong in ["", "proxy.example", "10.0.0.0/33", "10.0.0", "10.0.0.1:80"] {
            assert_eq!(TrustedProxies::new(&[wrong.to_owned()]).unwrap_err(), NotANetwork(wrong.to_owned()));
        }
    }
}
