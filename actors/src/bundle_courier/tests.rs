//! What the courier does next, by what the fleet said.

use super::*;

fn said(status: u16, offset: Option<&str>, whole: bool) -> Said {
    let mut headers = HeaderMap::new();
    if let Some(offset) = offset {
        headers.insert(OFFSET, offset.parse().unwrap());
    }
    if whole {
        headers.insert("upload-complete", "?1".parse().unwrap());
    }
    meaning(StatusCode::from_u16(status).unwrap(), &headers, "because", 100)
}

#[test]
fn the_server_says_where_it_goes_on_whatever_was_lost() {
    assert_eq!(said(200, Some("0"), false), Said::Have(0));
    assert_eq!(said(204, Some("60"), false), Said::Have(60));
    assert_eq!(said(409, Some("40"), false), Said::Have(40), "an answer was lost, or the server came back with less");
    assert_eq!(said(204, Some("100"), true), Said::Whole);
}

#[test]
fn what_will_never_be_taken_is_let_go_and_anything_else_is_tried_again() {
    for status in [400, 404, 410, 413] {
        assert_eq!(said(status, None, false), Said::No("because".into()), "{status}");
    }
    // A token that was rotated a moment ago, a full disk, a server that starts: later.
    for status in [401, 403, 429, 500, 502, 503, 507] {
        assert!(matches!(said(status, None, false), Said::Later(_)), "{status}");
    }
    assert_eq!(said(422, Some("0"), false), Said::Spoilt);
    assert!(matches!(said(200, Some("900"), false), Said::Later(_)), "more than there is");
}
