//! A start happens whole or not at all, and a stop happens in order.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::process::Process;
use super::support::r58::{EPHEMERAL, Home, PATIENCE, R58, binary};
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
    for (section, duty) in
        [("device", "the box's pages"), ("fleet", "the fleet server"), ("fleet.broker", "the MQTT broker")]
    {
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
async fn a_missing_gstreamer_element_is_one_clear_sentence_with_its_package() {
    for (plugins, element, package) in [
        (&["libgstcompositor.so"][..], "compositor", "gstreamer1.0-plugins-base"),
        (
            &["libgstx264.so", "libgstopenh264.so", "libgstvideo4linux2.so", "libgstrockchipmpp.so"],
            "an H.264 encoder",
            "gstreamer1.0-plugins-ugly",
        ),
    ] {
        let home = Home::new(EPHEMERAL);
        let fewer = home.path().join("plugins");
        std::fs::create_dir(&fewer).expect("a directory");
        for plugin in std::fs::read_dir(plugin_directory())
            .expect("GStreamer's plugins")
            .map(|entry| entry.expect("an entry").path())
        {
            let name = plugin.file_name().expect("a name");
            if !plugins.iter().any(|left_out| name == *left_out) {
                std::os::unix::fs::symlink(&plugin, fewer.join(name)).expect("a link");
            }
        }
        let mut command = home.command("demo");
        command.env("GST_PLUGIN_SYSTEM_PATH", &fewer).env("GST_REGISTRY", home.path().join("registry.bin"));
        let said = refusal_of(&mut command).await;
        let sentence = said.lines().find(|line| line.starts_with("r58: ")).expect("a sentence");
        assert!(sentence.contains(element) && sentence.contains(package), "{said}");
        assert!(!said.contains(" is up"), "something was half up: {said}");
    }
}

/// Where Debian keeps the plugins.
fn plugin_directory() -> PathBuf {
    let output =
        Command::new("pkg-config").args(["--variable=pluginsdir", "gstreamer-1.0"]).output().expect("pkg-config");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_its_line() {
    let said = refused("[device]\nid = \"box\"\nlisten = 8000\n").await;
    assert!(said.contains("line 3"), "{said}");
    let said = refused("[device]\nnmae = \"box\"\n").await;
    assert!(said.contains("line 2") && said.contains("nmae"), "{said}");
}

#[test]
fn checking_a_broken_file_names_the_line_of_each_fault_and_starts_nothing() {
    for (config, line, word) in [
        ("[device]\nid = \"box\"\nlisten = 8000\n", "line 3", "socket address"),
        ("[device]\nid = \"box\"\n\n[device.programme]\nfps = 900\n", "line 5", "fps"),
        ("[[device.inputs]]\nid = \"cam1\"\nsource = { kind = \"film\" }\n", "line 3", "film"),
        ("[fleet]\nlisten = \"127.0.0.1:0\"\nport = 5\n", "line 3", "port"),
        ("[device\n", "line 1", "]"),
    ] {
        let home = Home::new(config);
        let output = Command::new(binary()).args(["config", "check"]).arg(home.config()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(line) && said.contains(word), "{config}: {said}");
        assert!(!home.state().exists(), "a check leaves nothing behind");
    }
    let home = Home::new(EPHEMERAL);
    let output = Command::new(binary()).args(["config", "check"]).arg(home.config()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

async fn refused(config: &str) -> String {
    refusal(&Home::new(config)).await
}

async fn refusal(home: &Home) -> String {
    refusal_of(&mut home.command("demo")).await
}

async fn refusal_of(command: &mut Command) -> String {
    let mut process = Process::start("r58 demo", command);
    let status = process.ended(PATIENCE).await;
    assert!(!status.success(), "it should have refused: {}", process.output());
    // The reader threads may lag behind the end of the process.
    until(PATIENCE, "its sentence", || async {
        let output = process.output();
        if output.contains("r58: ") { Ok(output) } else { Err(output) }
    })
    .await
}

#[tokio::test]
async fn a_box_with_nothing_to_mix_is_told_so() {
    let home = Home::new("[device]\nlisten = \"127.0.0.1:0\"\n");
    let mut process = Process::start("r58 device", &mut home.command("device"));
    let status = process.ended(PATIENCE).await;
    assert!(!status.success(), "it should have refused");
    until(PATIENCE, "its sentence", || async {
        let output = process.output();
        if output.contains("nothing to mix") { Ok(()) } else { Err(output) }
    })
    .await;
}
