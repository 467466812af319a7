//! Is an endpoint a proper WHIP and WHEP server? One check a point, against any base address, as any client would see it.
//!
//! Numbers and sections follow RFC 9725 as its editors' draft counts them. The checks speak HTTP, and UDP where a point is
//! about connectivity checks: a socket of ours is named as a candidate, and what the server sends there is read. Points
//! that need a whole WebRTC client are marked [`Way::Client`]; the test suite brings one.
//!
//! Checks leave nothing behind: each session that one makes it also ends.

mod answers;
mod board;
mod probe;
mod requests;
mod restarts;
mod whep;

pub use board::{Board, Outcome, Verdict};
pub use probe::{Probe, Session, offer};

/// What a check says: nothing, or the fault in one sentence.
pub type Check = Result<(), String>;

/// What a check needs beside the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing: a box can check itself.
    Http,
    /// The machine for itself: it disturbs others that use the endpoint.
    Alone,
    /// A WebRTC client with media.
    Client,
}

/// One thing that a conformant server does.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Its number; those of WHEP begin with a W.
    pub number: &'static str,
    /// The section that asks for it.
    pub section: &'static str,
    /// What is asked, as the name of a test.
    pub name: &'static str,
    /// What its check needs.
    pub way: Way,
}

impl Point {
    /// The name of its test.
    pub fn test(&self) -> String {
        format!("section_{}::{}", self.section.replace('.', "_"), self.name)
    }

    /// The sentence for people.
    pub fn sentence(&self) -> String {
        self.name.replace('_', " ")
    }
}

const fn point(number: &'static str, section: &'static str, name: &'static str) -> Point {
    Point { number, section, name, way: Way::Http }
}

const fn client(number: &'static str, section: &'static str, name: &'static str) -> Point {
    Point { number, section, name, way: Way::Client }
}

/// All points, in the order in which they are checked.
pub const POINTS: &[Point] = &[
    point("1", "4.1", "a_get_of_endpoint_and_session_succeeds_with_no_content"),
    point("2", "4.1", "every_failure_is_a_problem_document"),
    point("3", "4.2", "an_offer_of_any_spelling_of_its_type_is_answered_201_with_answer_and_location"),
    point("4", "4.2", "a_wrong_type_is_415_and_a_malformed_offer_400_at_once"),
    point("5", "4.2", "the_answer_is_recvonly_and_an_offer_that_sends_nothing_is_422"),
    point("6", "4.2", "the_location_resolves_and_nobody_guesses_it"),
    point("7", "4.2", "delete_is_200_whatever_if_match_says_frees_the_seat_and_is_404_the_second_time"),
    client("8", "4.2", "a_client_that_vanished_expires_by_consent"),
    point("9", "4.2", "options_is_200_with_accept_post_and_all_that_browsers_ask"),
    point("10", "4.3", "a_patch_of_another_type_or_a_malformed_fragment_is_refused"),
    point("11", "4.3", "trickle_and_restart_are_both_supported"),
    point("12", "4.3", "the_201_has_a_strong_entity_tag_for_each_ice_session"),
    point("13", "4.3", "a_missing_if_match_is_428_a_stale_one_412_and_overlapping_patches_are_safe"),
    point("14", "4.3", "the_answer_has_the_servers_candidates"),
    point("15", "4.3", "a_matching_patch_is_204_without_body_and_tag"),
    point("16", "4.3", "candidates_that_cannot_be_used_are_skipped_and_the_others_checked"),
    point("17", "4.3", "an_offer_without_candidates_is_checked_once_they_come"),
    point("18", "4.3", "the_end_of_candidates_is_accepted"),
    point("19", "4.3", "a_restart_is_200_with_new_credentials_and_a_new_tag"),
    point("20", "4.3", "a_restart_replaces_the_clients_candidates"),
    point("21", "4.3", "a_restart_repeats_what_the_answer_said_of_ice"),
    point("22", "4.3", "a_restart_that_cannot_be_satisfied_leaves_the_old_session"),
    client("23", "4.3", "media_goes_on_over_the_same_tracks_after_a_restart"),
    point("24", "4.4", "the_answer_bundles_and_says_rtcp_mux_only_in_each_section"),
    point("25", "4.4", "two_tracks_of_a_kind_are_refused"),
    point("26", "4.4", "one_bad_section_refuses_the_whole_offer"),
    point("27", "4.4", "actpass_is_answered_passive_and_passive_is_refused"),
    point("28", "4.4", "the_server_is_a_full_ice_agent"),
    point("29", "4.5", "nothing_is_redirected_by_301_or_302"),
    point("31", "4.6", "each_ice_server_has_a_link_of_its_own_with_its_credential_quoted"),
    point("32", "4.6", "no_credential_is_on_a_preflight"),
    point("33", "4.7 to 5", "a_bearer_is_asked_for_on_post_patch_and_delete_and_not_on_options"),
    point("34", "4.7 to 5", "simulcast_is_answered_or_declined_cleanly"),
    point("35", "4.7 to 5", "no_extension_is_required"),
    point("36", "5", "ids_have_128_bits_bodies_are_bounded_and_exposed_addresses_use_tls"),
    point("W1", "whep", "a_viewer_is_answered_201_sendonly"),
    point("W2", "whep", "a_viewer_that_would_send_is_422"),
    point("W3", "whep", "a_viewer_trickles_and_restarts_under_the_same_rules"),
    point("W4", "whep", "a_viewer_leaves_once"),
    point("W5", "whep", "a_stream_without_a_publisher_is_409_with_retry_after"),
    Point { number: "30", section: "4.5", name: "overload_is_503_with_retry_after", way: Way::Alone },
];

