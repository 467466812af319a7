//! Takes frame by frame, without a compositor: what each pad shows and how loud it is, under any order of takes.

use proptest::prelude::*;

use super::*;
use crate::scene::shipped::{SceneInput, SceneSet};

const FRAME: u64 = 33_333_333;

fn inputs() -> Vec<SceneInput> {
    let cameras = (1..=4).map(|n| SceneInput::camera(&format!("cam{n}"), &format!("CAM {n}")));
    cameras.chain([SceneInput::guest("guest1", "GUEST 1")]).collect()
}

fn stage() -> (Stage, SceneSet) {
    let inputs = inputs();
    let ids: Vec<_> = inputs.iter().map(|input| input.id.clone()).collect();
    (Stage::new(Mode::default(), &ids), SceneSet::shipped(&inputs).unwrap())
}

fn visible(plan: &FramePlan) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (bus, pads) in plan.pads.iter().enumerate() {
        found.extend(pads.iter().enumerate().filter(|(_, pad)| pad.alpha > 0.0).map(|(input, _)| (bus, input)));
    }
    found
}

#[test]
fn a_cut_is_complete_on_the_very_next_frame() {
    let (mut stage, scenes) = stage();
    stage.take(scenes.get("full-cam1").unwrap(), Transition::Cut).unwrap();
    assert_eq!(visible(&stage.frame(0)), [(1, 0)]);
    let ticket = stage.take(scenes.get("quad").unwrap(), Transition::Cut).unwrap();
    let plan = stage.frame(FRAME);
    assert_eq!(plan.landed, [ticket]);
    assert_eq!(visible(&plan), [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert_eq!(stage.frame(2 * FRAME).landed, Vec::<u64>::new());
}

#[test]
fn two_takes_before_one_frame_show_only_the_last_and_land_both() {
    let (mut stage, scenes) = stage();
    let first = stage.take(scenes.get("full-cam1").unwrap(), Transition::Cut).unwrap();
    let second = stage.take(scenes.get("full-cam2").unwrap(), Transition::Cut).unwrap();
    let plan = stage.frame(0);
    assert_eq!(plan.landed, [first, second]);
    assert_eq!(visible(&plan), [(0, 1)]);
}

#[test]
fn a_mix_between_full_pictures_adds_up_and_ends_on_time() {
    let (mut stage, scenes) = stage();
    stage.take(scenes.get("full-cam1").unwrap(), Transition::Cut).unwrap();
    stage.frame(0);
    stage.take(scenes.get("full-cam2").unwrap(), Transition::Mix { duration: Duration::from_millis(300) }).unwrap();
    let mut shares = Vec::new();
    for n in 1..=10 {
        let plan = stage.frame(n * FRAME);
        shares.push(plan.pads[0][1].alpha);
        assert_eq!(plan.black.0, 0.0);
    }
    assert!(shares[0] > 0.0 && shares[0] < 0.2, "the first frame already mixes: {shares:?}");
    assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(shares[7] < 1.0 && shares[9] == 1.0, "{shares:?}");
    assert_eq!(visible(&stage.frame(11 * FRAME)), [(0, 1)]);
}

#[test]
fn a_full_picture_fades_off_a_quad_that_stands_under_it() {
    let (mut stage, scenes) = stage();
    stage.take(scenes.get("full-cam1").unwrap(), Transition::Cut).unwrap();
    stage.frame(0);
    stage.take(scenes.get("quad").unwrap(), Transition::Mix { duration: Duration::from_secs(1) }).unwrap();
    let plan = stage.frame(FRAME);
    assert!(plan.pads[0][..4].iter().all(|pad| pad.alpha == 1.0 && pad.z < Z_OVER));
    assert!(plan.pads[1][0].alpha < 1.0 && plan.pads[1][0].z >= Z_OVER);
    assert_eq!(plan.black.0, 0.0);
}

#[test]
fn sound_follows_the_picture_without_a_jump() {
    let (mut stage, scenes) = stage();
    stage.take(scenes.get("full-cam1").unwrap(), Transition::Cut).unwrap();
    let mut last = stage.frame(0).gains;
    for n in 1..=4 {
        last = stage.frame(n * FRAME).gains;
    }
    assert_eq!(last, [1.0, 0.0, 0.0, 0.0, 0.0]);
    stage.take(scenes.get("two-up").unwrap(), Transition::Cut).unwrap();
    let first = stage.frame(5 * FRAME).gains;
    assert!(first[1] > 0.3 && first[1] < 0.4, "{first:?}");
    for n in 6..=9 {
        last = stage.frame(n * FRAME).gains;
    }
    assert_eq!(last, [1.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_scene_with_a_stranger_and_an_endless_mix_are_refused() {
    let (mut stage, scenes) = stage();
    let mut strange = scenes.get("quad").unwrap().clone();
    strange.slots[0].source = "cam9".into();
    assert!(stage.take(&strange, Transition::Cut).is_err());
    let endless = Transition::Mix { duration: Duration::from_secs(11) };
    assert!(stage.take(scenes.get("quad").unwrap(), endless).is_err());
    assert_eq!(visible(&stage.frame(0)), []);
}

#[derive(Debug, Clone)]
enum Event {
    Frame,
    Take { scene: usize, mix_ms: Option<u64> },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Frame),
        1 => (0usize..12, proptest::option::of(1u64..2000)).prop_map(|(scene, mix_ms)| Event::Take { scene, mix_ms }),
    ];
    proptest::collection::vec(event, 1..200)
}

proptest! {
    #[test]
    fn any_order_of_takes_keeps_the_picture_whole(events in events()) {
        let (mut stage, scenes) = stage();
        let mode = Mode::default();
        let mut wanted: Option<Scene> = None;
        let mut issued = Vec::new();
        let mut landed = Vec::new();
        let mut gains = vec![0.0; 5];
        let mut frame = 0u64;
        for event in events {
            match event {
                Event::Take { scene, mix_ms } => {
                    let scene = &scenes.all()[scene];
                    let transition = match mix_ms {
                        None => Transition::Cut,
                        Some(ms) => Transition::Mix { duration: Duration::from_millis(ms) },
                    };
                    issued.push(stage.take(scene, transition).unwrap());
                    wanted = Some(scene.clone());
                }
                Event::Frame => {
                    let plan = stage.frame(mode.slot_start(frame));
                    frame += 1;
                    landed.extend(plan.landed.iter().copied());
                    // Everything that was issued before a frame lands on it, once, in order.
                    prop_assert_eq!(&landed, &issued);
                    for pad in plan.pads.iter().flatten() {
                        prop_assert!((0.0..=1.0).contains(&pad.alpha));
                        prop_assert!(pad.x >= 0 && pad.y >= 0 && pad.w >= 2 && pad.h >= 2);
                        prop_assert!(pad.x + pad.w <= 1280 && pad.y + pad.h <= 720);
                        prop_assert!(pad.x % 2 == 0 && pad.y % 2 == 0);
                    }
                    for (gain, before) in plan.gains.iter().zip(&gains) {
                        prop_assert!((0.0..=1.0).contains(gain));
                        prop_assert!((gain - before).abs() <= 0.34, "sound jumped from {} to {}", before, gain);
                    }
                    gains = plan.gains.clone();
                    if !stage.is_mixing() {
                        let buses: std::collections::HashSet<_> = visible(&plan).iter().map(|(bus, _)| *bus).collect();
                        prop_assert!(buses.len() <= 1);
                        let shown: std::collections::BTreeSet<_> =
                            visible(&plan).iter().map(|(_, input)| inputs()[*input].id.clone()).collect();
                        let expected: std::collections::BTreeSet<_> =
                            wanted.iter().flat_map(|scene| scene.slots.iter().map(|slot| slot.source.clone())).collect();
                        prop_assert_eq!(shown, expected);
                    }
                }
            }
        }
    }
}
