//! ICE servers from a provider's reply: read in any form, and never a URL that a browser would choke on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r58_pipelines::ice::{IceServer, IceUrl, for_browser, for_peer};

fuzz_target!(|bytes: &[u8]| {
    let Ok(servers) = serde_json::from_slice::<Vec<IceServer>>(bytes) else { return };
    for server in for_browser(&servers).iter().chain(&for_peer(&servers)) {
        for url in &server.urls {
            assert!(IceUrl::parse(url).is_some_and(|url| url.port != 53));
        }
    }
});
