//! The promises of the system, each in a file of its own, kept against real parts: the binary itself, a real browser,
//! a real broker, a real TURN server, network namespaces.
//!
//! One test binary, so that it links once. Tests that run a box take turns (`support::stage`), two at a time; those that
//! count frames or measure seconds have the stage for themselves.

mod support;

mod a_broker_node_dies;
mod a_command_happens_once;
mod a_full_disk;
mod a_simulated_fleet;
mod alerts_reach_the_dashboard;
mod anything_dies_at_any_time;
mod back_up_and_restore;
mod certificates;
mod containers;
mod guest_changes_networks;
mod guest_gets_in;
mod guests_are_invited;
mod guests_come_and_go;
mod guests_come_by_the_sfu;
mod guests_hear_the_others;
mod guests_keep_to_their_road;
mod home_assistant;
mod hostile_input;
mod many_boxes_on_the_dashboard;
mod monitored_by_prometheus;
mod nothing_measured_is_lost;
mod operators_look_after_a_fleet;
mod operators_use_mqtt;
mod real_clients;
mod real_tools;
mod releases_roll_out;
mod replicas_share_a_database;
mod requests_to_a_box;
mod secrets_stay_secret;
mod service_manager;
mod starts_and_stops;
mod the_box_tells_what_it_knows;
mod the_programme_never_stops;
mod viewers_play;
mod viewers_watch;
mod watched_from_afar;
