//! A start happens whole or not at all, and a stop happens in order.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::support::process::Process;
use super::support::r58::{EPHEMERAL, Home, PATIENCE, R58};
use super::support::{stage, until};

#[tokio::test]
async fn the_demo_comes_up_with_a_programme_and_stops_in_order() {
    let _stage = stage().await;
    let home = Home::new(EPHEMERAL);
    let mut demo = R58::start(&home, "demo").await;
    demo.state_until("a programme on air", |state| state["programme"]["frames"].as_u64() > Some(30)).await;
    demo.state_until("four live inputs", |state| {
        let inputs = state["inputs"].as_array().into_iter().flatten();
        inputs.filter(|input| input["signal"] == "live").count() == 4
    })
    .await;
    demo.state_until("the fleet reached", |state| state["fleet"]["state"] == "online").await;
    assert!(demo.password.is_some(), "the first start shows a password: {}", demo.process.output());

    let begin = Instant::now();
    demo.process.signal(nix::sys::signal::Signal::SIGINT);
    let status = demo.process.ended(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}: {}", demo.process.output());
    assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());

    let again = R58::start(&home, "demo").await;
    assert_eq!(again.password, None, "the second start finds the first one's state");
    assert!(again.stop().await.success());
}

#[tokio::test]
async fn a_taken_port_is_one_clear_sentence() {
    for (section, duty) in [("device", "the box's pages"), ("fleet", "the fleet server"), ("fleet.broker", "the MQTT broker")] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("its address").port();
        let others = ["device", "fleet", "fleet.broker"].into_iter().filter(|other| *other != section);
        let mut config: String = others.map(|other| format!("[{other}]\nlisten = \"127.0.0.1:0\"\n")).collect();
        config += &format!("[{section}]\nlisten = \"127.0.0.1:{port}\"\n");
        let said = refused(&config).await;
        assert!(said.contains(duty) && said.contains(&port.to_string()), "{said}");
    }
}

#[tokio::test]
async fn an_unwritable_state_directory_is_one_clear_sentence() {
    let home = Home::new(EPHEMERAL);
    std::fs::write(home.state(), b"a file in the way").expect("write");
    let said = refusal(&home).await;
    assert!(said.contains("state directory"), "{said}");
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_its_line() {
    let said = refused("[device]\nid = \"box\"\nlisten = 8000\n").await;
    assert!(said.contains("line 3"), "{said}");
    let said = refused("[device]\nnmae = \"box\"\n").await;
    assert!(said.contains("line 2") && said.contains("nmae"), "{said}");
}

async fn refused(config: &str) -> String {
    refusal(&Home::new(config)).await
}

async fn refusal(home: &Home) -> String {
    let mut process = Process::start("r58 demo", &mut home.command("demo"));
    let status = process.ended(PATIENCE).await;
    assert!(!status.success(), "it should have refused: {}", process.output());
    // The reader threads may lag behind the end of the process.
    until(PATIENCE, "its sentence", || async {
        let output = process.output();
        if output.contains("r58: ") { Ok(output) } else { Err(output) }
    })
    .await
}
