//! A link that names a road is kept to, though the guest could come straight: by TURN, by the SFU, from a link of the box and
//! from one of the fleet server. The crew is shown the road.

use reqwest::StatusCode;
use serde_json::json;

use super::guest_gets_in::{COLOUR, PITCH, is_live, is_the_guest, on_air, press_join, reaches, shows, take};
use super::support::browser::{Browser, Capture};
use super::support::footage::Footage;
use super::support::namespace::is_root_or_ran_as_root;
use super::support::nat::{FLEET_URL, Internet};
use super::support::r58::PATIENCE;
use super::support::sfu::{APP_ID, SECRET, Sfu};
use super::support::{stage, until};
use super::watched_from_afar::{Afar, TURN_SECRET};

/// What the page asked its server for, by path.
const ASKED: &str = "return performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)";

#[test]
fn a_guest_comes_by_the_road_of_its_link_and_by_no_other_though_it_sits_beside_the_box() {
    let here = concat!(
        module_path!(),
        "::a_guest_comes_by_the_road_of_its_link_and_by_no_other_though_it_sits_beside_the_box"
    );
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::outward_only();
        let sfu = internet.public.run(async { Sfu::start_on("203.0.113.1") });
        internet.device.run(by_each_road(&internet, &sfu));
    }
}

async fn by_each_road(internet: &Internet, sfu: &Sfu) {
    let _stage = stage().await;
    let files = tempfile::tempdir().expect("a directory");
    let _turn = internet.turn_server(TURN_SECRET, files.path()).await;
    let secret = files.path().join("sfu-secret");
    std::fs::write(&secret, SECRET).expect("write the secret");
    let table = format!(
        "[device.sfu]\napp_id = \"{APP_ID}\"\nsecret_file = \"{}\"\nbase_url = \"{}\"\n",
        secret.display(),
        sfu.url
    );
    let afar = Afar::start(internet, &table).await;
    let r58 = &afar.device;
    take(r58, "full-guest1").await;
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), Some(FLEET_URL)).await;
    let crew = Browser::start(&Capture::Pattern, None).await;
    crew.open(&r58.device).await;

    for (road, link, taken, words) in [
        ("auto", "join_url", "direct", "same network"),
        ("turn", "box_url", "turn", "through a TURN relay"),
        ("sfu", "join_url", "sfu", "through the SFU"),
    ] {
        let order = json!({ "seat": "guest1", "name": "Ada Lovelace", "admit": false, "road": road });
        let made = afar.api.post("/api/v1/devices/box1/invitations", &order).await;
        guest.open(made[link].as_str().expect("a link")).await;
        press_join(&guest).await;
        is_live(&guest).await;
        let seat = reaches(r58, "live", PATIENCE).await;
        assert_eq!(seat["road"], taken, "{seat}");
        shows(r58).await;
        let told = format!("document.querySelector('[data-testid=seat-guest1]')?.innerText.includes('{words}')");
        crew.until(PATIENCE, "the road on the crew's page", &told, "document.body.innerText").await;

        let asked = guest.script(ASKED).await;
        let asked: Vec<&str> = asked.as_array().into_iter().flatten().filter_map(|path| path.as_str()).collect();
        let of = |base: &str| asked.iter().any(|path| path.starts_with(base));
        assert_eq!((of("/whip/"), of("/api/calls/whip/")), (road != "sfu", road == "sfu"), "{road}: {asked:?}");
        assert_eq!(sfu.log().is_empty(), road != "sfu", "{road}: {:?}", sfu.log());
        guest.screenshot(&format!("road-{road}")).await;
        crew.screenshot(&format!("road-{road}-crew")).await;

        guest.click("leave").await;
        reaches(r58, "free", PATIENCE).await;
        until(PATIENCE, "a programme without the guest", async || {
            let colour = on_air(r58).await;
            if is_the_guest(colour) { Err(colour) } else { Ok(()) }
        })
        .await;
    }
    until(PATIENCE, "an SFU without anything open", async || {
        let open = sfu.open();
        if open.is_empty() { Ok(()) } else { Err(open) }
    })
    .await;
    // A road that the box does not have is not promised.
    let wrong = json!({ "seat": "guest1", "name": "Ada", "road": "tunnel" });
    let path = "/api/v1/devices/box1/invitations";
    let refused = afar.api.call(reqwest::Method::POST, path, Some(&wrong)).await.expect_err("no such road");
    assert!(refused.starts_with(StatusCode::BAD_REQUEST.as_str()), "{refused}");
    afar.stop().await;
}