/// Checks a point.
///
/// # Errors
/// The fault in one sentence; for a point that needs a client, that it does.
pub async fn check(probe: &Probe, point: &Point) -> Check {
    match point.number {
        "1" => requests::reads(probe).await,
        "2" => requests::problems(probe).await,
        "3" => requests::accepted(probe).await,
        "4" => requests::bad_offers(probe).await,
        "5" => answers::directions(probe).await,
        "6" => requests::locations(probe).await,
        "7" => requests::deletes(probe).await,
        "9" => requests::options(probe).await,
        "10" => restarts::bad_patches(probe).await,
        "11" => restarts::both(probe).await,
        "12" => restarts::tags(probe).await,
        "13" => restarts::preconditions(probe).await,
        "14" => answers::candidates(probe).await,
        "15" => restarts::trickled(probe).await,
        "16" => restarts::unusable(probe).await,
        "17" => restarts::late(probe).await,
        "18" => restarts::ended(probe).await,
        "19" => restarts::renewed(probe).await,
        "20" => restarts::replaced(probe).await,
        "21" => restarts::repeated(probe).await,
        "22" => restarts::unsatisfied(probe).await,
        "24" => answers::bundled(probe).await,
        "25" => answers::duplicates(probe).await,
        "26" => answers::partial(probe).await,
        "27" => answers::setup(probe).await,
        "28" => answers::full_ice(probe).await,
        "29" => requests::redirects(probe).await,
        "30" => requests::overload(probe).await,
        "31" => requests::links(probe).await,
        "32" => requests::preflight(probe).await,
        "33" => requests::bearers(probe).await,
        "34" => answers::simulcast(probe).await,
        "35" => answers::extensions(probe).await,
        "36" => requests::security(probe).await,
        "W1" => whep::answered(probe).await,
        "W2" => whep::wrong_way(probe).await,
        "W3" => whep::patches(probe).await,
        "W4" => whep::leaves(probe).await,
        "W5" => whep::nothing_to_see(probe).await,
        _ => Err("this point needs a WebRTC client".into()),
    }
}
