//! ICE servers as Link headers (RFC 9725, section 4.6; RFC 8288). Pure.

use r58_pipelines::ice::{self, IceServer};

/// One header's value for each address that a client can use, credentials in quotes.
pub fn ice_links(servers: &[IceServer]) -> Vec<String> {
    let mut links = Vec::new();
    for server in ice::for_browser(servers) {
        let credential = match (&server.username, &server.credential) {
            (Some(username), Some(credential)) => {
                let (Some(username), Some(credential)) = (quoted(username), quoted(credential)) else { continue };
                format!("; username={username}; credential={credential}; credential-type=\"password\"")
            }
            _ => String::new(),
        };
        for url in &server.urls {
            let credential = if url.starts_with("stun:") { "" } else { credential.as_str() };
            links.push(format!("<{url}>; rel=\"ice-server\"{credential}"));
        }
    }
    links
}

/// A quoted string (RFC 9110, section 5.6.4); `None` for what no header can carry.
fn quoted(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return None;
    }
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_a_link_of_its_own_with_its_credential_quoted() {
        let servers = [
            IceServer::stun("stun:s.example"),
            IceServer {
                urls: vec!["turn:t.example?transport=udp".into(), "turns:t.example:443?transport=tcp".into()],
                username: Some("1700:guest".into()),
                credential: Some("a\"b\\c=".into()),
            },
            // Browsers block this port, and refuse a list with a TURN server that has no credential.
            IceServer::turn("turn:t.example:53?transport=udp", "u", "c"),
            IceServer::stun("turn:open.example"),
        ];
        let credential = r#"; username="1700:guest"; credential="a\"b\\c="; credential-type="password""#;
        assert_eq!(
            ice_links(&servers),
            [
                "<stun:s.example:3478>; rel=\"ice-server\"".to_owned(),
                format!("<turn:t.example:3478?transport=udp>; rel=\"ice-server\"{credential}"),
                format!("<turns:t.example:443?transport=tcp>; rel=\"ice-server\"{credential}"),
            ]
        );
    }

    #[test]
    fn a_credential_that_would_break_the_header_is_left_out() {
        assert!(ice_links(&[IceServer::turn("turn:t.example", "u\r\nX: y", "c")]).is_empty());
    }
}
