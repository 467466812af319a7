//! Where messages may go. Who makes a receiver chooses an address that this server then calls: it must not be a way into what
//! only this server can reach.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use ipnet::IpNet;
use reqwest::Url;

/// Addresses that are not for the public (IANA's special-purpose registries, RFC 6890), and those that carry others within.
static PRIVATE: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let nets = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];
    nets.iter().filter_map(|net| net.parse().ok()).collect()
});

/// Whether an address is for the public.
pub fn is_public(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !PRIVATE.iter().any(|net| net.contains(&ip))
}

/// A webhook's URL that makes sense.
///
/// # Errors
/// Says what is wrong with it; does not repeat it, for it may hold a secret.
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, String> {
    if text.len() > 2_000 {
        return Err("at most 2000 bytes".into());
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("http:// or https://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user or password in it; use a secret".into());
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or("a host is missing")?;
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let inside = literal.map_or_else(|_| is_local_name(host), |ip| !is_public(ip));
    if inside && !allow_private {
        return Err("not a public address; see fleet.alerts.allow_private_targets".into());
    }
    Ok(url)
}

fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// What shows of a URL: not its path, which with some services is the secret.
pub fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "…".into(), |url| format!("{}/…", url.origin().ascii_serialization()))
}

/// Where a URL's host is, every one of its addresses being allowed. What is connected to must be one of these, so that a name
/// that says something else a moment later leads nowhere.
///
/// # Errors
/// When the name is not known, or leads inside.
pub async fn resolve(url: &Url, allow_private: bool) -> Result<Vec<SocketAddr>, ResolveError> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(ResolveError::Inside);
    };
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let found: Vec<SocketAddr> = found.map_err(|_| ResolveError::Unknown)?.collect();
    if found.is_empty() {
        return Err(ResolveError::Unknown);
    }
    match allow_private || found.iter().all(|addr| is_public(addr.ip())) {
        true => Ok(found),
        false => Err(ResolveError::Inside),
    }
}

/// Why there is no address to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// May be known later.
    #[error("the host's name is not known")]
    Unknown,
    /// Not to be gone to.
    #[error("the host is not at a public address")]
    Inside,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_inside_are_none_however_they_are_written() {
        for inside in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://localhost:8180/",
            "http://a.localhost./",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://10.1.2.3/",
            "http://192.168.0.9/",
            "http://172.31.0.1/",
            "http://169.254.169.254/latest",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://224.0.0.1/",
        ] {
            assert!(check_url(inside, false).is_err(), "{inside}");
            assert!(check_url(inside, true).is_ok(), "{inside}");
        }
        for bad in ["ftp://x.example/", "https://u:p@x.example/", "x.example", "http://", "file:///etc/passwd"] {
            assert!(check_url(bad, true).is_err(), "{bad}");
        }
        for good in ["https://hooks.example/abc?d=e", "http://93.184.216.34/", "https://[2606:2800:220:1::1]/x"] {
            assert!(check_url(good, false).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_path_of_a_webhook_does_not_show() {
        assert_eq!(shown("https://hooks.example/T0/B0/s3cret?token=x"), "https://hooks.example/…");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_gone_to() {
        let url = Url::parse("http://localhost:80/").unwrap();
        assert_eq!(resolve(&url, false).await, Err(ResolveError::Inside));
        assert!(resolve(&url, true).await.is_ok());
    }
}
